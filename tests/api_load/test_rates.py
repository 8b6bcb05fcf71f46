"""How long a stated rate is offered, on a service whose behaviour is computed."""

from __future__ import annotations

import math
from dataclasses import replace

from api_load.simulated import Simulated

from orchestra_lib.api_load.forms import NOTEBOOK
from orchestra_lib.api_load.rates import measure_rates
from orchestra_lib.api_load.workload import Kind

KINDS = (Kind("search", ({},), 60.0), Kind("retrieval", ({},), 50.0))
FORM = replace(NOTEBOOK, rates=(25.0,))


def service(stalls: int) -> Simulated:
    """One at a time, each for five milliseconds; the warming counts as a load."""
    return Simulated("", KINDS, dict, service_seconds=0.005, stalls=1 + stalls)


def test_a_rate_whose_p95_has_an_end_is_offered_once():
    asked = service(0)
    (at_rate,) = measure_rates(asked, FORM).at_rates
    assert [load.seconds for load in asked.offered[1:]] == [8.0]
    assert all(math.isfinite(kind.p95_ms.high) for kind in at_rate.kinds)


def test_requests_that_queued_together_are_joined_by_more_and_stay_in_the_figure():
    asked = service(1)
    (at_rate,) = measure_rates(asked, FORM).at_rates
    parts = asked.offered[1:]
    assert 1 < len(parts) <= 3
    assert {load.seconds for load in parts} == {8.0}
    assert len({load.seed for load in parts}) == len(parts)
    assert sum(kind.requests for kind in at_rate.kinds) > 300, "of all parts"
    assert abs(at_rate.kinds[0].requests - at_rate.kinds[1].requests) <= len(parts)
    assert at_rate.kinds[0].p99_ms.high > 100, "the stall counts"


def test_a_service_that_stalls_in_every_part_is_given_up_on():
    asked = service(9)
    measure_rates(asked, FORM)
    assert len(asked.offered) == 4
