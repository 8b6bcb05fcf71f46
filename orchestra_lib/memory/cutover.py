"""The cutover: the writers leave one side and go on on the other, with nothing lost in between; and the same way back.

Whatever takes time happens before the pause: both sides are compared whole while the stream runs, and what was touched
since is compared again until little is left. In the pause the writers are shut out, the stream drained, the last
touched rows compared, and the endpoint switched. Until the other side is opened everything can be undone, and is when
anything fails; a process that dies leaves a journal, and :meth:`Cutover.recover` undoes or completes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import psycopg

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError, GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source, Verdict
from orchestra_lib.memory.compare import Difference, KeyComparison, LiveComparison, compare_live
from orchestra_lib.memory.cutover_checks import cutover_checks
from orchestra_lib.memory.cutover_journal import CutoverJournal, Outcome, RecordedCutover, Step
from orchestra_lib.memory.cutover_steps import (
    Follows,
    Switch,
    complete,
    end_stream,
    make_return_slot,
    note_return,
    undo,
)
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.ranges import key_ranges
from orchestra_lib.memory.sequences import make_missing, sequences, set_further_on
from orchestra_lib.memory.sides import Direction, Side
from orchestra_lib.memory.slot import current_lsn, mark
from orchestra_lib.memory.stream import StreamSpec
from orchestra_lib.memory.touched import Touched
from orchestra_lib.memory.writers import close_to, grants_for, open_to, require_no_writes_under_way, write_grants

_SETTLE_ROUNDS = 20
_NAMED = 10
# Counting takes a millisecond for ten thousand rows; beyond this the pause is worth more than a second proof.
_ROWS_COUNTED_IN_THE_PAUSE = 200_000


class CutoverUndone(DataError):
    """The cutover was given up before the other side was opened, and undone: the writers write where they did."""


class CutoverUnfinished(DataError):
    """The cutover stands in its middle: :meth:`Cutover.recover` has to be called."""


@dataclass(frozen=True)
class Rules:
    """How a cutover is done.

    ``lag_seconds``: how far the stream may be behind when it begins; ``pause_limit_seconds``: it is given up when the
    pause would take longer; ``touched_rows``: the pause begins when no more than so many are left to compare;
    ``ranges`` and ``workers`` are those of the comparison, ``sequence_margin`` is in steps of a sequence.
    """

    lag_seconds: float = 5.0
    pause_limit_seconds: float = 10.0
    pause_goal_seconds: float = 1.0
    touched_rows: int = 1_000
    ranges: int = 64
    workers: int = 2
    sequence_margin: int = 1_000
    comparison_seconds: float = 60.0


@dataclass(frozen=True)
class CutoverResult:
    """A cutover that was done. Times in seconds; ``pause_seconds`` runs from the revoke to the grant.

    Changes that were committed here after the writers had been shut out come from somebody else: ``late_applied`` rows
    were brought over all the same, ``late_kept`` changes are in the stream's slot, which was kept, and nowhere else.
    """

    here: str
    there: str
    pause_seconds: float
    pause_goal_seconds: float
    step_seconds: dict[Step, float]
    compared: LiveComparison
    rows_compared_in_pause: int
    rows: int | None
    return_lsn: int
    late_applied: int
    late_kept: int

    def evidence(self) -> tuple[Evidence, ...]:
        """What the cutover claims, each with how it was found out."""
        steps = ", ".join(f"{step} {seconds * 1000:.0f} ms" for step, seconds in self.step_seconds.items())
        counted = (
            "too many to be counted meanwhile" if self.rows is None else f"{self.rows:,} rows counted on both sides"
        )
        kept = f"{self.late_kept} of them are on no other side: the stream's slot was kept" if self.late_kept else ""
        way = f"from the {self.here} to the {self.there}"
        return (
            *self.compared.evidence(),
            Evidence(
                f"pause of the writers {way}",
                Source.MEASURED,
                round(self.pause_seconds, 3),
                "s",
                Bound("<", self.pause_goal_seconds),
                note=steps,
            ),
            Evidence(
                "rows compared while nobody wrote, all alike",
                Source.MEASURED,
                self.rows_compared_in_pause,
                "rows",
                note=f"all that was written since the whole comparison began; {counted}",
            ),
            Evidence(
                f"changes on the {self.here} after its writers were shut out",
                Source.MEASURED,
                self.late_applied + self.late_kept,
                "changes",
                Bound("==", 0),
                note=kept,
            ),
            Evidence("where the stream back begins", Source.OBSERVED, lsn_text(self.return_lsn)),
        )


@dataclass(frozen=True)
class Recovery:
    """What was found of an earlier cutover, and what was done about it: ``done``, ``undone`` or None for nothing."""

    outcome: Outcome | None
    told: str


class Cutover:
    """Cutovers in one direction. ``switch`` makes the application write where an endpoint says."""

    def __init__(self, direction: Direction, journal: CutoverJournal, switch: Switch, rules: Rules = Rules()) -> None:
        self._direction, self._journal, self._switch, self._rules = direction, journal, switch, rules

    def checks(self, forward: Follows) -> tuple[Evidence, ...]:
        """What has to hold before; reads only."""
        return cutover_checks(self._direction, forward.status(), self._rules.lag_seconds)

    def run(
        self,
        forward: Follows,
        touched: Touched,
        start_back: Callable[[StreamSpec], None],
        progress: Callable[[int], None] = lambda _rows: None,
    ) -> CutoverResult:
        """Cut over. ``touched`` is what the stream ``forward`` tells of each batch, ``start_back`` starts a stream.

        Raises GateFailed before anything is changed, CutoverUndone when it was given up, and CutoverUnfinished when
        only :meth:`recover` can end it. What interrupts it is raised again once everything is undone.
        """
        failures = tuple(str(row) for row in self.checks(forward) if row.verdict in (Verdict.FAIL, Verdict.MISSING))
        if failures:
            raise GateFailed(f"the cutover may not begin: {'; '.join(failures)}", failures)
        record = self._journal.begin(self._direction.here.role, self._direction.there.role)
        attempt = _Attempt(self._direction, self._journal, record, self._switch, self._rules, forward, touched)
        try:
            attempt.prepare_and_pause(progress)
        except BaseException as error:
            touched.forget()
            self._give_up(record, error)
            raise
        try:
            return attempt.finish(start_back)
        except Exception as error:
            raise CutoverUnfinished(
                f"the writers write on the {self._direction.there.role}, what is left failed: {error}; recover does it"
            ) from error
        finally:
            touched.forget()

    def recover(self, start_back: Callable[[StreamSpec], None]) -> Recovery:
        """End a cutover whose process died, in either direction: undo it before its switch, complete it after.

        No stream of the store may be running in another process. Raises CutoverUnfinished when something is still in
        the way; it may be called again.
        """
        record = self._journal.unfinished()
        if record is None:
            return Recovery(None, "no cutover was left in its middle")
        direction = self._direction if record.here == self._direction.here.role else self._direction.reversed()
        way = f"the cutover from the {record.here} to the {record.there}"
        if not record.has_switched:
            undone, failures = undo(direction, self._journal, record, self._switch)
            if self._journal.unfinished():
                raise CutoverUnfinished(f"{way} is not undone yet: {'; '.join(failures)}; recover again")
            return Recovery(Outcome.UNDONE, f"{way} was undone: {_told(undone)}")
        try:
            late = complete(direction, self._journal, record, self._switch, start_back)
        except Exception as error:
            raise CutoverUnfinished(f"{way} is not complete yet: {error}; recover again") from error
        told = f"{way} was completed"
        if late:
            told += f"; {late} changes of the {record.here} came after its writers were shut out: its slot was kept"
        return Recovery(Outcome.DONE, told)

    def _give_up(self, record: RecordedCutover, error: BaseException) -> None:
        """Undo, and raise what says so; an interruption is left to the caller to raise."""
        here, there = self._direction.here.role, self._direction.there.role
        if Step.OPEN in record.steps:
            raise CutoverUnfinished(
                f"the {there} may be open to its writers already: {error}; recover completes the cutover"
            ) from error
        undone, failures = undo(self._direction, self._journal, record, self._switch)
        if self._journal.unfinished():
            raise CutoverUnfinished(
                f"{error}; and {'; '.join(failures)}: the writers may be shut out, recover"
            ) from error
        if isinstance(error, Exception):
            but = f"; but {'; '.join(failures)}" if failures else ""
            raise CutoverUndone(
                f"the cutover was given up: {error}; undone: {_told(undone)}{but}; the writers write on the {here}"
            ) from error


def _told(steps: Sequence[Step]) -> str:
    return ", ".join(steps) or "nothing that it had done needs undoing"


@dataclass
class _Attempt:
    """One cutover under way. Sessions are opened before the pause and used in it."""

    direction: Direction
    journal: CutoverJournal
    record: RecordedCutover
    switch: Switch
    rules: Rules
    forward: Follows
    touched: Touched
    times: dict[Step, float] = field(default_factory=dict)

    def prepare_and_pause(self, progress: Callable[[int], None]) -> None:
        """Everything up to the moment at which the writers write on the other side."""
        here, there = self.direction.here, self.direction.there
        with ExitStack() as stack:
            self.here, self.there, theirs, ours = (
                stack.enter_context(self._session(side)) for side in (here, there, here, there)
            )
            self.comparison = KeyComparison(here.store, there.store, (theirs, ours))
            stack.callback(self.comparison.close)
            self._shut_there()
            with self._step(Step.RETURN_SLOT):
                make_return_slot(self.direction)
            make_missing(self.there, sequences(self.here, here.table.table), there.writers)
            carried = self._compare_whole(progress)
            self._pause(carried)

    def finish(self, start_back: Callable[[StreamSpec], None]) -> CutoverResult:
        """What is left when the writers write on the other side."""
        with self._step(Step.END_STREAM):
            self.forward.stop()
            late_applied = len(self.touched.take())
            late_kept = end_stream(self.direction, self.fence)
        with self._step(Step.START_BACK):
            back = note_return(self.direction, self.return_lsn)
            if back is not None:
                start_back(back)
        self.journal.ended(self.record, Outcome.DONE)
        return CutoverResult(
            self.direction.here.role,
            self.direction.there.role,
            self.pause_seconds,
            self.rules.pause_goal_seconds,
            self.times,
            self.compared,
            self.compared_in_pause,
            self.rows,
            self.return_lsn,
            late_applied,
            late_kept,
        )

    # --- before the pause ---------------------------------------------------------------------------------------------

    def _shut_there(self) -> None:
        there = self.direction.there
        held = write_grants(self.there, there.table.table)
        self.journal.shutting(self.record, Step.SHUT_THERE, there.role, held)
        close_to(self.there, there.table.table, there.writers, self.rules.pause_limit_seconds)
        self.journal.done(self.record, Step.SHUT_THERE)
        self.grants = grants_for(self.there, there.table.table, there.writers, self.journal.withheld(there.role))

    def _compare_whole(self, progress: Callable[[int], None]) -> frozenset[str]:
        """Compare everything, then what was touched meanwhile, until little is; returns keys that are left."""
        here, there, rules = self.direction.here, self.direction.there, self.rules
        self.touched.listen()
        ranges = key_ranges(self.here, here.table, rules.ranges)
        self.compared = compare_live(
            here.store, there.store, ranges, rules.workers, self.forward.wait_for, progress, rules.comparison_seconds
        )
        self._require_alike(self.compared.differences)
        carried = self.compared.unsettled
        for _ in range(_SETTLE_ROUNDS):
            keys = carried | self.touched.take()
            real, carried = self.comparison.settle(keys, self.forward.wait_for, rules.comparison_seconds, rounds=1)
            self._require_alike(real)
            if len(keys) <= rules.touched_rows:
                return carried
        raise DataError(
            f"{len(keys):,} rows are written in the time that comparing as many takes, more than the "
            f"{rules.touched_rows:,} that a pause may have left: cut over at a quieter time, or allow more"
        )

    # --- the pause ----------------------------------------------------------------------------------------------------

    def _pause(self, carried: frozenset[str]) -> None:
        here, there = self.direction.here, self.direction.there
        held = write_grants(self.here, here.table.table)
        self.began = time.monotonic()
        self.journal.shutting(self.record, Step.CLOSE, here.role, held)
        with self._timed(Step.CLOSE):
            close_to(self.here, here.table.table, here.writers, self._left())
            require_no_writes_under_way(self.here, here.table.table, self._left())
            self.fence = current_lsn(self.here)
        with self._step(Step.DRAIN):
            self._drain()
        with self._step(Step.COMPARE):
            self._compare_touched(carried)
            self._require_nobody_else()
        with self._step(Step.SEQUENCES):
            set_further_on(self.there, sequences(self.here, here.table.table), self.rules.sequence_margin)
        self.return_lsn = current_lsn(self.there)
        with self._step(Step.SWITCH, fence_lsn=self.fence, return_lsn=self.return_lsn):
            self.switch(there.endpoint)
        with self._step(Step.OPEN):
            open_to(self.there, there.table.table, self.grants)
            self.pause_seconds = time.monotonic() - self.began

    def _drain(self) -> None:
        lsn = mark(self.here)
        if not self.forward.wait_for(lsn, self._left()):
            raise DataError(
                f"the stream did not pass {lsn_text(lsn)} within the {self.rules.pause_limit_seconds:g} s that a pause "
                f"may take: {self.forward.status().sentence()}"
            )

    def _compare_touched(self, carried: frozenset[str]) -> None:
        keys = carried | self.touched.take()
        self._require_alike(self.comparison.differences(keys))
        self.compared_in_pause = len(keys)
        self.rows = None
        if self.compared.source_rows <= _ROWS_COUNTED_IN_THE_PAUSE:
            self.rows, ours = self.comparison.counts()
            if ours != self.rows:
                raise DataError(f"the {self.direction.here.role} has {self.rows:,} rows and the other side {ours:,}")

    def _require_nobody_else(self) -> None:
        """Raise DataError when the stream brought a change that was committed after the writers had been shut out."""
        self._drain()
        if self.touched.last_lsn >= self.fence:
            keys = ", ".join(sorted(self.touched.take())[:_NAMED])
            raise DataError(
                f"somebody writes to the {self.direction.here.role} though its writers are shut out: a change of "
                f"{keys or 'rows that were written before'} was committed at {lsn_text(self.touched.last_lsn)}, after "
                f"{lsn_text(self.fence)}; find out who (a superuser?) and name the role as a writer"
            )

    def _require_alike(self, differences: Sequence[Difference]) -> None:
        if differences:
            named = ", ".join(f"{row.id} ({row.kind})" for row in differences[:_NAMED])
            raise DataError(
                f"{len(differences):,} rows differ between the sides: {named}; look at the quarantine, whose rows "
                "`python -m orchestra_lib stream resolve` repairs while the stream is stopped, or copy again"
            )

    def _session(self, side: Side) -> psycopg.Connection:
        """A session in which no statement takes longer than the longest pause: it would hold the pause up."""
        session = connect(side.address, role=side.role)
        session.execute("SELECT set_config('statement_timeout', %s, false)", [f"{self.rules.pause_limit_seconds:.3f}s"])
        return session

    def _left(self) -> float:
        """How many seconds of the longest pause are left."""
        return max(0.0, self.rules.pause_limit_seconds - (time.monotonic() - self.began))

    @contextmanager
    def _step(self, step: Step, **content: int) -> Iterator[None]:
        """Journal a step around the block, and time it."""
        self.journal.begun(self.record, step, **content)
        with self._timed(step):
            yield

    @contextmanager
    def _timed(self, step: Step) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.times[step] = time.monotonic() - started
        self.journal.done(self.record, step)
