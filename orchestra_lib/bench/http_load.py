"""Load on an HTTP service, over HTTP/1.1 or 2, from one event loop.

Two clients, because none is both quick and able: with 128 requests under way aiohttp takes 0.1 ms of CPU for each and
httpx 7.8, which walks through its connections at every request; HTTP/2, over one connection, only httpx has. Neither
repeats a request unseen. The server's own time is what it tells in ``Server-Timing`` (https://www.w3.org/TR/server-timing/).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
from yarl import URL

from orchestra_lib.bench.load import AsyncWorker
from orchestra_lib.bench.samples import Outcome

TIME_OUT, NO_CONNECTION, CONNECTION_LOST = "time-out", "no connection", "connection lost"
"""Failures without an answer. A status of 400 and more is ``HTTP 503`` and the like."""

_DURATION = re.compile(r"(?:^|,)\s*(?:total|app)\s*;[^,]*?\bdur=([\d.]+)")
_NOT_MADE = (aiohttp.ClientConnectorError, httpx.ConnectError)
_TOO_LATE = (TimeoutError, httpx.TimeoutException)
_OF_THE_CONNECTION = frozenset({"connection", "content-length", "accept-encoding", "host"})


@dataclass(frozen=True)
class Answer:
    """What came back. Names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def by_status(_number: int, answer: Answer) -> str | None:
    """The failure that an answer is; None for a status below 400."""
    return f"HTTP {answer.status}" if answer.status >= 400 else None


_Send = Callable[[int], Awaitable[Answer]]
_REACHED = (httpx.HTTPError, aiohttp.ClientError, OSError)


@dataclass(frozen=True)
class HttpRequests:
    """A ``make_worker`` for ``run_load_async``: request n is ``requests[n]``, modulo how many there are.

    A request is what ``httpx.Client.request`` takes: ``{"method": "POST", "url": "/search", "json": {...}}``. It is
    made once: nothing is encoded under load. ``connections`` bounds the connections; with HTTP/2 one carries many
    requests. ``failure`` tells of an answer what kind of failure it is, ``is_short`` that it lacks rows.
    """

    base_url: str
    requests: Sequence[Mapping[str, Any]]
    http2: bool = False
    connections: int = 100
    timeout_seconds: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict)
    failure: Callable[[int, Answer], str | None] = by_status
    is_short: Callable[[Answer], bool] | None = None

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[AsyncWorker]:
        """Open a client. Connections are made when they are needed, and kept."""
        with httpx.Client(base_url=self.base_url, headers=dict(self.headers), trust_env=False) as maker:
            made = [maker.build_request(**one) for one in self.requests]
        opened = self._over_http2(made) if self.http2 else self._over_http1(made)
        async with opened as send:

            async def ask(number: int) -> Outcome:
                try:
                    answer = await send(number % len(made))
                except (*_REACHED, TimeoutError) as error:
                    return Outcome(_kind(error))
                failure = self.failure(number, answer)
                is_short = failure is None and self.is_short is not None and self.is_short(answer)
                return Outcome(failure, is_short, _server_ms(answer))

            yield ask

    @asynccontextmanager
    async def _over_http1(self, made: Sequence[httpx.Request]) -> AsyncIterator[_Send]:
        ready = [
            (
                one.method,
                URL(str(one.url), encoded=True),
                one.content or None,
                {name: value for name, value in one.headers.items() if name not in _OF_THE_CONNECTION},
            )
            for one in made
        ]
        watching = aiohttp.TraceConfig()
        watching.on_request_headers_sent.append(_note_sent)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.connections),
            timeout=aiohttp.ClientTimeout(total=self.timeout_seconds),
            trace_configs=[watching],
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        ) as client:

            async def send(number: int) -> Answer:
                method, url, body, headers = ready[number]
                sent: list[bool] = []
                async with client.request(
                    method, url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=sent
                ) as got:
                    answer = Answer(got.status, _lower(got.headers), await got.read())
                if len(sent) > 1:  # the client tries once more where a kept connection was closed
                    raise aiohttp.ServerDisconnectedError
                return answer

            yield send

    @asynccontextmanager
    async def _over_http2(self, made: Sequence[httpx.Request]) -> AsyncIterator[_Send]:
        async with httpx.AsyncClient(
            http1=False,
            http2=True,
            timeout=self.timeout_seconds,
            limits=httpx.Limits(max_connections=self.connections, max_keepalive_connections=self.connections),
            trust_env=False,
        ) as client:

            async def send(number: int) -> Answer:
                got = await client.send(made[number])
                return Answer(got.status_code, got.headers, got.content)

            yield send


async def _note_sent(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _sent: aiohttp.TraceRequestHeadersSentParams
) -> None:
    context.trace_request_ctx.append(True)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _kind(error: Exception) -> str:
    if isinstance(error, _NOT_MADE):
        return NO_CONNECTION
    return TIME_OUT if isinstance(error, _TOO_LATE) else CONNECTION_LOST


def _server_ms(answer: Answer) -> float | None:
    found = _DURATION.search(answer.headers.get("server-timing", ""))
    return float(found[1]) if found else None
