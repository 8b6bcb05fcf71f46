"""The first request after a quiet time: with no instance kept it waits for one to start, with one kept it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from orchestra_lib.api_load.workload import Workload
from orchestra_lib.bench.environment import Environment, environment
from orchestra_lib.bench.statistics import Estimate, quantile
from orchestra_lib.errors import TargetUnreachable

_TIMEOUT_SECONDS = 15.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class FirstRequests:
    """First requests after a quiet time. ``ms`` is the median; ``cold`` are those that found no instance."""

    least: int
    ms: Estimate
    each_ms: tuple[float, ...]
    cold: int
    environment: Environment


def first_requests(workload: Workload, least: int, attempts: int, end_idle: Callable[[], int]) -> FirstRequests:
    """Ask once after each call of ``end_idle``, which returns how many instances it has left.

    ``least`` is how many the revision keeps. Raises GateFailed for a request that is not answered 2xx.
    """
    where = environment()
    left, each = [], []
    for _ in range(attempts):
        left.append(end_idle())
        each.append(workload.first())
    return FirstRequests(least, quantile(each, 0.5), tuple(each), left.count(0), where)


class LocalFront:
    """The local Cloud Run's own endpoint: what is served, and idle instances ended as 15 quiet minutes would end them.

    ``endpoint`` is ``run.endpoint`` of ``local up --json``, ``token`` the operator's. On Google Cloud there is nothing
    of the kind: there one waits. Everything raises TargetUnreachable when it does not answer as it should.
    """

    def __init__(self, endpoint: str, token: str) -> None:
        self._endpoint, self._headers = endpoint, {"Authorization": f"Bearer {token}"}

    def end_idle(self, service: str, revision: str) -> int:
        """End the idle instances of a service (its full name), and wait until they are gone; how many are left of
        the revision."""
        self._ask("POST", "/scale-down", {"service": service})
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while (told := self.revision(service, revision))["stopping"]:
            if time.monotonic() > deadline:
                raise TargetUnreachable(f"instances of {revision} have not ended within {_TIMEOUT_SECONDS:g} s")
            time.sleep(_LOOK_SECONDS)
        return len(told["instances"])

    def revision(self, service: str, revision: str) -> dict[str, Any]:
        """What the data plane counts of a revision."""
        for one in self._ask("GET", "/services")["services"]:
            if one["name"] == service and revision in one["revisions"]:
                return dict(one["revisions"][revision])
        raise TargetUnreachable(f"the local Cloud Run serves no revision {revision} of {service}")

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            answer = httpx.request(
                method,
                f"{self._endpoint}{path}",
                json=body,
                headers=self._headers,
                timeout=_TIMEOUT_SECONDS,
                trust_env=False,
            )
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise TargetUnreachable(f"the local Cloud Run at {self._endpoint}: {error}") from error
        found: dict[str, Any] = answer.json()
        return found
