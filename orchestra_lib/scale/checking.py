"""One range held against the other side: a checksum each, and where they differ the rows by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory.checksum import require_equal_digests
from orchestra_lib.memory.compare import Difference, differences
from orchestra_lib.memory.copy import checksum, target_rows
from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.scale.spec import TransferSpec

MOST_NAMED = 1_000
"""Rows named of one range. More differ only where something is wrong as a whole; then all are counted."""
_NAMED_IN_EVIDENCE = 20


@dataclass(frozen=True)
class CheckedRange:
    """What was found in one range; ``differing`` counts all rows, ``named`` are the first thousand of them."""

    number: int
    source_rows: int
    target_rows: int
    differing: int
    named: tuple[Difference, ...]


@dataclass(frozen=True)
class Checked:
    """What was found in all of them. While a store is written to, what differs is only suspected: compare again."""

    ranges: int
    source_rows: int
    target_rows: int
    differing: int
    named: tuple[Difference, ...]

    def evidence(self) -> tuple[Evidence, ...]:
        """The claim that both sides are the same; MEASURED, because every byte was read on both."""
        named = ", ".join(f"{row.id} ({row.kind})" for row in self.named[:_NAMED_IN_EVIDENCE])
        read = f"{self.source_rows:,} rows against {self.target_rows:,} in {self.ranges} key ranges"
        return (
            Evidence(
                "rows that differ between source and target",
                Source.MEASURED,
                self.differing,
                "rows",
                Bound("==", 0),
                note=f"{named}; {read}" if named else read,
            ),
        )


class Checker:
    """A worker's sessions with both sides. Closes with the ``with`` block, or by ``close``."""

    def __init__(self, spec: TransferSpec) -> None:
        """Connect. Raises TargetUnreachable, DataError when checksums of the two servers cannot be compared."""
        job = spec.job()
        self._stack = ExitStack()
        source = self._stack.enter_context(connect(job.source_conninfo, role="source"))
        target = self._stack.enter_context(connect(job.target_conninfo, role="target"))
        require_equal_digests(source, target)
        self._sides = (source, job.source.select), (target, target_rows(job.target_table))

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sessions."""
        self._stack.close()

    def check(self, key_range: KeyRange) -> CheckedRange:
        """Compare one range; reads only."""
        theirs, ours = (checksum(*side, key_range) for side in self._sides)
        if theirs == ours:
            return CheckedRange(key_range.number, theirs.rows, ours.rows, 0, ())
        named, differing = list[Difference](), 0
        with closing(differences(*self._sides, key_range)) as found:
            for row in found:
                differing += 1
                if len(named) < MOST_NAMED:
                    named.append(row)
        return CheckedRange(key_range.number, theirs.rows, ours.rows, differing, tuple(named))


def together(ranges: Iterable[CheckedRange], made: Collection[int]) -> Checked:
    """All ranges as one finding, the rows in key order. ``made`` are the numbers of the ranges that were to be checked.

    Raises DataError unless each of these was found once and nothing else was: what was not compared is not the same.
    """
    found = sorted(ranges, key=lambda one: one.number)
    numbers = [one.number for one in found]
    if not made or numbers != sorted(made):
        unknown = sorted(set(made) - set(numbers))
        first = f", the first without one is range {unknown[0]}" if unknown else ""
        raise DataError(
            f"{len(made)} ranges were made and {len(numbers)} findings are there, of {len(set(numbers))} ranges{first};"
            " nothing is known of the whole: verify again, with a report that every worker can write"
        )
    return Checked(
        len(found),
        sum(one.source_rows for one in found),
        sum(one.target_rows for one in found),
        sum(one.differing for one in found),
        tuple(row for one in found for row in one.named),
    )
