"""Runbook 05 at the front: what the gateway and the service answer nobody, a stranger's token, and the probe."""

from __future__ import annotations

import time
from collections.abc import Sequence

import httpx

from orchestra_lib.cloud.client import Client
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Evidence, Source, yes_or_no
from orchestra_lib.phases.api_probe import Caller, round_trip

_UP_SECONDS = 420.0
_PAUSE_SECONDS = 0.25
_TIMEOUT_SECONDS = 30.0
_ANOTHER_AUDIENCE = "https://somebody-else.example"


def gateway_url(client: Client, gateway: str, *, is_local: bool) -> str:
    """Where a gateway answers, by its full name."""
    live = client.call("apigateway.v1", "apigateway.projects.locations.gateways.get", gateway)
    return f"{'http' if is_local else 'https'}://{live['defaultHostname']}"


def tried(url: str, service: str, caller: Caller, vector: Sequence[float], source: Source) -> tuple[Evidence, ...]:
    """Who gets through, and a memory's way there and back. Raises GateFailed when the gateway does not come up."""
    with (
        httpx.Client(base_url=url, timeout=_TIMEOUT_SECONDS, trust_env=False) as gateway,
        httpx.Client(base_url=service, timeout=_TIMEOUT_SECONDS, trust_env=False) as direct,
    ):
        _wait_until_up(gateway)
        stranger = {"Authorization": f"Bearer {caller.token(_ANOTHER_AUDIENCE)}"}
        found = round_trip(gateway, caller.gateway_headers(), vector)
        return (
            _answers("the service answers nobody 403", direct.get("/v1/memories"), 403, source),
            _answers("the gateway answers nobody 401", gateway.get("/v1/memories"), 401, source),
            _answers(
                "the gateway answers a token for somebody else 401",
                gateway.get("/v1/memories", headers=stranger),
                401,
                source,
            ),
            _answers("the gateway has no path to the metrics", gateway.get("/metrics"), 404, source),
            _answers(
                "the gateway answers a caller's token 200",
                gateway.get("/v1/memories", params={"limit": 1}, headers=dict(caller.gateway_headers())),
                200,
                source,
            ),
            yes_or_no("a memory is stored, found, read and deleted through the gateway", source, not found, note=found),
        )


def _answers(claim: str, answer: httpx.Response, wanted: int, source: Source) -> Evidence:
    told = f"{answer.request.method} {answer.request.url.path}: HTTP {answer.status_code}"
    return yes_or_no(claim, source, answer.status_code == wanted, note=told)


def _wait_until_up(gateway: httpx.Client) -> None:
    """A new config, and the role of the gateway's account, take a while to be in effect."""
    began, told = time.monotonic(), ""
    while time.monotonic() - began < _UP_SECONDS:
        try:
            answer = gateway.get("/ready")
        except httpx.HTTPError as error:
            told = type(error).__name__
        else:
            if answer.is_success:
                return
            told = f"HTTP {answer.status_code} {answer.text[:200]}"
        time.sleep(_PAUSE_SECONDS)
    raise GateFailed(f"{gateway.base_url}ready does not answer 200 within {_UP_SECONDS:.0f} s: {told}")
