"""The initial copy: under the snapshot with which the replication slot was made, so that copy and stream meet exactly.

What the slot was made for and which key ranges are there stands on the target, each range noted in the transaction that
copied it. A copy that was cut off goes on with the ranges that are missing, under a later snapshot: the stream begins
where the slot does, and repeats for those ranges what they have already, which changes nothing. A slot that is gone, or
one that is past what the target knows, or another source table, means a copy from the beginning, and ranges that are as
they should be are not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.checksum import Checksum
from orchestra_lib.memory.copied_ranges import all_ranges, begun_at, identity, note_begin, note_range
from orchestra_lib.memory.copy import CopiedRange, CopyJob, CopyResult, Snapshot, copy, exported_snapshot
from orchestra_lib.memory.lsn import lsn_number, lsn_text
from orchestra_lib.memory.ranges import KeyRange, key_ranges
from orchestra_lib.memory.replication import ReplicationSession
from orchestra_lib.memory.slot import drop_slot, publish, slot_state

NEW, UNFINISHED, DONE = "new", "unfinished", "done"


@dataclass(frozen=True)
class CopySpec:
    """What is copied and streamed under which names, and how it is shared out."""

    job: CopyJob
    stream: str
    slot: str
    publication: str
    ranges: int
    workers: int
    rows_per_second: int | None = None


@dataclass(frozen=True)
class Standing:
    """What an earlier copy left: ``state`` is ``new``, ``unfinished`` or ``done``; ``reason`` says why in words."""

    state: str
    reason: str
    ranges_done: int = 0
    ranges: int = 0
    start_lsn: int = 0


@dataclass(frozen=True)
class InitialCopy:
    """The copy as it is now: all its ranges, what was sent this time, and where the stream begins."""

    before: Standing
    start_lsn: int
    ranges: tuple[CopiedRange, ...]
    sent: CopyResult


def standing(spec: CopySpec) -> Standing:
    """What there is of this copy. Reads only."""
    with _both(spec) as (source, target):
        return _standing(spec, source, target)


def initial_copy(spec: CopySpec, progress: Callable[[int, int], None]) -> InitialCopy:
    """Copy what is missing; ``progress`` is called with rows done and rows in all, in the caller's thread.

    Needs the target's table. Raises DataError, TargetUnreachable, and LockHeld while somebody else copies or a stream
    runs; called again it goes on.
    """
    with _both(spec) as (source, target):
        state_tables.create(target)
        before = _standing(spec, source, target)
        if before.state == DONE:
            return _found(before, target, spec.stream)
        with state_tables.stream_lock(target, spec.stream):
            before = _standing(spec, source, target)
            if before.state == DONE:  # somebody else has finished it meanwhile
                return _found(before, target, spec.stream)
            with _snapshot(spec, source, target, before) as snapshot:
                sent = _copy_missing(spec, source, target, snapshot, progress)
                _note_done(target, spec.stream, snapshot)
            start_lsn = _standing(spec, source, target).start_lsn
            return InitialCopy(before, start_lsn, _copied(target, spec.stream), sent)


def forget(spec: CopySpec) -> None:
    """Drop the slot, the publication and what the target knows of the stream; the rows stay."""
    with _both(spec) as (source, target):
        drop_slot(source, spec.slot)
        source.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(spec.publication)))
        state_tables.forget(target, spec.stream)


@contextmanager
def _both(spec: CopySpec) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    try:
        with (
            connect(spec.job.source_conninfo, role="source") as source,
            connect(spec.job.target_conninfo, role="target") as target,
        ):
            yield source, target
    except psycopg.OperationalError as error:  # of these sessions, and of those that copy
        raise TargetUnreachable(
            f"the copy was cut off: {str(error).strip().splitlines()[0]}; run it again, it goes on with the key ranges "
            "that are missing"
        ) from error


def _standing(spec: CopySpec, source: psycopg.Connection, target: psycopg.Connection) -> Standing:
    slot = slot_state(source, spec.slot)  # before the note: a stream that runs moves the note first
    known = _known(target, spec.stream)
    if known is None:
        return Standing(NEW, "nothing was copied yet")
    if (known.system, known.table_oid) != identity(source, spec.job.source.table.as_string(source)):
        return Standing(NEW, f"an earlier copy was of another table or server: {known.table} on {known.system}")
    if slot is None:
        return Standing(NEW, f"slot {spec.slot} is gone, and with it the changes since the last copy")
    if slot.is_lost:
        return Standing(NEW, slot.sentence())
    if known.confirmed is not None and slot.confirmed_lsn > known.confirmed:
        told, noted = lsn_text(slot.confirmed_lsn), lsn_text(known.confirmed)
        return Standing(
            NEW, f"the target was set back to {noted}, and slot {spec.slot} has let go of all before {told}"
        )
    copied = _copied(target, spec.stream)
    state = DONE if known.done else UNFINISHED
    ranges = f"{len(copied)} of {known.ranges} key ranges are there"
    reason = f"{ranges}, from slot {spec.slot} at {lsn_text(known.start_lsn)}"
    return Standing(state, reason, len(copied), known.ranges, known.start_lsn)


@contextmanager
def _snapshot(
    spec: CopySpec, source: psycopg.Connection, target: psycopg.Connection, before: Standing
) -> Iterator[Snapshot]:
    """The snapshot to copy under: that of a new slot, or a later one when the slot is there already."""
    if before.state == UNFINISHED:
        with exported_snapshot(source) as snapshot:
            yield snapshot
        return
    state_tables.forget(target, spec.stream)
    drop_slot(source, spec.slot)
    publish(source, spec.publication, spec.job.source.table)
    ranges = key_ranges(source, spec.job.source, spec.ranges)
    with ReplicationSession.open(spec.job.source_conninfo, role="source") as session:
        slot = session.create_slot(spec.slot)
        note_begin(
            source,
            target,
            stream=spec.stream,
            slot=spec.slot,
            publication=spec.publication,
            table=spec.job.source.table.as_string(source),
            start_lsn=slot.consistent_lsn,
            ranges=ranges,
        )
        yield Snapshot(slot.snapshot, lsn_text(slot.consistent_lsn))


def _copy_missing(
    spec: CopySpec,
    source: psycopg.Connection,
    target: psycopg.Connection,
    snapshot: Snapshot,
    progress: Callable[[int, int], None],
) -> CopyResult:
    there = {copied.key_range.number for copied in _copied(target, spec.stream)}
    missing = [key_range for key_range in all_ranges(target, spec.stream) if key_range.number not in there]
    before = sum(copied.source.rows for copied in _copied(target, spec.stream))
    total = max(before, _estimated_rows(spec, source))

    # The lock is held since before the snapshot: this is the copy that the snapshot was taken for.
    begun = begun_at(target, spec.stream)

    def kept(session: psycopg.Connection, copied: CopiedRange) -> None:
        note_range(session, spec.stream, begun, snapshot.lsn, copied)

    return copy(
        spec.job,
        snapshot,
        missing,
        spec.workers,
        lambda rows: progress(before + rows, max(total, before + rows)),
        kept=kept,
        rows_per_second=spec.rows_per_second,
    )


def _estimated_rows(spec: CopySpec, source: psycopg.Connection) -> int:
    """The catalogue's estimate, for a progress bar; nothing is decided by it. -1 is 'never analysed'."""
    name = spec.job.source.table.as_string(source)
    row = source.execute("SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", [name]).fetchone()
    return max(0, row[0]) if row else 0


# --- what the target knows ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    system: str
    table: str
    table_oid: int
    start_lsn: int
    done: bool
    ranges: int
    confirmed: int | None


def _known(target: psycopg.Connection, stream: str) -> _Known | None:
    if target.execute("SELECT to_regclass('orchestra_stream.stream')").fetchone() == (None,):
        return None
    row = target.execute(
        "SELECT source_system, source_table, source_table_oid, start_lsn::text, copy_done_at IS NOT NULL, "
        "(SELECT count(*) FROM orchestra_stream.copied_range WHERE stream = name), "
        "to_jsonb(stream) ->> 'confirmed' "  # tables of an earlier version lack it
        "FROM orchestra_stream.stream WHERE name = %s",
        [stream],
    ).fetchone()
    if row is None:
        return None
    system, table, oid, start, done, ranges, confirmed = row
    return _Known(
        system, table, oid, lsn_number(start), done, ranges, None if confirmed is None else lsn_number(confirmed)
    )


def _copied(target: psycopg.Connection, stream: str) -> tuple[CopiedRange, ...]:
    rows = target.execute(
        "SELECT number, low, high, rows, total FROM orchestra_stream.copied_range "
        "WHERE stream = %s AND copied_at IS NOT NULL ORDER BY number",
        [stream],
    ).fetchall()
    return tuple(
        CopiedRange(KeyRange(number, low, high), Checksum(count, int(total)), sent=True, bytes=0)
        for number, low, high, count, total in rows
    )


def _note_done(target: psycopg.Connection, stream: str, snapshot: Snapshot) -> None:
    # The pipelines of ``scale`` read each range under a snapshot of its own, which may be a later one.
    target.execute(
        "UPDATE orchestra_stream.stream SET copy_done_at = now(), copied_until = greatest(%s::pg_lsn, "
        "(SELECT max(lsn) FROM orchestra_stream.copied_range WHERE stream = name)) WHERE name = %s",
        [snapshot.lsn, stream],
    )


def _found(before: Standing, target: psycopg.Connection, stream: str) -> InitialCopy:
    return InitialCopy(before, before.start_lsn, _copied(target, stream), CopyResult("", "0/0", (), 0, 0, 0, 0.0))
