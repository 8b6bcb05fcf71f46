"""What a part of a load looked like: rates, latencies from the intended starts, failures by kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.api_load.workload import SHED, SILENT, WRONG_ANSWER, Workload
from orchestra_lib.bench.samples import LoadRun
from orchestra_lib.bench.statistics import Estimate, quantile_of_series

_QUANTILES = (0.50, 0.95, 0.99)


@dataclass(frozen=True)
class Seen:
    """Requests of one kind, or of all. Latencies in milliseconds; a request that failed was infinitely slow.

    ``server_p95_ms`` is what the service says of itself, None where it does not; ``failures`` counts by kind.
    """

    kind: str
    goal_p95_ms: float
    requests: int
    p50_ms: Estimate
    p95_ms: Estimate
    p99_ms: Estimate
    server_p95_ms: Estimate | None
    failures: Mapping[str, int]

    @property
    def failed(self) -> int:
        """Requests without a right answer."""
        return sum(self.failures.values())

    @property
    def wrong(self) -> int:
        """Answers 2xx that were not right."""
        return self.failures.get(WRONG_ANSWER, 0)

    @property
    def shed(self) -> int:
        """Requests that were refused and told when to come again."""
        return sum(count for kind, count in self.failures.items() if kind in SHED)

    @property
    def refused_silently(self) -> int:
        """Requests that were refused and not told when to come again."""
        return sum(count for kind, count in self.failures.items() if kind.endswith(SILENT))


def by_kind(workload: Workload, run: LoadRun) -> tuple[Seen, ...]:
    """What each kind of request saw in a run."""
    return tuple(
        seen(kind.name, kind.goal_p95_ms, workload.of_kind(run, number)) for number, kind in enumerate(workload.kinds)
    )


def seen(kind: str, goal_p95_ms: float, run: LoadRun) -> Seen:
    """What the requests of a run saw, from when each was due."""
    return _seen(kind, goal_p95_ms, run, run.latency_ms)


def seen_from_sending(kind: str, goal_p95_ms: float, run: LoadRun) -> Seen:
    """What they saw from when each was sent: where the number in flight is given, and not the rate."""
    return _seen(kind, goal_p95_ms, run, run.service_ms)


def lag_p95_ms(run: LoadRun) -> Estimate:
    """How late the generator itself was: far below the latencies, or it is what was measured. Infinite: never sent."""
    lag = run.generator_lag_ms
    return quantile_of_series(np.where(np.isnan(lag), np.inf, lag), 0.95)


def _seen(kind: str, goal_p95_ms: float, run: LoadRun, latency_ms: NDArray[np.float64]) -> Seen:
    p50, p95, p99 = (quantile_of_series(latency_ms, share) for share in _QUANTILES)
    told = run.server_ms[~np.isnan(run.server_ms) & run.answered]
    server = quantile_of_series(told, 0.95) if told.size else None
    return Seen(kind, goal_p95_ms, run.requests, p50, p95, p99, server, run.failures)
