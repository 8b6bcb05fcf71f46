"""What the parts of a tuning share: the queries and their truth, the copies to build on, the time left, the journal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.bench.statistics import Estimate, quantile
from orchestra_lib.database import Address, connect
from orchestra_lib.vectors.candidate import Candidate
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forms import Effort, Form, Method
from orchestra_lib.vectors.goals import Goals, Queries, Split
from orchestra_lib.vectors.measured import Measured, clears, find_effort, measure
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.truth import Truth
from orchestra_lib.vectors.tuning_journal import TuningJournal
from orchestra_lib.vectors.workbench import Bench, Workbench

_NORMAL_95 = 2 * 1.959964  # widths of a standard error in an interval of 95 %


class OutOfTime(Exception):
    """The budget of the tuning ended in the middle of a step."""


@dataclass
class Learning:
    """The state of one tuning. ``deadline`` is on the monotonic clock; ``reserve_seconds`` are kept for the end.

    ``centroids`` gives those that were trained for a number of lists. Where it is set, an index is made from them, and
    CREATE INDEX need not train them once more on one core.
    """

    address: Address
    table: str
    queries: Queries
    parts: Split
    truth: Truth
    goals: Goals
    bench: Workbench
    journal: TuningJournal
    progress: Callable[[str], None]
    deadline: float
    reserve_seconds: float
    skipped: list[str] = field(default_factory=list)
    candidates: dict[Form, Candidate] = field(default_factory=dict)
    best: Candidate | None = None
    centroids: Callable[[int], Matrix] | None = None
    _benches: dict[Form, Bench] = field(default_factory=dict)

    def part(self, numbers: NDArray[np.int64]) -> QuerySet:
        """Some of the queries with their truth."""
        return QuerySet(self.queries.vectors[numbers], None, self.truth.take(numbers.tolist()))

    def vectors(self, numbers: NDArray[np.int64]) -> Matrix:
        """The vectors of some of the queries."""
        return self.queries.vectors[numbers]

    def left_seconds(self) -> float:
        """Seconds until the budget, less what is kept for the certificate, is spent."""
        return self.deadline - self.reserve_seconds - time.monotonic()

    def has_room(self, what: str, seconds: float) -> bool:
        """Whether there is time for something; if not, that it was skipped is noted."""
        if seconds <= self.left_seconds():
            return True
        self.skipped.append(
            f"{what} was not tried: it would take about {seconds:,.0f} s, {max(self.left_seconds(), 0):,.0f} s of the "
            f"budget of {self.goals.budget_seconds:,.0f} s are left"
        )
        return False

    def saying(self, what: str) -> Callable[[str], None]:
        """A progress function for a build, which ends it when the budget does (raises OutOfTime)."""

        def say(words: str) -> None:
            if self.left_seconds() < 0:
                raise OutOfTime(f"{what} was ended: the budget of {self.goals.budget_seconds:,.0f} s is spent")
            self.progress(f"{what}: {words}")

        return say

    def learn(
        self,
        form: Form,
        guess: Effort,
        predicted_p95_ms: float | None = None,
        note: str = "",
        *,
        is_known: bool = False,
    ) -> Candidate:
        """Build an index, find the least effort that suffices on the validation queries, and measure it there.

        ``is_known`` says that less than the guess is known not to suffice: it is only confirmed, or raised. All of it
        comes from the journal where it was done. Raises GateFailed when memory does not suffice, OutOfTime.
        """

        def work() -> Candidate:
            bench = self.built(form)
            with connect(self.address, role="target") as connection:
                self.progress(f"{form.label}: finding its effort")
                queries = self.part(self.parts.validate)
                found = find_effort(
                    connection,
                    self.bench.searchable(bench),
                    queries,
                    guess,
                    self.goals.recall_target,
                    fewest=guess.value if is_known else 1,
                )
            return candidate(found, form, bench, self.goals, predicted_p95_ms, note)

        self.candidates[form] = self.journal.once(f"measured: {form.label}", Candidate, work)
        return self.candidates[form]

    def built(self, form: Form) -> Bench:
        """The index on one of the copies, built if it is not there (any more)."""
        if form in self._benches:
            return self._benches[form]
        progress, spare = self.saying(f"building {form.label}"), self.bench.spare
        self._benches = {other: kept for other, kept in self._benches.items() if kept.table != spare}
        if self.centroids is not None and form.method is Method.IVFFLAT and form.lists is not None:
            bench = self.bench.build_from(form, self.centroids(form.lists), progress)
        else:
            bench = self.bench.build(form, progress)
        self._benches[form] = bench
        return bench

    def is_made(self, form: Form) -> bool:
        """Whether the index is on one of the copies."""
        return form in self._benches

    def contest(self, challenger: Candidate) -> None:
        """Let the challenger be the best if it reaches the target and is faster, or as fast and smaller.

        Both are measured once more, in turns, where both are built: a slow minute of the machine then hits both.
        """
        if self.best is None:
            self._crown(challenger)
            return
        if self.best.form == challenger.form:
            self.best = challenger
            return
        best, step = self.best, f"in turns: {self.best.form.label}, {challenger.form.label}"
        both_built = all(one.form in self._benches for one in (best, challenger))
        if both_built or self.journal.knows(step):
            best, challenger = self.journal.once(
                step, tuple[Candidate, Candidate], lambda: self._in_turns(best, challenger)
            )
            self.candidates |= {one.form: one for one in (best, challenger)}
        self.best = best
        if preferred(best, challenger) is challenger:
            self._crown(challenger)

    def _crown(self, candidate_: Candidate) -> None:
        self.best = candidate_
        if candidate_.form in self._benches:
            self.bench.keep(self._benches[candidate_.form])

    def _in_turns(self, first: Candidate, second: Candidate) -> tuple[Candidate, Candidate]:
        queries = self.part(self.parts.validate)
        times: dict[Form, list[Measured]] = {first.form: [], second.form: []}
        with connect(self.address, role="target") as connection:
            for contestant in (first, second, second, first):
                target = self.bench.searchable(self._benches[contestant.form])
                times[contestant.form].append(measure(connection, target, queries, contestant.effort))

        def pooled(one: Candidate) -> Candidate:
            both = np.concatenate([run.milliseconds for run in times[one.form]])
            return replace(one, p95_ms=quantile(both, 0.95))

        return pooled(first), pooled(second)


def candidate(
    found: Measured, form: Form, bench: Bench, goals: Goals, predicted_p95_ms: float | None, note: str
) -> Candidate:
    """A measured index as a candidate."""
    return Candidate(
        form=form,
        effort=found.effort,
        source="measured",
        recall=found.recall,
        predicted_p95_ms=predicted_p95_ms,
        p95_ms=found.p95_ms,
        reaches=clears(found.recalls, goals.recall_target),
        build_seconds=bench.build_seconds,
        made_seconds=bench.made_seconds,
        create_seconds=bench.create_seconds,
        index_bytes=bench.index_bytes,
        build_memory_mib=bench.build_memory_mib,
        note=note,
    )


def preferred(best: Candidate, challenger: Candidate) -> Candidate:
    """Who reaches the target, then who is faster; within one standard error of the faster one's p95 the smaller."""
    if best.reaches != challenger.reaches:
        return best if best.reaches else challenger
    faster, slower = sorted((best, challenger), key=lambda one: one.best_p95_ms)
    alike = slower.best_p95_ms <= faster.best_p95_ms + standard_error(faster.p95_ms)
    return slower if alike and (slower.index_bytes or 0) < (faster.index_bytes or 0) else faster


def standard_error(estimate: Estimate | None) -> float:
    """That of an estimate, from its interval; 0 without one."""
    if estimate is None or not np.isfinite(estimate.high - estimate.low):
        return 0.0
    return (estimate.high - estimate.low) / _NORMAL_95
