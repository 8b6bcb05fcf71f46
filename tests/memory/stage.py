"""A store on its way for tests of the cutover: both sides on servers of their own, a role that writes, a route."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.memory.copy import CopyJob
from orchestra_lib.memory.cutover import Cutover, CutoverResult, Rules
from orchestra_lib.memory.cutover_journal import CutoverJournal
from orchestra_lib.memory.initial_copy import CopySpec, initial_copy
from orchestra_lib.memory.running_stream import RunningStream
from orchestra_lib.memory.schema import create_table
from orchestra_lib.memory.sides import Direction, Side
from orchestra_lib.memory.slot import drop_slot, mark
from orchestra_lib.memory.source import SourceTable, source_table
from orchestra_lib.memory.stream import StreamSpec, Tuning
from orchestra_lib.memory.touched import Touched
from orchestra_lib.rehearsal.judge import Verdict, judge
from orchestra_lib.rehearsal.writer import Load, WriterProcess, writer_process

TABLE = sql.Identifier("memories")
FAST = Tuning(debounce_seconds=0.05, batch_size=500, recovery_seconds=0.2, silence_seconds=5, busy_seconds=10)
QUICK = Rules(ranges=8)
_REST_SECONDS = 0.2


@dataclass
class Stage:
    """Two stores of which the target follows the source; ``here`` says which of them is written to."""

    source: str
    target: str
    folder: Path
    writer_role: str
    tuning: Tuning = FAST
    switched_to: list[str] = field(default_factory=list)

    @property
    def route(self) -> Path:
        return self.folder / "route"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def journal(self) -> CutoverJournal:
        return CutoverJournal(self.folder / "journal.jsonl")

    @property
    def here(self) -> str:
        return self.journal().live() or "source"

    def prepare(self, rows: int = 300) -> None:
        """Fill the source, copy it under the slot, and point the writers to it."""
        fill(self.source, rows)
        with psycopg.connect(self.target, autocommit=True) as target:
            target.execute(create_table())
        for conninfo in (self.source, self.target):
            self.run(conninfo, f"CREATE ROLE {self.writer_role} LOGIN")
        self.run(self.source, f"GRANT SELECT, INSERT, UPDATE, DELETE ON memories TO {self.writer_role}")
        job = CopyJob(self.source, self.table(self.source), self.target, TABLE)
        initial_copy(CopySpec(job, "there", "there", "there", 4, 2), lambda _done, _total: None)
        self.switch(self.endpoint(self.source))

    def clear(self) -> None:
        """Give back what belongs to the servers and not to the databases."""
        for conninfo in (self.source, self.target):
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots "
                    "WHERE database = current_database() AND active_pid IS NOT NULL"
                )
                for slot in ("there", "back"):
                    drop_slot(connection, slot)
                connection.execute("DROP TABLE IF EXISTS memories")
                connection.execute(f"DROP OWNED BY {self.writer_role}; DROP ROLE {self.writer_role}")

    def switch(self, endpoint: str) -> None:
        """What the application reads: replaced in one piece."""
        self.switched_to.append(endpoint)
        fresh = self.route.with_suffix(".new")
        fresh.write_text(endpoint)
        fresh.rename(self.route)

    def endpoint(self, conninfo: str) -> str:
        return f"{conninfo} user={self.writer_role}"

    def direction(self) -> Direction:
        """From the side that is written to now."""
        sides = [
            Side(role, conninfo, self.table(conninfo), (self.writer_role,), self.endpoint(conninfo))
            for role, conninfo in (("source", self.source), ("target", self.target))
        ]
        source, target = sides
        there = StreamSpec("there", self.source, source.table, self.target, TABLE, "there", "there", self.tuning)
        back = StreamSpec("back", self.target, target.table, self.source, TABLE, "back", "back", self.tuning)
        direction = Direction(source, target, there, back)
        return direction if self.here == "source" else direction.reversed()

    def cutover(self, rules: Rules = QUICK, switch: Callable[[str], None] | None = None) -> Cutover:
        return Cutover(self.direction(), self.journal(), switch or self.switch, rules)

    @contextmanager
    def stream(self) -> Iterator[tuple[RunningStream, Touched]]:
        """The stream of the present direction."""
        touched = Touched()
        with RunningStream(self.direction().stream, touched) as stream:
            self.drained(stream)
            yield stream, touched

    def cut_over(self, rules: Rules = QUICK, switch: Callable[[str], None] | None = None) -> CutoverResult:
        """One cutover from where the writers write to the other side, nothing left running."""
        with self.stream() as (stream, touched):
            return self.cutover(rules, switch).run(stream, touched, lambda _spec: None)

    def drained(self, stream: RunningStream) -> None:
        with connect(self.direction().here.address) as here:
            assert stream.wait_for(mark(here), 20), f"{stream.status().sentence()}; {stream.status().trouble}"

    @contextmanager
    def writer(self, per_second: float = 300) -> Iterator[WriterProcess]:
        with writer_process(Load(per_second=per_second, sessions=3, seed=7), self.route, self.ledger) as writer:
            self.written_on(writer)
            yield writer

    def written_on(self, writer: WriterProcess, writes: int = 10, seconds: float = 20) -> None:
        """Return once the writer has had so many more writes acknowledged."""
        before, deadline = self._acknowledged(), time.monotonic() + seconds
        while self._acknowledged() < before + writes:
            assert writer.running, "the writer has ended"
            assert time.monotonic() < deadline, "the writer does not write"
            time.sleep(0.02)

    def _acknowledged(self) -> int:
        return self.ledger.read_bytes().count(b'"acknowledged"') if self.ledger.exists() else 0

    @contextmanager
    def resting(self, writer: WriterProcess) -> Iterator[None]:
        """The writer held still in whatever it is doing; what it had sent has been carried out."""
        os.kill(writer.pid, signal.SIGSTOP)
        try:
            time.sleep(_REST_SECONDS)
            yield
        finally:
            os.kill(writer.pid, signal.SIGCONT)

    def judged(self) -> dict[str, Verdict]:
        """The ledger against both sides, once the stream has brought everything."""
        with self.stream():
            return {name: judge(self.ledger, getattr(self, name), "memories") for name in ("source", "target")}

    def writes(self, conninfo: str, statement: str) -> None:
        """A statement of the application."""
        self.run(self.endpoint(conninfo), statement)

    @staticmethod
    def table(conninfo: str) -> SourceTable:
        with connect(conninfo) as connection:
            return source_table(connection, "memories", {})

    @staticmethod
    def run(conninfo: str, statement: str) -> None:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(statement)

    @staticmethod
    def one(conninfo: str, statement: str) -> object:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            row = connection.execute(statement).fetchone()
        return row[0] if row else None
