"""The gates of all phases at the cutover: from sealed runs, fresh ones only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.settings import OVERRIDES
from orchestra_lib.validation.sealed import SealedRun

PHASES = ("01", "02", "03", "04", "05", "06")
"""What has to stand before the old system may go: the strategy's six phases. The preflight is of the time before."""

_NO_AGE = timedelta()


def runbook_of(phase: str) -> str:
    """The name of a phase's runbook, or the phase itself where there is none."""
    return next((name for name in OVERRIDES if name.startswith(phase)), phase)


def gate_evidence(
    runs: Mapping[str, SealedRun], now: datetime, freshest_hours: float, source: Source
) -> tuple[Evidence, ...]:
    """A row for each phase: how many reasons there are why its evidence does not count. None may be left.

    ``source`` is what the runs are worth: REHEARSED on the local target. A phase that was never run is MISSING.
    """
    return tuple(_gate(runbook_of(phase), runs.get(runbook_of(phase)), now, freshest_hours, source) for phase in PHASES)


def phase_reasons(run: SealedRun, now: datetime, freshest_hours: float) -> tuple[str, ...]:
    """Why a run does not count now: what is wrong with it, and its age."""
    return (*run.reasons, *_stale(run, now, freshest_hours))


def _gate(runbook: str, run: SealedRun | None, now: datetime, hours: float, source: Source) -> Evidence:
    claim, none = f"{runbook}: reasons why its evidence does not count", Bound("==", 0)
    if run is None:
        return Evidence(claim, Source.MISSING, None, "", none, note="no run of it is sealed: run it")
    reasons = phase_reasons(run, now, hours)
    command = f"python -m orchestra_lib audit verify; less {run.entry.record}"
    return Evidence(claim, source, len(reasons), "", none, command, "; ".join(reasons) or _told(run, now))


def _stale(run: SealedRun, now: datetime, hours: float) -> Iterable[str]:
    if run.ended is None:
        return
    age = now - run.ended
    if age > timedelta(hours=hours):
        yield f"its evidence is {age / timedelta(hours=1):,.1f} hours old, and {hours:g} are allowed: run it again"
    elif age < _NO_AGE:
        yield f"its evidence is of {run.ended:%Y-%m-%d %H:%M} UTC, which is still to come: a clock is wrong"


def _told(run: SealedRun, now: datetime) -> str:
    found = run.record
    if found is None or found.ended is None:
        return ""
    judged = sum(row.target is not None for row in run.rows)
    commit = (found.git.commit or "no commit")[:12] + (" with local changes" if found.git.dirty else "")
    age = (now - found.ended) / timedelta(minutes=1)
    return f"run {found.run_id}, {judged} judged rows, {age:,.0f} minutes old, code {commit}"
