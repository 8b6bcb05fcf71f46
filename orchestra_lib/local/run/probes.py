"""The startup probe: when an instance may receive requests, and why not.

https://cloud.google.com/run/docs/configuring/healthchecks
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

HOST = "127.0.0.1"
_RETRY_SECONDS = 0.02
"""Within one attempt a port that nobody listens at yet is tried again: an attempt lasts as long as its time-out."""


class ProbeFailed(Exception):
    """The instance is not ready; the message says what the last attempt met."""


@dataclass(frozen=True)
class Probe:
    """A startup probe; without a path it only connects."""

    path: str | None
    headers: Mapping[str, str]
    delay_seconds: float
    period_seconds: float
    timeout_seconds: float
    failures: int
    """Failed attempts that end it."""


def probe_of(container: Mapping[str, Any]) -> Probe:
    """The startup probe of a container. Raises ProbeFailed for one that is not carried out here."""
    given = container["startupProbe"]
    if "grpc" in given:
        raise ProbeFailed("the local Cloud Run has no gRPC probes; use httpGet or tcpSocket")
    http = given.get("httpGet")
    return Probe(
        path=http.get("path", "/") if http is not None else None,
        headers={one["name"]: one.get("value", "") for one in (http or {}).get("httpHeaders", ())},
        delay_seconds=given.get("initialDelaySeconds", 0),
        period_seconds=given["periodSeconds"],
        timeout_seconds=given["timeoutSeconds"],
        failures=given["failureThreshold"],
    )


async def passed(probe: Probe, port: int) -> None:
    """Return when the probe has passed. Raises ProbeFailed after as many failures as it allows."""
    await asyncio.sleep(probe.delay_seconds)
    loop = asyncio.get_running_loop()
    for attempt in range(1, probe.failures + 1):
        next_at = loop.time() + probe.period_seconds
        met = await _attempt(probe, port)
        if not met:
            return
        if attempt == probe.failures:
            raise ProbeFailed(f"{met} ({attempt} of {probe.failures} attempts)")
        await asyncio.sleep(max(0.0, next_at - loop.time()))


async def _attempt(probe: Probe, port: int) -> str:
    """What one attempt met that is not good enough; empty when it passed."""
    what = f"GET {probe.path}" if probe.path is not None else f"connecting to port {port}"
    met = f"{what} was not answered within {probe.timeout_seconds:g} s"
    try:
        async with asyncio.timeout(probe.timeout_seconds):
            while True:
                try:
                    return await _asked(probe, port)
                except (aiohttp.ClientConnectorError, ConnectionRefusedError):
                    met = f"nobody listened at port {port} within {probe.timeout_seconds:g} s"
                except (aiohttp.ClientError, OSError) as error:
                    return f"{what} met {type(error).__name__}"
                await asyncio.sleep(_RETRY_SECONDS)
    except TimeoutError:
        return met


async def _asked(probe: Probe, port: int) -> str:
    if probe.path is None:
        _, writer = await asyncio.open_connection(HOST, port)
        writer.close()
        return ""
    url = f"http://{HOST}:{port}{probe.path}"
    async with aiohttp.request("GET", url, headers=dict(probe.headers), allow_redirects=False) as answer:
        return "" if answer.status < 400 else f"GET {probe.path} was answered {answer.status}"
