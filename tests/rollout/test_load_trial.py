"""What is tried out on a revision of its own leaves the service as it was; first requests are cold or are not."""

from __future__ import annotations

import httpx
import pytest

from orchestra_lib.api_load.cold_start import LocalFront, first_requests
from orchestra_lib.api_load.report import cold_start_evidence
from orchestra_lib.api_load.trial import tagged_revision, with_scaling
from orchestra_lib.api_load.workload import Kind, Workload
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.evidence import Source, Verdict
from orchestra_lib.local.run import program

ATTEMPTS = 3


@pytest.fixture
def front(bench):
    plane = program.status(bench.planes.directory)
    return LocalFront(plane.endpoint, bench.planes.token)


def asking(uri: str) -> Workload:
    return Workload(uri, (Kind("any", ({"method": "GET", "url": "/"},), 100.0),), dict)


def test_with_no_instance_kept_the_first_request_waits_for_one_and_with_one_it_does_not(bench, front):
    service = bench.service()
    before, found = service.shares(), []
    for least in (0, 1):
        template = with_scaling(bench.template(), concurrency=10, least=least, most=2)
        with tagged_revision(service, template, "cold") as (uri, revision):
            assert service.shares()[-1].tag == "cold"
            left = lambda revision=revision: front.end_idle(service.name, revision)  # noqa: E731
            found.append(first_requests(asking(uri), least, ATTEMPTS, left))
        assert service.shares() == before
    cold, warm = found
    assert (cold.cold, warm.cold) == (ATTEMPTS, 0)
    assert cold.ms.value > 2 * warm.ms.value
    rows = cold_start_evidence(found, Source.REHEARSED)
    assert [row.verdict for row in rows] == [Verdict.NOTED, Verdict.REHEARSED] * 2


def test_a_trial_that_fails_leaves_the_service_as_it_was(bench):
    service = bench.service()
    before = service.shares()
    with pytest.raises(ZeroDivisionError):
        fail_in_a_trial(service, bench.template(ROWS="other"))
    assert service.shares() == before


def fail_in_a_trial(service, template):
    with tagged_revision(service, template, "trial") as (uri, _):
        assert httpx.get(uri, trust_env=False).json()["hits"] == [{"id": "other"}]
        raise ZeroDivisionError


def test_the_services_own_limit_goes_with_the_concurrency(bench):
    template = with_scaling(bench.template(GREETING="kept"), concurrency=40, least=1, most=3)
    (container,) = with_scaling(template, concurrency=80, least=0, most=2)["containers"]
    assert {one["name"]: one["value"] for one in container["env"]} == {
        "GREETING": "kept",
        "ORCHESTRA_API_MAX_IN_FLIGHT": "72",
    }


def test_a_front_that_does_not_know_the_revision_says_so(bench, front):
    service = bench.service()
    with pytest.raises(TargetUnreachable, match="serves no revision other of"):
        front.end_idle(service.name, "other")
    with pytest.raises(TargetUnreachable, match="401"):
        LocalFront(front._endpoint, "nobody's").end_idle(service.name, "other")
