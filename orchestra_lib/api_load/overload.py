"""Twice as much as the API bears, between two calm times: what it refuses and how, and when it is itself again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.api_load.forms import Form
from orchestra_lib.api_load.saturation import LARGEST_FAILED_SHARE, Saturation
from orchestra_lib.api_load.seen import Seen, lag_p95_ms, seen
from orchestra_lib.api_load.workload import Workload
from orchestra_lib.bench.arrivals import poisson
from orchestra_lib.bench.environment import Environment, environment
from orchestra_lib.bench.load import Load
from orchestra_lib.bench.samples import LoadRun
from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.errors import GateFailed

FACTOR, CALM_SHARE = 2.0, 0.5
"""Of the saturation point: the overload, and the calm before and after it."""
FEWEST_REFUSED = 0.05
"""Of the requests at twice the saturation point, half of which are more than it can do: with fewer it was not twice."""
_MOST_IN_FLIGHT = 2_048
_WINDOW_SECONDS, _STEP_SECONDS, _WITHIN = 1.0, 0.1, 0.95


@dataclass(frozen=True)
class Overload:
    """What happened. Rates in requests a second.

    ``answered`` are the requests of the overload that were answered right, ``during`` all of them: its quantiles count
    a refusal as infinitely slow. ``recovery_seconds``: from the end of the overload until requests are answered within
    their goals again, None if that did not come. ``total`` counts failures over the whole time.
    """

    saturation_per_second: float
    offered_per_second: float
    answered_per_second: float
    during: Seen
    answered: Seen | None
    after: tuple[Seen, ...]
    recovery_seconds: float | None
    total: Seen
    generator_lag_p95_ms: Estimate
    environment: Environment


def overload(workload: Workload, saturation: Saturation, form: Form) -> Overload:
    """Offer half the saturation point, twice of it, and half of it again.

    Raises GateFailed when not even the lowest rate was borne: there is nothing to double.
    """
    bears = saturation.holds_per_second
    if bears <= 0:
        raise GateFailed(f"the API bears no rate that was offered ({saturation.why}): see to that first")
    where = environment()
    begin, end = form.calm_seconds, form.calm_seconds + form.overload_seconds
    parts = ((CALM_SHARE, form.calm_seconds), (FACTOR, form.overload_seconds), (CALM_SHARE, form.after_seconds))
    run = workload.offer(_load(bears, end + form.after_seconds), _arrivals(bears, parts))
    is_during, is_after = (run.intended >= begin) & (run.intended < end), run.intended >= end
    during = run.part(is_during)
    good = during.part(during.answered)
    goals = np.array([kind.goal_p95_ms for kind in workload.kinds])
    goal = float(goals.max())
    return Overload(
        bears,
        during.requests / form.overload_seconds,
        _answered_between(run, begin, end) / form.overload_seconds,
        seen("all", goal, during),
        seen("answered", goal, good) if good.requests else None,
        _after(workload, run, end),
        _recovery_seconds(run.part(is_after), end, goals[workload.kind_of(run)][is_after]),
        seen("all", goal, run),
        lag_p95_ms(run),
        where,
    )


def _load(bears: float, seconds: float) -> Load:
    return Load(bears, seconds, 0, _MOST_IN_FLIGHT)


def _arrivals(bears: float, parts: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    begins = np.concatenate([[0.0], np.cumsum([seconds for _, seconds in parts])])
    return np.concatenate(
        [
            begin + poisson(share * bears, seconds, seed)
            for seed, ((share, seconds), begin) in enumerate(zip(parts, begins, strict=False))
        ]
    )


def _answered_between(run: LoadRun, begin: float, end: float) -> int:
    done = run.done[run.answered]
    return int(((done >= begin) & (done < end)).sum())


def _after(workload: Workload, run: LoadRun, end: float) -> tuple[Seen, ...]:
    """The second half of the calm after it, by kind: once what was waiting is through."""
    late = run.intended >= (end + run.seconds) / 2
    return tuple(
        seen(kind.name, kind.goal_p95_ms, run.part(late & (workload.kind_of(run) == number)))
        for number, kind in enumerate(workload.kinds)
    )


def _recovery_seconds(run: LoadRun, end: float, goals: NDArray[np.float64]) -> float | None:
    """When a second begins of which 95 of 100 requests were answered within their goals, and hardly one failed."""
    good = run.latency_ms <= goals
    for begin in np.arange(end, run.seconds - _WINDOW_SECONDS + 1e-9, _STEP_SECONDS):
        there = (run.intended >= begin) & (run.intended < begin + _WINDOW_SECONDS)
        failed = (~run.answered[there]).mean() if there.any() else 1.0
        if failed <= LARGEST_FAILED_SHARE and good[there].mean() >= _WITHIN:
            return float(begin - end)
    return None
