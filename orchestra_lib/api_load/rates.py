"""p95 of each kind of request at stated offered rates, over every version of HTTP that the other side speaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

from orchestra_lib.api_load.forms import Form
from orchestra_lib.api_load.protocol import speaks_http2
from orchestra_lib.api_load.seen import Seen, lag_p95_ms, seen
from orchestra_lib.api_load.workload import Workload
from orchestra_lib.bench.environment import Environment, environment
from orchestra_lib.bench.load import Load
from orchestra_lib.bench.samples import LoadRun
from orchestra_lib.bench.statistics import Estimate

MOST_IN_FLIGHT = 256
_WARM_SECONDS = 1.0
_MOST_PARTS = 3
_HTTP1, _HTTP2 = "HTTP/1.1", "HTTP/2"


@dataclass(frozen=True)
class AtRate:
    """One stated rate: what each kind of request saw there. Rates in requests a second."""

    protocol: str
    stated_per_second: float
    offered_per_second: float
    achieved_per_second: float
    kinds: tuple[Seen, ...]
    generator_lag_p95_ms: Estimate


@dataclass(frozen=True)
class RatesMeasured:
    """Every stated rate, and where it was measured."""

    at_rates: tuple[AtRate, ...]
    http2_is_spoken: bool
    environment: Environment


def measure_rates(workload: Workload, form: Form) -> RatesMeasured:
    """Offer each of the form's rates for its time, lowest first."""
    where = environment()
    both = speaks_http2(workload.base_url)
    workload.offer(Load(min(form.rates), _WARM_SECONDS, 0, MOST_IN_FLIGHT))
    found = [
        _at_rate(replace(workload, http2=http2), rate, form, seed)
        for http2 in ((False, True) if both else (False,))
        for seed, rate in enumerate(sorted(form.rates), start=1)
    ]
    return RatesMeasured(tuple(found), both, where)


def _at_rate(workload: Workload, rate: float, form: Form, seed: int) -> AtRate:
    """One rate, in parts that are judged as one: another is offered while some p95 is without an upper end, because
    requests that queue together say less than as many that do not."""
    seconds = max(form.rate_seconds, form.fewest * len(workload.kinds) / rate)
    parts: list[LoadRun] = []
    while True:
        parts.append(workload.offer(Load(rate, seconds, 1_000 * len(parts) + seed, MOST_IN_FLIGHT)))
        kinds = tuple(_of_kind(workload, parts, number) for number in range(len(workload.kinds)))
        if len(parts) == _MOST_PARTS or all(math.isfinite(one.p95_ms.high) or one.failed for one in kinds):
            break
    whole = reduce(LoadRun.followed_by, parts)
    protocol = _HTTP2 if workload.http2 else _HTTP1
    return AtRate(protocol, rate, whole.offered_per_second, whole.achieved_per_second, kinds, lag_p95_ms(whole))


def _of_kind(workload: Workload, parts: Sequence[LoadRun], number: int) -> Seen:
    """What the requests of one kind saw in all parts. Each part begins with the first kind, the whole would not."""
    kind = workload.kinds[number]
    return seen(
        kind.name, kind.goal_p95_ms, reduce(LoadRun.followed_by, (workload.of_kind(part, number) for part in parts))
    )
