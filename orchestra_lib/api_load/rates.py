"""p95 of each kind of request at stated offered rates, over every version of HTTP that the other side speaks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from orchestra_lib.api_load.forms import Form
from orchestra_lib.api_load.protocol import speaks_http2
from orchestra_lib.api_load.seen import Seen, by_kind, lag_p95_ms
from orchestra_lib.api_load.workload import Workload
from orchestra_lib.bench.environment import Environment, environment
from orchestra_lib.bench.load import Load
from orchestra_lib.bench.statistics import Estimate

MOST_IN_FLIGHT = 256
_WARM_SECONDS = 1.0
_ATTEMPTS = 2
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
    """One rate, for twice as long as long as some p95 is without an upper end: requests that queue together say less
    than as many that do not."""
    seconds = max(form.rate_seconds, form.fewest * len(workload.kinds) / rate)
    for _ in range(_ATTEMPTS):
        run = workload.offer(Load(rate, seconds, seed, MOST_IN_FLIGHT))
        kinds = by_kind(workload, run)
        if all(math.isfinite(one.p95_ms.high) or one.failed for one in kinds):
            break
        seconds *= 2
    protocol = _HTTP2 if workload.http2 else _HTTP1
    return AtRate(protocol, rate, run.offered_per_second, run.achieved_per_second, kinds, lag_p95_ms(run))
