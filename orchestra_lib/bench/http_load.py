"""Load on an HTTP service, over HTTP/1.1 or 2, from one event loop.

The server's own time is what it tells in the header ``Server-Timing`` (https://www.w3.org/TR/server-timing/).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from orchestra_lib.bench.load import AsyncWorker
from orchestra_lib.bench.samples import Outcome

_DURATION = re.compile(r"(?:^|,)\s*(?:total|app)\s*;[^,]*?\bdur=([\d.]+)")


@dataclass(frozen=True)
class HttpRequests:
    """A ``make_worker`` for ``run_load_async``: request n is ``requests[n]``, modulo how many there are.

    A request is what ``httpx.AsyncClient.request`` takes: ``{"method": "POST", "url": "/search", "json": {...}}``.
    ``connections`` bounds the connections; with HTTP/2 one carries many requests. ``is_short`` tells an answer that
    lacks rows. Failures are ``HTTP 503`` and the like for a status of 400 and more, else httpx's names: ReadTimeout,
    ConnectError.
    """

    base_url: str
    requests: Sequence[Mapping[str, Any]]
    http2: bool = False
    connections: int = 100
    timeout_seconds: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)
    is_short: Callable[[httpx.Response], bool] | None = None
    verify: bool | str = True

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[AsyncWorker]:
        """Open a client. Connections are made when they are needed, and kept."""
        async with httpx.AsyncClient(
            base_url=self.base_url,
            http1=not self.http2,
            http2=self.http2,
            headers=dict(self.headers),
            timeout=self.timeout_seconds,
            limits=httpx.Limits(max_connections=self.connections, max_keepalive_connections=self.connections),
            verify=self.verify,
            trust_env=False,
        ) as client:

            async def ask(number: int) -> Outcome:
                try:
                    answer = await client.request(**self.requests[number % len(self.requests)])
                except httpx.HTTPError as error:
                    return Outcome(type(error).__name__)
                if answer.status_code >= 400:
                    return Outcome(f"HTTP {answer.status_code}", server_ms=_server_ms(answer))
                return Outcome(None, bool(self.is_short and self.is_short(answer)), _server_ms(answer))

            yield ask


def _server_ms(answer: httpx.Response) -> float | None:
    found = _DURATION.search(answer.headers.get("server-timing", ""))
    return float(found[1]) if found else None
