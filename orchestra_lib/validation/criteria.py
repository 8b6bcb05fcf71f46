"""The strategy's success criteria, each with its evidence or MISSING. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestra_lib.evidence import Verdict
from orchestra_lib.validation.sealed import SealedRun
from orchestra_lib.validation.targets import State, Target

_RELIABILITY = (
    ("03_memory", "rows on the source acknowledged and not there"),
    ("03_memory", "rows on the target acknowledged and not there"),
    ("03_memory", "marker rows that a restore lost"),
    ("03_memory", "changes in quarantine"),
)
_SECURITY = ("01_infrastructure", "02_workstations")
_WORST_FIRST = (State.NOT_REACHED, State.MISSING, State.REHEARSED, State.REACHED)
_STATES = {
    Verdict.PASS: State.REACHED,
    Verdict.REHEARSED: State.REHEARSED,
    Verdict.NOTED: State.REACHED,
    Verdict.FAIL: State.NOT_REACHED,
}


@dataclass(frozen=True)
class Criterion:
    """One of the strategy's criteria, in its words; ``evidence`` is what shows it, or what is missing."""

    words: str
    state: State
    evidence: str


def criteria(
    targets: Mapping[str, Target], recall: Target, runs: Mapping[str, SealedRun], developers: str | None
) -> tuple[Criterion, ...]:
    """The five of them. ``targets`` by key, ``vector_search`` and ``api`` among them; ``runs`` as they count now."""
    every = (*targets.values(), recall)
    search = targets["vector_search"]
    return (
        Criterion("All performance metrics meet or exceed specified targets", _worst(every), _listed(every)),
        Criterion(
            "Developers can seamlessly use the new environment with equal or better productivity",
            State.REACHED if developers else State.MISSING,
            developers or "nobody has asked them: finalization.developers_agree is open",
        ),
        Criterion(
            "Memory system operates with improved vector search capabilities",
            _improved(search, recall),
            f"p95 {search.improvement}; recall {recall.improvement}",
        ),
        Criterion(
            "API response times meet or exceed specified targets", targets["api"].state, _listed((targets["api"],))
        ),
        _expected(runs),
    )


def _worst(found: Sequence[Target]) -> State:
    return next(state for state in _WORST_FIRST if any(target.state is state for target in found))


def _listed(found: Sequence[Target]) -> str:
    return "; ".join(
        f"{target.title} {target.now.text(target.unit) if target.now else target.missing} ({target.state})"
        for target in found
    )


def _improved(search: Target, recall: Target) -> State:
    """Better in one and not worse in the other."""
    found = (search.is_improved, recall.is_improved)
    if False in found:
        return State.NOT_REACHED
    if True in found:
        return State.REACHED
    return State.MISSING


def _expected(runs: Mapping[str, SealedRun]) -> Criterion:
    """Reliability as the drills of phase 3 have shown it, security as phases 1 and 2 have read it back."""
    words = "All systems operate with expected reliability and security"
    states, told = [], []
    for runbook, claim in _RELIABILITY:
        row = runs[runbook].row(claim) if runbook in runs else None
        states.append(_STATES.get(row.verdict, State.MISSING) if row else State.MISSING)
        told.append(f"{claim}: {row.value if row else 'MISSING'}")
    for runbook in _SECURITY:
        counts = runbook in runs and not runs[runbook].reasons
        judged = [row.verdict for row in runs[runbook].rows if row.target is not None] if counts else []
        states += [_STATES.get(verdict, State.MISSING) for verdict in judged] or [State.MISSING]
        told.append(f"{runbook}: {f'{len(judged)} rows read back' if judged else 'MISSING'}")
    asked = dict.fromkeys((*(runbook for runbook, _ in _RELIABILITY), *_SECURITY))
    told += [
        f"{name} does not count: {'; '.join(runs[name].reasons)}"
        for name in asked
        if name in runs and runs[name].reasons
    ]
    return Criterion(words, next(state for state in _WORST_FIRST if state in states), "; ".join(told))
