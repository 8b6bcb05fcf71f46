"""Two ways of applying the same changes to a target: PostgreSQL's own logical replication, and our stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import psycopg
from psycopg import sql
from workload import Mark

from orchestra_lib.database import connect
from orchestra_lib.memory import slot, state_tables
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.stream import Stream, StreamSpec, Tuning

PUBLICATION = "bench"
_STREAM = "bench"
_WAIT_SECONDS = 600.0
_POLL_SECONDS = 0.01


class Side(Protocol):
    """A way of applying, stopped at first. Its slot keeps what is written meanwhile."""

    name: str

    def start(self) -> None:
        """Begin; returns once the source sends it changes."""

    def wait_until(self, mark: Mark) -> None:
        """Return once the target has its row and everything that was committed before it."""

    def stop(self) -> None:
        """End; returns once nobody reads the slot."""

    def drop(self) -> None:
        """Remove the slot."""


class Native:
    """A subscription: binary, and large transactions applied by workers in parallel."""

    name = "native"

    def __init__(self, source: str, target: str) -> None:
        self._source, self._target = source, target
        self._reached: Mark | None = None
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute(
                sql.SQL(
                    "CREATE SUBSCRIPTION native CONNECTION {} PUBLICATION {} "
                    "WITH (enabled = false, create_slot = true, copy_data = false, binary = true, streaming = parallel)"
                ).format(sql.Literal(source), sql.Identifier(PUBLICATION))
            )

    def start(self) -> None:
        self._alter("ENABLE")
        _await_slot(self._source, "native", active=True)

    def wait_until(self, mark: Mark) -> None:
        _await_row(self._target, mark)
        self._reached = mark

    def stop(self) -> None:
        self._alter("DISABLE")
        _await_slot(self._source, "native", active=False)
        _forget_until(self._source, "native", self._reached)

    def drop(self) -> None:
        with psycopg.connect(self._target, autocommit=True) as connection:
            connection.execute("DROP SUBSCRIPTION native")

    def _alter(self, how: str) -> None:
        with psycopg.connect(self._target, autocommit=True) as connection:
            connection.execute(f"ALTER SUBSCRIPTION native {how}")


class Ours:
    """Our stream, in a thread of this program, which does nothing else meanwhile."""

    name = "ours"

    def __init__(self, source: str, target: str, tuning: Tuning) -> None:
        self._source, self._target = source, target
        self.tuning = tuning
        self._reached: Mark | None = None
        self._stop, self._thread, self._stream = threading.Event(), None, None
        self._errors: list[BaseException] = []
        with connect(source) as connection:
            self._table = source_table(connection, "memories", {})
            row = connection.execute(
                "SELECT lsn FROM pg_create_logical_replication_slot('ours', 'pgoutput')"
            ).fetchone()
        with connect(target) as connection:
            state_tables.create(connection)
            connection.execute(
                "INSERT INTO orchestra_stream.stream (name, source_system, source_table, source_table_oid, slot, "
                "publication, start_lsn, copy_done_at) VALUES (%s, 'bench', 'memories', 0, 'ours', %s, %s, now())",
                [_STREAM, PUBLICATION, row[0]],
            )

    def start(self) -> None:
        spec = StreamSpec(
            _STREAM, self._source, self._table, self._target, sql.Identifier("memories"), "ours", PUBLICATION,
            self.tuning,
        )  # fmt: skip
        self._stop, self._stream = threading.Event(), Stream(spec)
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()
        _await_slot(self._source, "ours", active=True, alive=self._thread.is_alive)

    def wait_until(self, mark: Mark) -> None:
        with connect(self._source) as source:
            lsn = slot.mark(source)
        if not self._stream.wait_for(lsn, _WAIT_SECONDS):
            raise SystemExit(f"the stream did not come to the end: {self._stream.status().sentence()}")
        _await_row(self._target, mark)
        self._reached = mark

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._errors:
            raise self._errors[0]
        _await_slot(self._source, "ours", active=False)
        _forget_until(self._source, "ours", self._reached)

    def drop(self) -> None:
        with connect(self._source) as source:
            slot.drop_slot(source, "ours")

    def _run(self) -> None:
        try:
            self._stream.run(self._stop)
        except BaseException as error:
            self._errors.append(error)
            raise


def _await_slot(source: str, slot_name: str, *, active: bool, alive: Callable[[], bool] = lambda: True) -> None:
    with connect(source) as connection:
        _await(
            lambda: (slot.slot_state(connection, slot_name).active_pid is not None) == active or not alive(),
            f"slot {slot_name} {'read' if active else 'left alone'}",
        )


def _forget_until(source: str, slot_name: str, reached: Mark | None) -> None:
    """Let the slot begin behind what is applied: otherwise a side reads again, next time, what it has had."""
    with connect(source) as connection:
        connection.execute(
            "SELECT pg_replication_slot_advance(slot_name, greatest(confirmed_flush_lsn, %s::pg_lsn)) "
            "FROM pg_replication_slots WHERE slot_name = %s",
            [reached.lsn if reached else None, slot_name],
        )


def _await_row(target: str, mark: Mark) -> None:
    with psycopg.connect(target, autocommit=True) as connection:
        wanted = ("SELECT FROM memories WHERE id = %s", [mark.row_id])
        _await(lambda: connection.execute(*wanted).fetchone() is not None, f"row {mark.row_id} on the target")


def _await(there: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not there():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {_WAIT_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)
