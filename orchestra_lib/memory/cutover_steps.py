"""The steps of a cutover that may have to be repeated by another process than the one that began them, and the undoing.

Everything here may be done twice: it looks, or says what is to be, not by how much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import psycopg
from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.memory import state_tables
from orchestra_lib.memory.cutover_journal import CutoverJournal, Outcome, RecordedCutover, Step
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.replication import ReplicationSession
from orchestra_lib.memory.sides import Direction
from orchestra_lib.memory.slot import drop_slot, publish, slot_state
from orchestra_lib.memory.stream import StreamSpec
from orchestra_lib.memory.stream_status import StreamStatus
from orchestra_lib.memory.writers import grants_for, open_to

Switch = Callable[[str], None]
"""Makes the application write where this endpoint says; called again with the same endpoint it changes nothing."""

_FREE_SECONDS = 10.0
_LOOK_SECONDS = 0.02


class Follows(Protocol):
    """A stream that runs."""

    def wait_for(self, lsn: int, timeout_seconds: float) -> bool:
        """Whether everything before ``lsn`` is on the other side, once waited for."""
        ...

    def status(self) -> StreamStatus:
        """How it stands."""
        ...

    def stop(self) -> None:
        """End it in order."""
        ...


def make_return_slot(direction: Direction) -> None:
    """The publication and the slot that the stream back will be read from. A slot that is there is made anew."""
    back, there = direction.back, direction.there
    if back is None:
        return
    with connect(there.address, role=there.role) as session:
        publish(session, back.publication, there.table.table)
        drop_slot(session, back.slot)
    with ReplicationSession.open(there.address, role=there.role) as session:
        session.create_slot(back.slot)


def open_there(direction: Direction, session: psycopg.Connection, journal: CutoverJournal) -> None:
    """Let the writers in on the other side, with the rights that were withheld there."""
    there = direction.there
    open_to(
        session, there.table.table, grants_for(session, there.table.table, there.writers, journal.withheld(there.role))
    )


def end_stream(direction: Direction, fence_lsn: int) -> int:
    """Drop the slot of the stream that has ended, unless somebody wrote after the fence.

    Returns how many changes there are in it from ``fence_lsn`` on: they are on no other side, and the slot is kept.
    Raises DataError when another process reads the slot.
    """
    stream, here = direction.stream, direction.here
    with connect(here.address, role=here.role) as session:
        deadline = time.monotonic() + _FREE_SECONDS
        while (slot := slot_state(session, stream.slot)) is not None and slot.active_pid is not None:
            if time.monotonic() > deadline:
                raise DataError(f"slot {stream.slot} is still read by process {slot.active_pid} of the {here.role}")
            time.sleep(_LOOK_SECONDS)
        if slot is None:
            return 0
        late = _changes_from(session, stream, fence_lsn)
        if not late:
            drop_slot(session, stream.slot)
        return late


def note_return(direction: Direction, lsn: int) -> StreamSpec | None:
    """Write where the stream back begins, on the side that it will be applied to; returns its specification."""
    back, here, there = direction.back, direction.here, direction.there
    if back is None:
        return None
    table = there.table.table
    with connect(there.address, role=there.role) as session:
        identity = session.execute(
            "SELECT system_identifier::text, %s::regclass::oid::bigint FROM pg_control_system()",
            [table.as_string(session)],
        ).fetchone()
    system, oid = identity or ("", 0)
    positions = [lsn_text(lsn)] * 3
    values = [back.name, system, table.as_string(None), oid, back.slot, back.publication, *positions]
    with connect(here.address, role=here.role) as session:
        state_tables.create(session)
        with session.transaction():
            begun = session.execute(_NOTE, values)
            if begun.rowcount:
                session.execute("DELETE FROM orchestra_stream.checkpoint WHERE stream = %s", [back.name])
    return back


# Nothing is copied: both sides are the same where it begins. A stream that has begun there already is left alone.
_NOTE = """
INSERT INTO orchestra_stream.stream
       (name, source_system, source_table, source_table_oid, slot, publication, start_lsn, copied_until, confirmed,
        copy_done_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, now())
ON CONFLICT (name) DO UPDATE SET
       source_system = excluded.source_system, source_table = excluded.source_table,
       source_table_oid = excluded.source_table_oid, slot = excluded.slot, publication = excluded.publication,
       start_lsn = excluded.start_lsn, copied_until = excluded.copied_until, confirmed = excluded.confirmed,
       copy_done_at = excluded.copy_done_at
WHERE (stream.source_system, stream.start_lsn) IS DISTINCT FROM (excluded.source_system, excluded.start_lsn)
"""


def complete(
    direction: Direction,
    journal: CutoverJournal,
    record: RecordedCutover,
    switch: Switch,
    start_back: Callable[[StreamSpec], None],
) -> int:
    """Do what is left of a cutover that has switched; returns how many changes came too late for it.

    Raises what a step raises: call it again.
    """
    there, content = direction.there, record.steps[Step.SWITCH].content

    def open_side() -> None:
        with connect(there.address, role=there.role) as session:
            open_there(direction, session, journal)

    late = 0

    def end() -> None:
        nonlocal late
        late = end_stream(direction, content["fence_lsn"])

    def start() -> None:
        back = note_return(direction, content["return_lsn"])
        if back is not None:
            start_back(back)

    steps: Mapping[Step, Callable[[], None]] = {
        Step.SWITCH: lambda: switch(there.endpoint),
        Step.OPEN: open_side,
        Step.END_STREAM: end,
        Step.START_BACK: start,
    }
    for step, work in steps.items():
        if step in record.steps and record.steps[step].done:
            continue
        if step not in record.steps:
            journal.begun(record, step)
        work()
        journal.done(record, step)
    journal.ended(record, Outcome.DONE)
    return late


_UNDONE = frozenset({Step.RETURN_SLOT, Step.CLOSE, Step.SWITCH})
"""The steps that leave something. That the other side is shut stays: its writers had no business there."""


def undo(
    direction: Direction, journal: CutoverJournal, record: RecordedCutover, switch: Switch
) -> tuple[list[Step], list[str]]:
    """Undo what was begun, last things first. Returns the steps that were, and what went wrong in words.

    The cutover has ended unless something could not be undone yet, such as letting the writers in again.
    """
    undone: list[Step] = []
    failures: list[str] = []
    for step in reversed(tuple(record.steps)):
        try:
            _undo_step(step, direction, journal, switch)
        except Exception as error:  # noqa: BLE001 - the steps before it have to be undone all the same; it is told
            failures.append(f"could not undo '{step}': {error}")
            if step is not Step.SWITCH:
                continue
            # Nobody writes on the other side, whatever the endpoint says: letting the writers in here is right.
        journal.undone(record, step)
        if step in _UNDONE:
            undone.append(step)
    if not record.steps:
        journal.ended(record, Outcome.UNDONE)
    return undone, failures


def _undo_step(step: Step, direction: Direction, journal: CutoverJournal, switch: Switch) -> None:
    here, there, back = direction.here, direction.there, direction.back
    if step is Step.SWITCH:
        switch(here.endpoint)
    elif step is Step.CLOSE:
        with connect(here.address, role=here.role) as session:
            open_to(session, here.table.table, journal.withheld(here.role))
    elif step is Step.RETURN_SLOT and back is not None:
        with connect(there.address, role=there.role) as session:
            drop_slot(session, back.slot)
            session.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(back.publication)))


def _changes_from(session: psycopg.Connection, stream: StreamSpec, lsn: int) -> int:
    """How many changes of rows a slot holds from a position on; it is not moved."""
    # The kinds of pgoutput's messages that change rows: Insert, Update, Delete, Truncate.
    row = session.execute(
        """
        SELECT count(*) FROM pg_logical_slot_peek_binary_changes(
            %s, NULL, NULL, 'proto_version', '1', 'publication_names', %s)
        WHERE lsn >= %s AND get_byte(data, 0) = ANY(ARRAY[ascii('I'), ascii('U'), ascii('D'), ascii('T')])
        """,
        [stream.slot, sql.Identifier(stream.publication).as_string(session), lsn_text(lsn)],
    ).fetchone()
    return int(row[0]) if row else 0
