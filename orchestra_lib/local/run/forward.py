"""Handing an HTTP request on and its answer back, both as streams."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

# https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1
_OF_ONE_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OWN_DEFAULTS = frozenset({"User-Agent", "Accept", "Accept-Encoding", "Content-Type"})
_UPSTREAM_KEPT_SECONDS = 1.0
"""Less than servers keep a connection open (uvicorn: 5 s), so that none is used as the other side closes it."""
LARGEST_BODY_BYTES = 32 << 20
"""Of a request over HTTP/1. https://cloud.google.com/run/quotas#request_limits"""


class UpstreamLost(Exception):
    """The other side was not reached, or hung up.

    ``reached`` says whether a part of the request may have arrived, ``answered`` whether the client has got a part of
    the answer already.
    """

    def __init__(self, message: str, *, reached: bool = True, answered: bool = False) -> None:
        super().__init__(message)
        self.reached, self.answered = reached, answered


def session() -> aiohttp.ClientSession:
    """The client that requests are handed on with: as many connections as there are requests, nothing of its own."""
    watching = aiohttp.TraceConfig()
    watching.on_request_headers_sent.append(_note_sent)
    return aiohttp.ClientSession(
        trace_configs=[watching],
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_UPSTREAM_KEPT_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_OWN_DEFAULTS,
        trust_env=False,
    )


async def _note_sent(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _sent: aiohttp.TraceRequestHeadersSentParams
) -> None:
    context.trace_request_ctx.append(True)


def passed_on(request: web.BaseRequest, changes: Mapping[str, str | None]) -> CIMultiDict[str]:
    """The headers for the other side: without those of one hop, with changes (None takes a header away)."""
    named = {name.strip().lower() for name in request.headers.get("Connection", "").split(",")}
    without = _OF_ONE_HOP | named | {name.lower() for name in changes}
    headers: CIMultiDict[str] = CIMultiDict(
        (name, value) for name, value in request.headers.items() if name.lower() not in without
    )
    peer = request.remote or ""
    before = request.headers.get("X-Forwarded-For")
    headers["X-Forwarded-For"] = f"{before}, {peer}" if before else peer
    headers["X-Forwarded-Proto"] = "http"
    headers.update({name: value for name, value in changes.items() if value is not None})
    return headers


async def hand_on(
    request: web.BaseRequest, client: aiohttp.ClientSession, url: str, headers: CIMultiDict[str]
) -> web.StreamResponse:
    """Send a request to ``url`` and its answer back. Raises UpstreamLost."""
    answer: web.StreamResponse | None = None
    sent: list[bool] = []  # the client may try a second time, on a new connection, what it has sent already
    body = request.content if request.body_exists else None
    try:
        async with client.request(
            request.method,
            URL(url, encoded=True),
            headers=headers,
            data=body,
            allow_redirects=False,
            trace_request_ctx=sent,
        ) as upstream:
            answer = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            for name, value in upstream.headers.items():
                if name.lower() not in _OF_ONE_HOP:
                    answer.headers.add(name, value)
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                await answer.write(chunk)
            await answer.write_eof()
            return answer
    except ConnectionResetError as error:
        if answer is not None and answer.prepared:  # our own client has gone
            return answer
        raise UpstreamLost(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise UpstreamLost(str(error), reached=bool(sent)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamLost(f"{type(error).__name__}: {error}", answered=bool(answer and answer.prepared)) from error
