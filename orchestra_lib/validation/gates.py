"""The gates of all phases at the cutover: from sealed runs, fresh ones only.

After the cutover 03 cannot be run any more, and what 01 to 05 had to show was judged at the cutover: then their age is
a reading. Only 06 has to be fresh always: it measures what the others have left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source, failing
from orchestra_lib.settings import OVERRIDES
from orchestra_lib.validation.sealed import SealedRun

PHASES = ("01", "02", "03", "04", "05", "06")
"""What has to stand before the old system may go: the strategy's six phases. The preflight is of the time before."""

_ALWAYS_FRESH = ("06",)
_NO_AGE = timedelta()


def runbook_of(phase: str) -> str:
    """The name of a phase's runbook, or the phase itself where there is none."""
    return next((name for name in OVERRIDES if name.startswith(phase)), phase)


def gate_evidence(
    runs: Mapping[str, SealedRun], now: datetime, freshest_hours: float, source: Source, *, is_switched: bool = False
) -> tuple[Evidence, ...]:
    """A row for each phase: how many reasons there are why its evidence does not count. None may be left.

    ``source`` is what the runs are worth: REHEARSED on the local target. ``is_switched``: the writers write on the
    target already. A phase that was never run is MISSING.
    """
    counted = counted_now(runs, now, freshest_hours, is_switched=is_switched)
    return tuple(_gate(runbook_of(phase), counted.get(runbook_of(phase)), now, source) for phase in PHASES)


def evidence_read(runs: Mapping[str, SealedRun]) -> dict[str, str]:
    """The gates' runbooks, each with the SHA-256 of the record that was read."""
    return {name: run.entry.record_sha256 for name, run in runs.items() if name[:2] in PHASES}


def require_standing(
    gates: Sequence[Evidence], read: Mapping[str, str], approved: Mapping[str, str], rehearsal: bool
) -> None:
    """Raise GateFailed unless all gates stand, on the very evidence that an approved plan had read."""
    red = tuple(str(row) for row in failing(gates, rehearsal=rehearsal))
    if red:
        raise GateFailed("\n".join(["a gate has closed since the plan was made, and nothing was switched", *red]), red)
    other = sorted(name for name in {*read, *approved} if read.get(name) != approved.get(name))
    if other:
        raise GateFailed(
            f"{', '.join(other)} ran since the plan was made, and nothing was switched: other evidence is another "
            "plan; run the notebook again from its opening cell"
        )


def counted_now(
    runs: Mapping[str, SealedRun], now: datetime, freshest_hours: float, *, is_switched: bool
) -> dict[str, SealedRun]:
    """The runs with their age among the reasons why they do not count."""
    return {
        name: replace(run, reasons=phase_reasons(run, now, freshest_hours, is_switched=is_switched))
        for name, run in runs.items()
    }


def phase_reasons(
    run: SealedRun, now: datetime, freshest_hours: float, *, is_switched: bool = False
) -> tuple[str, ...]:
    """Why a run does not count now: what is wrong with it, and its age."""
    may_be_old = is_switched and run.entry.runbook[:2] not in _ALWAYS_FRESH
    return (*run.reasons, *_stale(run, now, float("inf") if may_be_old else freshest_hours))


def _gate(runbook: str, run: SealedRun | None, now: datetime, source: Source) -> Evidence:
    claim, none = f"{runbook}: reasons why its evidence does not count", Bound("==", 0)
    if run is None:
        return Evidence(claim, Source.MISSING, None, "", none, note="no run of it is sealed: run it")
    command = f"python -m orchestra_lib audit verify; less {run.entry.record}"
    return Evidence(claim, source, len(run.reasons), "", none, command, "; ".join(run.reasons) or _told(run, now))


def _stale(run: SealedRun, now: datetime, hours: float) -> Iterable[str]:
    if run.ended is None:
        return
    age = now - run.ended
    if age / timedelta(hours=1) > hours:
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
