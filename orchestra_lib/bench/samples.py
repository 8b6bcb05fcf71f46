"""What a load's workers saw, request by request, and what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.bench.histogram import Histogram, histogram
from orchestra_lib.bench.statistics import Estimate, quantile_of_series

NOT_SENT = "not sent"
"""The failure of a request that was given up before it was sent: its time limit, or the run, was over."""
_MS = 1e3


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended: ``failure`` names what kind of failure it was, None when it was answered.

    ``short`` is an answer with fewer rows than were asked for; ``server_ms`` what the server says that it worked.
    """

    failure: str | None = None
    short: bool = False
    server_ms: float | None = None


class Sample(NamedTuple):
    """One request as its worker saw it. Times are seconds since the run's start.

    ``free``: the worker began to wait for it; ``sent`` and ``done`` are NaN for a request that was given up.
    """

    number: int
    free: float
    sent: float
    done: float
    outcome: Outcome


Worker = Callable[[int], Outcome]
"""Makes the request of that number. What is a failure of the request it tells; what it raises ends the run."""
MakeWorker = Callable[[], AbstractContextManager[Worker]]


def not_sent(number: int, free: float) -> Sample:
    """The sample of a request that was given up before it was sent."""
    return Sample(number, free, np.nan, np.nan, Outcome(NOT_SENT))


@dataclass(frozen=True, eq=False)
class LoadRun:
    """A load and what became of it: one element a request in each array, in the order of their intended starts.

    Seconds count from the run's start. ``sent`` and ``done`` are NaN where a request was never sent, ``free`` is when
    its worker began to wait for it, ``server_ms`` NaN where the server did not tell, ``failure`` "" where it answered.
    """

    seconds: float
    time_limit_ms: float | None
    intended: NDArray[np.float64]
    free: NDArray[np.float64]
    sent: NDArray[np.float64]
    done: NDArray[np.float64]
    server_ms: NDArray[np.float64]
    failure: NDArray[np.str_]
    short: NDArray[np.bool_]

    @property
    def requests(self) -> int:
        """How many requests were due."""
        return self.intended.size

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which requests were answered, short answers included."""
        answered: NDArray[np.bool_] = self.failure == ""
        return answered

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """From the intended start to the answer, whoever it was that waited; inf where none came."""
        return np.where(self.answered, (self.done - self.intended) * _MS, np.inf)

    @property
    def service_ms(self) -> NDArray[np.float64]:
        """From sending to the answer, as a closed loop would have it; inf where none came."""
        return np.where(self.answered, (self.done - self.sent) * _MS, np.inf)

    @property
    def client_ms(self) -> NDArray[np.float64]:
        """What lies between the client's clock and the server's, from sending on; NaN where the server did not tell."""
        return np.where(self.answered, (self.done - self.sent) * _MS - self.server_ms, np.nan)

    @property
    def schedule_lag_ms(self) -> NDArray[np.float64]:
        """How much later than intended a request was sent; NaN where it never was."""
        return (self.sent - self.intended) * _MS

    @property
    def generator_lag_ms(self) -> NDArray[np.float64]:
        """The part of that lag which is the generator's own: its worker was free, and yet sent late."""
        return (self.sent - np.maximum(self.intended, self.free)) * _MS

    @property
    def offered_per_second(self) -> float:
        """Requests that were due, a second."""
        return self.requests / self.seconds

    @property
    def achieved_per_second(self) -> float:
        """Requests that were answered, a second, until the last answer or the end of the load, whichever is later."""
        done = self.done[self.answered]
        return done.size / max(self.seconds, float(done.max(initial=0.0)))

    @property
    def failures(self) -> dict[str, int]:
        """How many requests failed in which way."""
        return dict(sorted(Counter(kind for kind in self.failure.tolist() if kind).items()))

    @property
    def short_answers(self) -> int:
        """How many answers had fewer rows than were asked for."""
        return int(self.short.sum())

    @property
    def within_limit(self) -> float | None:
        """The share of requests that were answered within their time limit, from the intended start."""
        return None if self.time_limit_ms is None else float((self.latency_ms <= self.time_limit_ms).mean())

    @cached_property
    def p50(self) -> Estimate:
        """Median latency from the intended start, milliseconds."""
        return quantile_of_series(self.latency_ms, 0.50)

    @cached_property
    def p95(self) -> Estimate:
        """95 % of the requests are answered within it, milliseconds from the intended start."""
        return quantile_of_series(self.latency_ms, 0.95)

    @cached_property
    def p99(self) -> Estimate:
        """99 % of the requests are answered within it, milliseconds from the intended start."""
        return quantile_of_series(self.latency_ms, 0.99)

    @cached_property
    def histogram(self) -> Histogram:
        """Latencies from the intended start."""
        return histogram(self.latency_ms)

    def part(self, which: NDArray[np.bool_]) -> LoadRun:
        """The same run, as some of its requests saw it: those of one kind, or after the first seconds."""
        return LoadRun(
            self.seconds,
            self.time_limit_ms,
            self.intended[which],
            self.free[which],
            self.sent[which],
            self.done[which],
            self.server_ms[which],
            self.failure[which],
            self.short[which],
        )

    def followed_by(self, later: LoadRun) -> LoadRun:
        """Both as one: the later one, of the same load, begins where this one ends."""
        at = self.seconds
        return LoadRun(
            self.seconds + later.seconds,
            self.time_limit_ms,
            np.concatenate([self.intended, later.intended + at]),
            np.concatenate([self.free, later.free + at]),
            np.concatenate([self.sent, later.sent + at]),
            np.concatenate([self.done, later.done + at]),
            np.concatenate([self.server_ms, later.server_ms]),
            np.concatenate([self.failure, later.failure]),
            np.concatenate([self.short, later.short]),
        )


def load_run(
    intended: NDArray[np.float64], seconds: float, time_limit_ms: float | None, samples: Iterable[Sample]
) -> LoadRun:
    """Put the workers' samples in the order of the schedule. A request that nobody tells of counts as not sent."""
    times = np.full((3, intended.size), np.nan)
    server_ms = np.full(intended.size, np.nan)
    failure = [NOT_SENT] * intended.size
    short = np.zeros(intended.size, dtype=np.bool_)
    for number, free, sent, done, outcome in samples:
        times[:, number] = free, sent, done
        server_ms[number] = np.nan if outcome.server_ms is None else outcome.server_ms
        failure[number] = outcome.failure or ""
        short[number] = outcome.short
    free_at, sent_at, done_at = times
    kinds = np.asarray(failure, dtype=np.str_)
    return LoadRun(seconds, time_limit_ms, intended, free_at, sent_at, done_at, server_ms, kinds, short)
