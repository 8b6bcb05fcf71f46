"""The strategy's targets as they were re-measured, and what may be said of before and after. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.evidence import Bound, Source, Verdict, value_text

_SPEAKS_OF_GOOGLE_CLOUD = (Source.MEASURED, Source.OBSERVED)


class State(StrEnum):
    """Whether a target is reached, by the end of the interval that counts against us."""

    REACHED = "reached"
    NOT_REACHED = "not reached"
    REHEARSED = "rehearsed"
    MISSING = "MISSING"

    @property
    def verdict(self) -> Verdict:
        """The verdict in whose colours it is shown."""
        return _COLOURS[self]


_COLOURS = {
    State.REACHED: Verdict.PASS,
    State.NOT_REACHED: Verdict.FAIL,
    State.REHEARSED: Verdict.REHEARSED,
    State.MISSING: Verdict.MISSING,
}


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a value with the interval that holds the truth, in the target's unit.

    ``low`` and ``high`` are the value itself where no interval is known. ``how`` is under which load, on which store.
    """

    value: float
    low: float
    high: float
    source: Source
    how: str

    @classmethod
    def of(cls, estimate: Estimate, source: Source, how: str) -> Side:
        """A side from an estimate."""
        return cls(estimate.value, estimate.low, estimate.high, source, how)

    def text(self, unit: str) -> str:
        """The value with its interval."""
        if self.low == self.high:
            return value_text(self.value, unit)
        return f"{self.value:,.4g} [{self.low:,.4g}, {self.high:,.4g}] {unit}".rstrip().replace("inf", "∞")


@dataclass(frozen=True)
class Target:
    """One target. ``now`` is None where nothing was measured, and ``missing`` says why.

    ``hardware`` and ``load`` are the machine and how busy it was when ``now`` was measured. ``unjudged`` says why it
    is no more than a reading; empty where it is a gate. ``best`` is the value that cannot be surpassed, such as a
    recall of 1: what is used up is then counted from there.
    """

    title: str
    unit: str
    bound: Bound
    now: Side | None
    before: Side | None
    hardware: str = ""
    load: str = ""
    missing: str = ""
    unjudged: str = ""
    best: float | None = None

    @property
    def against(self) -> float | None:
        """The end of the interval that counts against us; None where nothing was measured."""
        if self.now is None:
            return None
        return self.now.high if self.is_less_better else self.now.low

    @property
    def is_less_better(self) -> bool:
        """Whether the target is an upper limit."""
        return self.bound.comparison.startswith("<")

    @property
    def state(self) -> State:
        """What the measurement says of the target."""
        if self.now is None or self.against is None:
            return State.MISSING
        if not self.bound.holds(self.against):
            return State.NOT_REACHED
        return State.REACHED if self.now.source in _SPEAKS_OF_GOOGLE_CLOUD else State.REHEARSED

    @property
    def used_share(self) -> float | None:
        """How much of what the target allows is used up; 1 is the target itself, less is better either way."""
        return None if self.against is None else self.share_of(self.against)

    def share_of(self, value: float) -> float | None:
        """The same of any value; None for one that has no share."""
        if self.best is not None:
            return abs(self.best - value) / abs(self.best - self.bound.limit)
        if value <= 0:
            return None
        return value / self.bound.limit if self.is_less_better else self.bound.limit / value

    @property
    def improvement(self) -> str:
        """What may be said of before and after: a ratio only where both were measured and their intervals part."""
        if self.now is None:
            return "nothing: it was not measured now"
        if self.before is None:
            return "nothing: there is no figure of before"
        unmeasured = [
            f"{name} is {side.source.value}"
            for name, side in (("before", self.before), ("after", self.now))
            if side.source is not Source.MEASURED
        ]
        if unmeasured:
            return f"nothing: {', '.join(unmeasured)}"
        return self._ratio(self.before, self.now)

    @property
    def is_improved(self) -> bool | None:
        """Whether it got better; None where that cannot be said."""
        told = self.improvement
        return None if told.startswith("nothing") or told == _NO_DIFFERENCE else "better" in told

    def _ratio(self, before: Side, now: Side) -> str:
        lower, higher = (now, before) if now.high < before.low else (before, now)
        if lower.high >= higher.low:
            return _NO_DIFFERENCE
        better = (now is lower) is self.is_less_better
        times = higher.value / lower.value if lower.value > 0 else float("inf")
        return f"{times:,.2g} times {'better' if better else 'worse'}".replace("inf", "∞")


_NO_DIFFERENCE = "no difference can be told from these intervals"
