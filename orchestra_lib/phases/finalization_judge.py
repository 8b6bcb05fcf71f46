"""The rehearsal's writer in runbook 07: it judges the switch, and its rows go again, those of a killed run too."""

from __future__ import annotations

from psycopg import sql

from orchestra_lib import stream_process
from orchestra_lib.database import connect
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.evidence import Evidence, Source
from orchestra_lib.memory.slot import mark
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.memory_cutover import SOURCE, TARGET, CutoverSteps
from orchestra_lib.phases.memory_load import WRITTEN_BY_A_REHEARSAL, RehearsalLoad
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.phases.memory_stream import StreamSteps

_CATCH_UP_SECONDS = 120.0


class SwitchJudge:
    """The judge of one run. Elsewhere than in a rehearsal nobody writes for it, and nothing is counted."""

    def __init__(self, stores: Stores, load: RehearsalLoad, cutover: CutoverSteps, stream: StreamSteps) -> None:
        self._stores, self._run = stores, stores.run
        self._load, self._cutover, self._stream = load, cutover, stream

    def settle(self) -> None:
        """Judge a run that ended between its switch and its judge, and delete its rows; a plan alone does not.

        The stream back brings the deletions to the old store: deleted there by hand, a change that is still under way
        would find no row, and be put aside. Raises TargetUnreachable when it does not catch up.
        """
        if self._run.settings.run.mode == "plan" or self._cutover.live != TARGET or not self.left():
            return
        environment = self._run.settings.environment.name
        with self._run.step("recover judge"):
            # Gone from the target they were judged before: the run ended while the deletions were under way.
            if self._left_on(TARGET) and self._load.take_up():
                self._run.add(*self._against_the_ledger())
            cleared = self._clear()
            was_running = stream_process.running(environment) is not None
            self._cutover.hand_stream_over()
            with connect(self._stores.target(), role=TARGET) as session:
                lsn = mark(session)
            if not self._stream.wait_for(lsn, _CATCH_UP_SECONDS):
                raise TargetUnreachable(f"the stream back did not catch up within {_CATCH_UP_SECONDS:.0f} s")
            if not was_running:
                self._stream.stop()
        self._run.note(f"{cleared:,} rows that the writer of an earlier run had left were deleted from both stores")

    def judge(self) -> tuple[Evidence, ...]:
        """Hold the new store against the writer's ledger, then delete its rows, there and by the stream back."""
        with self._run.step("judge"):
            rows = self._against_the_ledger()
            self._run.add(*rows)
            claim = "rows of the rehearsal's writer that were deleted again"
            cleared = Evidence(claim, Source.MEASURED, self._clear(), "rows")
            self._run.add(cleared)
            self._cutover.drain_back()
        return (*rows, cleared)

    def _against_the_ledger(self) -> tuple[Evidence, ...]:
        return (*self._load.report_evidence(), *self._load.evidence("the target", self._stores.target()))

    def left(self) -> int:
        """The writer's rows on both stores: the stream back has to have brought the deletions."""
        return self._left_on(SOURCE) + self._left_on(TARGET)

    def _left_on(self, role: str) -> int:
        if not self._load.is_wanted:
            return 0
        is_source = role == SOURCE
        address = self._stores.source.address if is_source else self._stores.target()
        table = self._stores.memory.source.table.split(".") if is_source else [TARGET_TABLE]
        statement = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(sql.Identifier(*table), WRITTEN_BY_A_REHEARSAL)
        with connect(address, role=role) as session:
            return int((session.execute(statement).fetchone() or (0,))[0])

    def _clear(self) -> int:
        with connect(self._stores.target(), role=TARGET) as session:
            statement = sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(TARGET_TABLE), WRITTEN_BY_A_REHEARSAL)
            return session.execute(statement).rowcount
