"""Up to which offered rate the API keeps its goals: doubled until it does not, then halved in between.

A rate holds when each kind's p95 is within its goal, requests are answered as fast as they come, and no more than a
thousandth fails. One that does not hold is offered again before it is believed: a busy moment of a shared machine is no
saturation. Nor is a quick one: a short step bears what does not last, so the highest rate that held is offered once
more at the end. What is found is a bracket: the highest rate that held and the lowest that did not.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from orchestra_lib.api_load.forms import Form
from orchestra_lib.api_load.seen import Seen, by_kind, lag_p95_ms
from orchestra_lib.api_load.workload import Workload
from orchestra_lib.bench.environment import Environment, environment
from orchestra_lib.bench.load import Load
from orchestra_lib.bench.statistics import Estimate

LARGEST_FAILED_SHARE = 0.001
_KEPT_UP = 0.9
"""Of the offered rate: the last answers of a step of two seconds come after its end."""
_CLOSE_ENOUGH = 1.15
_HIGHEST_PER_SECOND = 20_000.0
_FEWEST_AT_ONCE, _GOALS_IN_FLIGHT = 32, 4
"""As many requests as come in four times the goal may be in flight: with more of them the goal is long missed, and
what is in flight at the end of a step has to be waited for."""
_FEWEST_REQUESTS = 20
"""Of each kind in a step; at a low rate it lasts as long as that takes."""
_PATIENCE_MS = 1_000.0
"""What cannot be sent within this time is given up, for the same reason."""


@dataclass(frozen=True)
class RateStep:
    """One rate that was offered, and why it did not hold (empty: it did)."""

    stated_per_second: float
    offered_per_second: float
    achieved_per_second: float
    kinds: tuple[Seen, ...]
    generator_lag_p95_ms: Estimate
    reason: str

    @property
    def holds(self) -> bool:
        """Whether the goals were kept."""
        return not self.reason


@dataclass(frozen=True)
class Saturation:
    """The bracket, in requests a second: 0 where not even the lowest rate held, None where every rate did.

    ``why``: what broke first. ``is_close``: the bracket is as narrow as was wanted; otherwise the time was up.
    """

    holds_per_second: float
    breaks_per_second: float | None
    why: str
    is_close: bool
    steps: tuple[RateStep, ...]
    seconds: float
    environment: Environment

    @property
    def best(self) -> RateStep | None:
        """What the highest rate that held looked like."""
        held = [step for step in self.steps if step.holds and step.stated_per_second == self.holds_per_second]
        return held[-1] if held else None


def find_saturation(workload: Workload, form: Form) -> Saturation:
    """Look for the saturation point from the form's first rate on, within its time."""
    return _Search(workload, form).found()


class _Search:
    def __init__(self, workload: Workload, form: Form) -> None:
        self._workload, self._form = workload, form
        self._where = environment()
        self._began = time.monotonic()
        self._steps: list[RateStep] = []
        self._low, self._high, self._why = 0.0, math.inf, ""

    def found(self) -> Saturation:
        self._look_from(self._form.first_rate)
        while 0 < self._low < self._high < math.inf and (reason := self._broken(self._low)):
            self._high, self._why = self._low, reason
            held = [step.stated_per_second for step in self._steps if step.holds]
            self._low = max((rate for rate in held if rate < self._high), default=0.0)
            self._look_from((self._low + self._high) / 2)
        return Saturation(
            self._low,
            None if self._high == math.inf else self._high,
            self._why,
            self._is_close,
            tuple(self._steps),
            time.monotonic() - self._began,
            self._where,
        )

    def _look_from(self, rate: float) -> None:
        while self._has_time_for(rate) and not self._is_close and rate <= _HIGHEST_PER_SECOND:
            if not (reason := self._broken(rate)):
                self._low = rate
            else:
                self._high, self._why = rate, reason
            rate = 2 * rate if self._high == math.inf else (self._low + self._high) / 2

    @property
    def _is_close(self) -> bool:
        return self._low > 0 and self._high <= _CLOSE_ENOUGH * self._low

    def _has_time_for(self, rate: float) -> bool:
        return time.monotonic() - self._began + self._seconds(rate) <= self._form.saturation_seconds

    def _seconds(self, rate: float) -> float:
        return max(self._form.step_seconds, _FEWEST_REQUESTS * len(self._workload.kinds) / rate)

    def _broken(self, rate: float) -> str:
        """Why a rate does not hold, twice; empty when it does."""
        return self._step(rate) and self._step(rate)

    def _step(self, rate: float) -> str:
        goal_seconds = max(kind.goal_p95_ms for kind in self._workload.kinds) / 1e3
        at_once = max(_FEWEST_AT_ONCE, math.ceil(_GOALS_IN_FLIGHT * goal_seconds * rate))
        seed = len(self._steps) + 1
        run = self._workload.offer(Load(rate, self._seconds(rate), seed, at_once, time_limit_ms=_PATIENCE_MS))
        kinds, lag = by_kind(self._workload, run), lag_p95_ms(run)
        reason = _reason(kinds, run.offered_per_second, run.achieved_per_second, lag)
        self._steps.append(RateStep(rate, run.offered_per_second, run.achieved_per_second, kinds, lag, reason))
        return reason


def _reason(kinds: tuple[Seen, ...], offered: float, achieved: float, lag: Estimate) -> str:
    told = []
    requests, failed = sum(one.requests for one in kinds), sum(one.failed for one in kinds)
    if failed > LARGEST_FAILED_SHARE * requests:
        names = ", ".join(sorted({name for one in kinds for name in one.failures}))
        told.append(f"{failed} of {requests:,} failed ({names})")
    for one in kinds:
        if one.p95_ms.value > one.goal_p95_ms:
            told.append(f"p95 of {one.kind} is {one.p95_ms} ms, not {one.goal_p95_ms:g}")
    if achieved < _KEPT_UP * offered:
        told.append(f"{achieved:.0f} of {offered:.0f} a second were answered")
    if told and lag.value > min(one.goal_p95_ms for one in kinds) / 2:
        told.append(f"the generator itself was {lag} ms late: the machine is full, not only the service")
    return "; ".join(told)
