"""Proving a copy: row counts and checksums per key range, and down to the rows where they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import psycopg

from orchestra_lib.database import connect
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory.compare import Difference, differences
from orchestra_lib.memory.copy import CopiedRange, CopyJob, checksum, target_rows
from orchestra_lib.memory.parallel import RowCount, shared_out
from orchestra_lib.memory.ranges import KeyRange

_ROWS_NAMED = 20


@dataclass(frozen=True)
class Verification:
    """Row counts of both sides, the ranges that differ, and up to twenty of the rows that make them differ."""

    source_rows: int
    target_rows: int
    ranges: int
    differing_ranges: tuple[KeyRange, ...]
    differences: tuple[Difference, ...]

    def evidence(self) -> tuple[Evidence, ...]:
        """The claims of a good copy; MEASURED, because every byte was read back."""
        named = ", ".join(f"{row.id} ({row.kind})" for row in self.differences)
        return (
            Evidence(
                "rows on the target less rows on the source",
                Source.MEASURED,
                self.target_rows - self.source_rows,
                "rows",
                Bound("==", 0),
                note=f"{self.target_rows:,} against {self.source_rows:,}",
            ),
            Evidence(
                "key ranges whose checksums differ",
                Source.MEASURED,
                len(self.differing_ranges),
                "ranges",
                Bound("==", 0),
                note=named or f"all {self.ranges} ranges agree",
            ),
        )


def verify(job: CopyJob, copied: Sequence[CopiedRange], workers: int, progress: Callable[[int], None]) -> Verification:
    """Read the whole target back, range by range, and compare it with what the source sent.

    ``progress`` is called with the number of rows checked so far, in the caller's thread. Rows in the differing ranges
    are compared one by one with the source as it is now.
    """
    count = RowCount()

    def check(target: psycopg.Connection, item: CopiedRange) -> tuple[CopiedRange, int, bool]:
        found = checksum(target, target_rows(job.target_table), item.key_range)
        count.add(found.rows)
        return item, found.rows, found == item.source

    checked = shared_out(
        copied,
        workers,
        lambda: connect(job.target_conninfo, role="target"),
        check,
        lambda: progress(count.rows),
    )
    differing = tuple(item.key_range for item, _, same in checked if not same)
    return Verification(
        sum(item.source.rows for item in copied),
        sum(rows for _, rows, _ in checked),
        len(copied),
        differing,
        _differences(job, differing),
    )


def _differences(job: CopyJob, ranges: Sequence[KeyRange]) -> tuple[Difference, ...]:
    if not ranges:
        return ()
    with connect(job.source_conninfo, role="source") as source, connect(job.target_conninfo, role="target") as target:
        theirs, ours = (source, job.source.select), (target, target_rows(job.target_table))
        found: list[Difference] = []
        for key_range in ranges:
            with closing(differences(theirs, ours, key_range)) as rows:
                found += islice(rows, _ROWS_NAMED - len(found))
        return tuple(found)
