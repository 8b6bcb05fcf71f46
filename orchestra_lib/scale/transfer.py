"""One range from the source to the target: what a worker does, whichever engine calls it, any number of times.

An empty range is copied straight into the table. Where there are rows already they are left alone if their checksum is
the source's, and merged with a staging table otherwise: only rows that differ are written, because every row that is
written costs its share of the vector index too. Each is one transaction on the target with the note that the range is
there. A range that is noted is not touched again: by then a stream may have changed it.

Each range is read under a snapshot of its own. The stream begins at the slot, which is older than all of them, and
what it repeats of a range changes nothing; so no snapshot holds back the source's vacuum for hours.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum

import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.memory.checksum import Checksum, binary_columns, record_digest, require_equal_digests
from orchestra_lib.memory.copied_ranges import AlreadyThere, begun_at, note_range
from orchestra_lib.memory.copy import (
    CopiedRange,
    CopyJob,
    Snapshot,
    checksum,
    copy_range,
    exported_snapshot,
    target_rows,
)
from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.memory.throttle import Throttle
from orchestra_lib.scale.health import Governor, Health, health
from orchestra_lib.scale.range_state import noted, range_lock
from orchestra_lib.scale.spec import TransferSpec

_SCHEMA = "orchestra_stream"


class Outcome(StrEnum):
    """How a range came to be there."""

    SENT = "sent"  # it was empty
    MERGED = "merged"  # rows that differed were written
    KEPT = "kept"  # the source's rows were there, and were noted
    DONE = "done"  # it was noted already: nothing was read


@dataclass(frozen=True)
class Transferred:
    """One range after its transfer. ``bytes`` is what was sent, ``health`` how the target is afterwards."""

    number: int
    rows: int
    bytes: int
    outcome: Outcome
    seconds: float
    health: Health
    slowed: bool


class Carrier:
    """A worker's sessions with both sides. Closes with the ``with`` block, or by ``close``."""

    def __init__(self, spec: TransferSpec) -> None:
        """Connect. Raises TargetUnreachable, DataError when checksums of the two servers cannot be compared."""
        self._spec = spec
        self._job: CopyJob = spec.job()
        self._governor = Governor(spec.pace, spec.workers)
        self._stack = ExitStack()
        self._source = self._open(self._job.source_conninfo, "source")
        self._target = self._open(self._job.target_conninfo, "target")
        require_equal_digests(self._source, self._target)

    def __enter__(self) -> Carrier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sessions."""
        self._stack.close()

    def transfer(self, key_range: KeyRange) -> Transferred:
        """Bring the range to the target unless it is there."""
        began = time.monotonic()
        with range_lock(self._target, self._spec.stream, key_range.number):
            found = noted(self._target, self._spec.stream, key_range.number)
            if found is not None:
                rows, size, outcome = found.rows, 0, Outcome.DONE
            else:
                try:
                    rows, size, outcome = self._bring(key_range)
                except AlreadyThere:
                    rows, size, outcome = 0, 0, Outcome.DONE
        seconds = time.monotonic() - began
        state = health(self._target)
        self._governor.learn(state, rows / seconds if size else None)
        return Transferred(key_range.number, rows, size, outcome, seconds, state, self._governor.slowed)

    def _open(self, address: Address, role: str) -> psycopg.Connection:
        return self._stack.enter_context(connect(address, role=role, application_name="orchestra_transfer"))

    def _bring(self, key_range: KeyRange) -> tuple[int, int, Outcome]:
        begun = begun_at(self._target, self._spec.stream)
        with exported_snapshot(self._source) as snapshot:
            there = checksum(self._target, target_rows(self._job.target_table), key_range)
            if not there.rows:
                sent = self._send(self._job, begun, snapshot, key_range, lambda _target, _copied: None)
                return sent.source.rows, sent.bytes, Outcome.SENT
            wanted = checksum(self._source, self._job.source.select, key_range)
            if wanted == there:
                self._keep(begun, snapshot, key_range, wanted)
                return wanted.rows, 0, Outcome.KEPT
            return self._merge(begun, snapshot, key_range)

    def _keep(self, begun: str, snapshot: Snapshot, key_range: KeyRange, wanted: Checksum) -> None:
        with self._target.transaction():
            note_range(self._target, self._spec.stream, begun, snapshot.lsn, CopiedRange(key_range, wanted, False, 0))

    def _merge(self, begun: str, snapshot: Snapshot, key_range: KeyRange) -> tuple[int, int, Outcome]:
        staging = sql.Identifier(_SCHEMA, f"staging_{self._spec.stream}_{key_range.number}")
        drop = sql.SQL("DROP TABLE IF EXISTS {}").format(staging)
        self._target.execute(drop)  # what a worker left that was killed
        # Not logged: after a crash it is made again.
        self._target.execute(sql.SQL("CREATE UNLOGGED TABLE {} (LIKE {})").format(staging, self._job.target_table))
        try:
            sent = self._send(
                replace(self._job, target_table=staging),
                begun,
                snapshot,
                key_range,
                lambda target, _copied: _merge_rows(target, self._job.target_table, staging, key_range),
            )
        finally:
            self._target.execute(drop)
        return sent.source.rows, sent.bytes, Outcome.MERGED

    def _send(
        self,
        job: CopyJob,
        begun: str,
        snapshot: Snapshot,
        key_range: KeyRange,
        before_note: Callable[[psycopg.Connection, CopiedRange], None],
    ) -> CopiedRange:
        def kept(target: psycopg.Connection, copied: CopiedRange) -> None:
            before_note(target, copied)
            note_range(target, self._spec.stream, begun, snapshot.lsn, copied)

        throttle = Throttle(self._governor.rows_per_second)
        return copy_range(job, self._source, self._target, key_range, throttle.take, kept)


def _merge_rows(
    target: psycopg.Connection, table: sql.Identifier, staging: sql.Identifier, key_range: KeyRange
) -> None:
    """Make the table's range what the staging table is; rows that are the same already are not written."""
    digests = sql.SQL("SELECT {keys}, {digest} AS digest FROM (SELECT {columns} FROM {rows} WHERE {condition}) AS rows")

    def digests_of(rows: sql.Identifier, name: str) -> sql.Composed:
        return sql.SQL("({}) AS {}").format(
            digests.format(
                keys=sql.SQL("rows.id"),
                digest=record_digest(sql.SQL("rows")),
                columns=binary_columns(),
                rows=rows,
                condition=key_range.condition(),
            ),
            sql.Identifier(name),
        )

    columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    new_values = sql.SQL(", ").join(sql.SQL("EXCLUDED.{}").format(sql.Identifier(column)) for column in COLUMNS)
    target.execute(
        sql.SQL("DELETE FROM {} AS there WHERE {} AND NOT EXISTS (SELECT 1 FROM {} AS sent WHERE sent.id = there.id)")
        .format(table, key_range.condition(), staging)
    )  # fmt: skip
    target.execute(
        sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging} WHERE id IN ("
            "SELECT sent.id FROM {sent} LEFT JOIN {there} USING (id) WHERE sent.digest IS DISTINCT FROM there.digest) "
            "ON CONFLICT (id) DO UPDATE SET ({columns}) = ROW({new_values})"
        ).format(
            table=table,
            columns=columns,
            staging=staging,
            sent=digests_of(staging, "sent"),
            there=digests_of(table, "there"),
            new_values=new_values,
        )
    )
