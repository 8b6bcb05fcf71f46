"""One row of the preflight: evidence, whether it warns, and the settings that would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orchestra_lib.errors import OrchestraError
from orchestra_lib.evidence import Bound, Evidence, Source, Verdict, yes_or_no

WARNING = "warning"
"""The value of a row that warns: it is noted, and stops nothing."""

_WORST_FIRST = (Verdict.FAIL, Verdict.MISSING, WARNING, Verdict.PASS, Verdict.REHEARSED, Verdict.NOTED)


@dataclass(frozen=True)
class Check:
    """A checked claim about one area. ``settings`` are lines for a parameter file, the nearest that would do.

    The evidence's note says what was found and what to do about it; ``words`` the same where the settings stand apart.
    """

    area: str
    evidence: Evidence
    settings: tuple[str, ...] = ()
    words: str = ""

    @property
    def warns(self) -> bool:
        """Whether it is a warning."""
        return self.evidence.verdict is Verdict.NOTED and self.evidence.value == WARNING

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return _WORST_FIRST.index(WARNING if self.warns else self.evidence.verdict)


def judged(area: str, claim: str, source: Source, holds: bool, note: str = "") -> Check:
    """A claim that holds or fails."""
    return Check(area, yes_or_no(claim, source, holds, note=note))


def none_of(area: str, claim: str, source: Source, found: Sequence[str], note: str = "") -> Check:
    """A claim that counts what is wrong, which has to be nothing."""
    told = "; ".join([*found, *([note] if note else [])])
    return Check(area, Evidence(claim, source, len(found), "", Bound("==", 0), note=told))


def missing(area: str, claim: str, note: str) -> Check:
    """What has to be known and is not."""
    return Check(area, Evidence(claim, Source.MISSING, None, note=note))


def warned(area: str, claim: str, source: Source, note: str) -> Check:
    """What works and will disappoint, or what a later phase asks for."""
    return Check(area, Evidence(claim, source, WARNING, note=note))


def noted(area: str, claim: str, source: Source, value: float | int | str, unit: str = "", note: str = "") -> Check:
    """A reading, judged by nothing."""
    return Check(area, Evidence(claim, source, value, unit, note=note))


def guarded(area: str, claim: str, source: Source, checks: Callable[[], Iterator[Check]]) -> tuple[Check, ...]:
    """The checks; what stops them midway is a failed row of that claim, and those before it stay."""
    done: list[Check] = []
    try:
        done.extend(checks())
    except OrchestraError as error:
        done.append(judged(area, claim, source, False, str(error)))
    return tuple(done)
