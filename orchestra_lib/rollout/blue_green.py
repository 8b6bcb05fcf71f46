"""The new revision (green) beside the one that serves (blue): deployed, warmed, compared, shifted to, or taken back.

Each step is journalled before it is made and followed by a gate. A gate that stays closed, and anything else that goes
wrong, sends all traffic back to blue at once. Blue keeps its tag afterwards: with a tag its smallest number of
instances stays up, so the way back is never a cold start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source, Verdict
from orchestra_lib.rollout.comparison import Requests, ask, compare
from orchestra_lib.rollout.journal import Outcome, RecordedRollout, RolloutJournal
from orchestra_lib.rollout.service import WHOLE, RunService, Share, is_revision_of, revision_name

BLUE, GREEN = "blue", "green"
"""The tags of both revisions."""

_CLOSED = frozenset({Verdict.FAIL, Verdict.MISSING})


@dataclass(frozen=True)
class Gate:
    """What has to hold at each step. ``percents`` are green's shares of the traffic, the last one is 100.

    ``latency_ratio``: green's latency divided by blue's, the upper end of the median's interval. ``failed_share``: of
    the requests to the service's own address.
    """

    percents: tuple[int, ...] = (5, 25, WHOLE)
    warm_requests: int = 20
    requests: int = 200
    latency_ratio: float = 1.25
    failed_share: float = 0.001


@dataclass(frozen=True)
class Step:
    """One step of a rollout: green's share, how long the shift took and the gate, and what the gate saw."""

    percent: int
    shift_seconds: float
    gate_seconds: float
    rows: tuple[Evidence, ...]


@dataclass(frozen=True)
class Rollout:
    """A rollout that was done."""

    blue: str
    green: str
    deploy_seconds: float
    steps: tuple[Step, ...]


def is_served(service: RunService, template: Mapping[str, Any]) -> bool:
    """Whether all traffic goes to a revision of this template already."""
    return is_revision_of(service.serving(), template)


def roll_out(
    service: RunService,
    template: Mapping[str, Any],
    asked: Requests,
    gate: Gate,
    journal: RolloutJournal,
    source: Source,
    say: Callable[[str], None] = lambda _: None,
    run_id: str = "",
) -> Rollout:
    """Let a revision of the template take over, and return what every step took and every gate saw.

    ``source`` is what the measurements are worth: REHEARSED on the local target; ``run_id`` stands in the journal.
    Raises GateFailed, with the rows that kept a gate closed, CloudRefused for a revision that does not start; blue
    serves everything again by then.
    """
    recover(service, journal)
    blue, green = service.serving(), revision_name(service.id, template)
    rollout = journal.begin(service.name, blue, green, run_id)
    try:
        say(f"deploy {green}")
        began = time.perf_counter()
        service.deploy(template, green, _shares(rollout, 0))
        deployed = time.perf_counter() - began
        steps = [_step(service, rollout, percent, asked, gate, journal, source, say) for percent in (0, *gate.percents)]
    except BaseException as error:
        _take_back(service, rollout, journal, str(error) or type(error).__name__)
        raise
    journal.decide(rollout)
    journal.end(rollout, Outcome.DONE)
    return Rollout(blue, green, deployed, tuple(steps))


def redirect(service: RunService, revision: str) -> float:
    """Send all traffic to a revision at once, in one call; returns the seconds until it is in effect.

    The others keep their tags, and with them their instances.
    """
    began = time.perf_counter()
    tags = {share.revision: share.tag for share in service.shares() if share.tag}
    others = [Share(name, 0, tag) for name, tag in tags.items() if name != revision]
    service.direct([Share(revision, WHOLE, tags.get(revision, "")), *others])
    return time.perf_counter() - began


def recover(service: RunService, journal: RolloutJournal) -> str | None:
    """End a rollout that was cut off: completed when it was decided, else taken back. Returns what was done."""
    left = journal.unfinished(service.name)
    if left is None:
        return None
    if left.is_decided:
        service.direct(_shares(left, WHOLE))
        journal.end(left, Outcome.DONE)
        return f"the rollout of {left.green} was decided and is complete"
    _take_back(service, left, journal, "it was cut off")
    return f"the rollout of {left.green} was cut off: {left.blue} serves everything"


def forget(service: RunService, journal: RolloutJournal) -> str | None:
    """End a rollout that was cut off and whose service has been deleted since. Returns what was done."""
    left = journal.unfinished(service.name)
    if left is None:
        return None
    journal.end(left, Outcome.UNDONE, "the service has been deleted")
    return f"the rollout of {left.green} was cut off, and its service has been deleted since"


def _step(
    service: RunService,
    rollout: RecordedRollout,
    percent: int,
    asked: Requests,
    gate: Gate,
    journal: RolloutJournal,
    source: Source,
    say: Callable[[str], None],
) -> Step:
    say(f"{percent} % to {rollout.green}" if percent else f"warm {rollout.green} and compare it")
    began = time.perf_counter()
    if percent:
        journal.shift(rollout, percent)
        service.direct(_shares(rollout, percent))
    else:
        for tag in (BLUE, GREEN):
            ask(service.uri(tag), asked, gate.warm_requests)
    shifted = time.perf_counter()
    rows = _gate_rows(service, percent, asked, gate, source)
    closed = [row for row in rows if row.verdict in _CLOSED]
    if closed:
        lines = tuple(map(str, closed))
        raise GateFailed(f"{rollout.green} at {percent} % of the traffic: {'; '.join(lines)}", lines)
    return Step(percent, shifted - began, time.perf_counter() - shifted, rows)


def _gate_rows(service: RunService, percent: int, asked: Requests, gate: Gate, source: Source) -> tuple[Evidence, ...]:
    found = compare(service.uri(BLUE), service.uri(GREEN), asked, gate.requests)
    seen = ask(service.uri(), asked, gate.requests)
    failed = [one for one in seen if not one.is_good]
    at = f"green at {percent} %"
    both = found.answered_by_both
    ratio = found.ratio() if both else None
    explained = "; ".join(f"{name} may differ: {why}" for name, why in asked.explained.items())
    statuses = ", ".join(sorted({str(one.status or one.failure) for one in failed}))
    return (
        Evidence(
            f"{at}: answers that differ from blue's",
            source,
            len(found.differences) if both else None,
            "answers",
            Bound("==", 0),
            note="; ".join(filter(None, (f"{both:,} compared", found.told(), explained))),
        ),
        Evidence(
            f"{at}: requests that blue answered and green did not",
            source,
            found.failed_by_green_alone,
            "requests",
            Bound("==", 0),
        ),
        Evidence(
            f"{at}: latency of green divided by blue's",
            source,
            round(ratio.high, 3) if ratio else None,
            "",
            Bound("<=", gate.latency_ratio),
            note=f"upper end of the median over {both:,} pairs: {ratio}" if ratio else "no pair was answered",
        ),
        Evidence(
            f"{at}: failed share of requests to the service",
            source,
            len(failed) / len(seen),
            "",
            Bound("<=", gate.failed_share),
            note=f"{len(failed)} of {len(seen):,}" + (f": {statuses}" if statuses else ""),
        ),
    )


def _take_back(service: RunService, rollout: RecordedRollout, journal: RolloutJournal, reason: str) -> None:
    service.direct([Share(rollout.blue, WHOLE, BLUE)])
    journal.end(rollout, Outcome.UNDONE, reason)


def _shares(rollout: RecordedRollout, percent: int) -> list[Share]:
    return [Share(rollout.blue, WHOLE - percent, BLUE), Share(rollout.green, percent, GREEN)]
