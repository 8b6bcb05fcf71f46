"""The rehearsal's application: a writer in a process of its own, with a ledger of what was acknowledged.

It writes through everything that runbook 03 does, follows the cutover, and its ledger judges every claim of no loss.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import ExitStack

import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.memory.writers import APPLICATION_RIGHTS
from orchestra_lib.paths import state_directory
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.rehearsal.judge import judge
from orchestra_lib.rehearsal.load_report import Report, report
from orchestra_lib.rehearsal.writer import Load, WriterProcess, writer_process
from orchestra_lib.rehearsal.written import KEY_SPACE

_PILE = "piled:"
WRITTEN_BY_A_REHEARSAL = sql.SQL("(starts_with(id, {}) OR starts_with(id, {}))").format(
    sql.Literal(KEY_SPACE), sql.Literal(_PILE)
)
"""A condition on rows: whether a rehearsal's writer has made them."""
_SHOWN = 50


class RehearsalLoad:
    """The writer of one run. Only a rehearsal has one: elsewhere the application itself writes."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        run = stores.run.record.run_id
        home = state_directory() / "load"
        self._route, self._ledger = home / f"{run}.route", home / f"{run}.ledger"
        self._seed = zlib.crc32(run.encode())
        self._stack = ExitStack()
        self._writer: WriterProcess | None = None
        self.report: Report | None = None
        stores.run.at_end(self.close)

    @property
    def is_wanted(self) -> bool:
        """Whether this run has a writer: a rehearsal's, unless its store is to stand still."""
        memory = self._stores.memory
        return self._stores.source.is_rehearsal and memory.load is not None and memory.stream.live

    @property
    def is_running(self) -> bool:
        """Whether it writes now."""
        return self._writer is not None and self._writer.running

    def start(self) -> None:
        """Begin to write to today's store, unless it does already."""
        wanted = self._stores.memory.load
        if not self.is_wanted or wanted is None or self.is_running:
            return
        self._route.parent.mkdir(parents=True, exist_ok=True)
        self.point_at(self.source_address())
        if left := self.clear():
            self._stores.run.note(f"{left:,} rows that an earlier run's writer had left were deleted from the source")
        load = Load(per_second=wanted.writes_per_second, seed=self._seed, table=self._stores.memory.source.table)
        self._writer = self._stack.enter_context(writer_process(load, self._route, self._ledger))

    def take_up(self) -> bool:
        """Speak for the last writer of an earlier run, which ended with it; False where none has left a ledger."""
        ledgers = sorted(self._ledger.parent.glob("*.ledger"), key=lambda path: path.stat().st_mtime)
        if self._writer is not None or not ledgers:
            return False
        self._ledger = ledgers[-1]
        self.report = report(self._ledger)
        return True

    def stop(self) -> Report:
        """Let it end in order; its report."""
        if self._writer is None and self.report is not None:
            return self.report
        if self._writer is None:
            raise GateFailed("nobody writes: run the cell that starts the load first")
        if self._writer.running:
            self.report = self._writer.stop()
        if self.report is None:
            raise GateFailed("the writer has ended by itself: see its ledger " + str(self._ledger))
        return self.report

    def point_at(self, address: str) -> None:
        """Tell it where to write, as an application reads it from the connection secret."""
        part = self._route.with_suffix(".part")
        part.touch(mode=0o600)
        part.write_text(address)
        part.replace(self._route)

    def source_address(self) -> str:
        """Where it writes today: the source, as a role that can be shut out; made if need be."""
        (role,) = self._stores.memory.writers.source or ("orchestra_writer",)
        address = self._stores.source.address
        with connect(address, role="source") as session:
            _make_role(session, role, self._stores.memory.source.table)
        return psycopg.conninfo.make_conninfo(str(address), user=role)

    def evidence(self, where: str, address: Address) -> tuple[Evidence, ...]:
        """The judge's verdict on a store, once the writer rests and everything it wrote has arrived there."""
        return judge(self._ledger, address, self._stores.memory.source.table).evidence(where)

    def report_evidence(self) -> tuple[Evidence, ...]:
        """What it wrote, and how long it could not."""
        found = self.stop()
        verbs = ", ".join(f"{count:,} {verb}" for verb, count in found.by_verb.items())
        return (
            Evidence("writes acknowledged", Source.MEASURED, found.acknowledged, "writes", Bound(">", 0), note=verbs),
            Evidence("writes a second", Source.MEASURED, round(found.per_second), "writes/s"),
            Evidence("p95 of a write", Source.MEASURED, found.p95_ms, "ms"),
            Evidence("writes skipped", Source.MEASURED, found.skipped, "writes", note="their time had long passed"),
        )

    def acknowledged(self) -> int:
        """How many of its writes were acknowledged so far; 0 before it has started."""
        return report(self._ledger).acknowledged if self._writer is not None else 0

    def pile_up(self, rows: int) -> int:
        """Write rows to the source at once, beside the ledger, for a stream that has to catch up; returns how many."""
        statement = sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {prefix} || id, {others} FROM {table} "
            "WHERE NOT starts_with(id, {prefix}) AND NOT starts_with(id, {written}) ORDER BY id LIMIT %s"
        ).format(
            table=self._table,
            columns=_names(COLUMNS),
            others=_names(COLUMNS[1:]),
            prefix=sql.Literal(_PILE),
            written=sql.Literal(KEY_SPACE),
        )
        with connect(self._stores.source.address, role="source") as session:
            return session.execute(statement, [rows]).rowcount

    def pause_evidence(self) -> tuple[Evidence, ...]:
        """How long it could not write at the last switch, as its own ledger tells it."""
        pauses = report(self._ledger).pauses
        if not pauses:
            return ()
        last = pauses[-1]
        # A server's words of a session that was ended take a paragraph; a code says as much.
        told = ", ".join(f"{reason.splitlines()[0][:_SHOWN]} {count} times" for reason, count in last.reasons.items())
        return (
            Evidence(
                "pause as the writer's own ledger tells it",
                Source.MEASURED,
                round(last.seconds, 3),
                "s",
                note=f"longest of {last.sessions} sessions; it was answered {told}",
            ),
        )

    def clear(self) -> int:
        """Delete everything that was written by this writer or an earlier one; returns the rows."""
        statement = sql.SQL("DELETE FROM {} WHERE {}").format(self._table, WRITTEN_BY_A_REHEARSAL)
        with connect(self._stores.source.address, role="source") as session:
            return session.execute(statement).rowcount

    @property
    def _table(self) -> sql.Identifier:
        return sql.Identifier(*self._stores.memory.source.table.split("."))

    def close(self) -> None:
        """End it if it still runs, and forget where it wrote."""
        self._stack.close()
        self._route.unlink(missing_ok=True)


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column) for column in columns)


def _make_role(session: psycopg.Connection, role: str, table: str) -> None:
    name = sql.Identifier(role)
    if session.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    rights = sql.SQL(", ").join(sql.SQL(right) for right in APPLICATION_RIGHTS)
    session.execute(sql.SQL("GRANT {} ON {} TO {}").format(rights, sql.Identifier(*table.split(".")), name))
