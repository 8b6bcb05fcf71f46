"""How many requests one instance should have at once: n are held in flight, for several n.

That is what Cloud Run's concurrency is: it never gives an instance more. So one revision with a single instance shows
what each setting would do, without a deployment for each, and without the front's queue, which is what a rate above a
setting would measure. The number in flight is given here and not the rate, so latency counts from sending.
https://cloud.google.com/run/docs/about-concurrency
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from orchestra_lib.api_load.forms import Form
from orchestra_lib.api_load.seen import Seen, seen_from_sending
from orchestra_lib.api_load.workload import Workload
from orchestra_lib.bench.environment import Environment, environment
from orchestra_lib.bench.load import Load
from orchestra_lib.bench.samples import LoadRun
from orchestra_lib.bench.statistics import AMOUNTS, Estimate, mean
from orchestra_lib.blueprint.api import in_flight_limit
from orchestra_lib.errors import GateFailed

_MOST_PER_SECOND = 5_000
_WARM_SHARE = 0.2
_PARTS = 10
_ENOUGH = 0.95


@dataclass(frozen=True)
class Level:
    """So many requests in flight: answers a second, and what each kind of request saw."""

    in_flight: int
    per_second: Estimate
    kinds: tuple[Seen, ...]

    @property
    def holds(self) -> bool:
        """Whether each kind's p95 is within its goal and nothing failed."""
        return all(one.p95_ms.value <= one.goal_p95_ms and not one.failed for one in self.kinds)


@dataclass(frozen=True)
class Earned:
    """The settings that the sweep speaks for.

    ``concurrency`` is what an instance may get; ``max_in_flight`` what the service takes of it before it refuses;
    ``per_second`` what an instance answers then; ``why`` in words.
    """

    concurrency: int
    max_in_flight: int
    per_second: Estimate
    why: str


@dataclass(frozen=True)
class Sweep:
    """All levels, lowest first."""

    levels: tuple[Level, ...]
    environment: Environment

    @property
    def best(self) -> Level:
        """The level with the most answers a second."""
        return max(self.levels, key=lambda level: level.per_second.value)

    @property
    def knee(self) -> Level:
        """The lowest level that answers nearly as many: beyond it requests wait for each other."""
        return next(level for level in self.levels if level.per_second.value >= _ENOUGH * self.best.per_second.value)

    @property
    def earned(self) -> Earned:
        """The highest level up to which every one keeps the goals; the lowest one, if not even that does."""
        held: list[Level] = []
        for level in self.levels:
            if not level.holds:
                break
            held.append(level)
        chosen = held[-1] if held else self.levels[0]
        beyond = next((level for level in self.levels if not level.holds), None)
        why = f"{chosen.in_flight} in flight are the most that keep every goal" if held else "no level keeps the goals"
        if beyond is not None:
            why += f"; at {beyond.in_flight} {_told(beyond)}"
        return Earned(chosen.in_flight, in_flight_limit(chosen.in_flight), chosen.per_second, why)


def concurrency_for(limit: int) -> int:
    """The least concurrency with which the service takes so many before it refuses."""
    return next(concurrency for concurrency in itertools.count(limit) if in_flight_limit(concurrency) >= limit)


def sweep(workload: Workload, form: Form) -> Sweep:
    """Hold each of the form's levels in flight for its time."""
    where = environment()
    return Sweep(tuple(_believed(workload, n, form.level_seconds) for n in sorted(form.levels)), where)


def _believed(workload: Workload, in_flight: int, seconds: float) -> Level:
    """A level that does not hold is held once more: one busy moment of a shared machine is no limit."""
    level = _level(workload, in_flight, seconds)
    return level if level.holds else _level(workload, in_flight, seconds)


def _level(workload: Workload, in_flight: int, seconds: float) -> Level:
    # All are due at once, and each worker takes the next as soon as it is free: so many are in flight all the while.
    pile = np.zeros(int(_MOST_PER_SECOND * seconds))
    load = Load(_MOST_PER_SECOND, seconds, 0, in_flight, time_limit_ms=seconds * 1e3)
    run = workload.offer(load, pile)
    return Level(in_flight, _per_second(run, seconds), tuple(_kinds(workload, run, seconds)))


def _kinds(workload: Workload, run: LoadRun, seconds: float) -> Iterator[Seen]:
    for number, kind in enumerate(workload.kinds):
        of_kind = workload.of_kind(run, number)
        warm = of_kind.part(of_kind.sent >= _WARM_SHARE * seconds)  # never sent is NaN, and not warm
        sent = warm if warm.requests else of_kind.part(~np.isnan(of_kind.sent))
        if not sent.requests:
            raise GateFailed(
                f"not one request of the kind {kind.name} could be sent within {seconds:g} s: the service stands still"
            )
        yield seen_from_sending(kind.name, kind.goal_p95_ms, sent)


def _per_second(run: LoadRun, seconds: float) -> Estimate:
    """Answers a second, with the interval of the mean over parts of the time."""
    edges = np.linspace(_WARM_SHARE * seconds, seconds, _PARTS + 1)
    counts, _ = np.histogram(run.done[run.answered], edges)
    return mean(counts / np.diff(edges), bounds=AMOUNTS)


def _told(level: Level) -> str:
    broken = [one for one in level.kinds if one.p95_ms.value > one.goal_p95_ms or one.failed]
    return ", ".join(
        f"p95 of {one.kind} is {one.p95_ms} ms" + (f" and {one.failed} failed" if one.failed else "") for one in broken
    )
