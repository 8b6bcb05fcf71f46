"""What the service does not take: too large a body, too many requests at once, calls of nobody.

ASGI middleware without a base class: each request passes here before anything of it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestra_lib.service.identity import Identities, bearer
from orchestra_lib.service.problems import Problem, response

OPEN_PATHS = frozenset({"/healthz", "/health", "/readyz", "/ready", "/metrics", "/openapi.json"})
"""What may be asked by anybody who gets here; everything else wants a token, also what is not there."""


class Limits:
    """Sheds what is more than ``most`` requests at once, with 503 and when to come again; refuses large bodies."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        most: int,
        body_bytes: int,
        retry_after_seconds: int,
        shed: Callable[[], None] = lambda: None,
    ) -> None:
        self._app, self._most, self._body_bytes = app, most, body_bytes
        self._retry_after, self._shed = retry_after_seconds, shed
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or answer it here."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if self.in_flight >= self._most:
            self._shed()
            busy = Problem(
                "busy",
                f"{self._most} requests are being answered already",
                headers={"Retry-After": str(self._retry_after)},
            )
            await response(busy)(scope, receive, send)
            return
        self.in_flight += 1
        try:
            body = await self._whole(scope, receive)
            await self._app(scope, body, send)
        except Problem as problem:
            await response(problem)(scope, receive, send)
        finally:
            self.in_flight -= 1

    async def _whole(self, scope: Scope, receive: Receive) -> Receive:
        """What gives the body. One whose length is not told in advance is read here, as far as it may go."""
        headers = Headers(scope=scope)
        told = headers.get("content-length")
        if told is not None:
            if int(told) > self._body_bytes:  # the server has checked that it is a number
                raise self._too_large()
            return receive
        if "transfer-encoding" not in headers:
            return receive
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return _once(message, receive)
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._body_bytes:
                raise self._too_large()
            more = message.get("more_body", False)
        return _once({"type": "http.request", "body": b"".join(parts), "more_body": False}, receive)

    def _too_large(self) -> Problem:
        # What is left of the body is not read: the connection ends with the answer.
        return Problem("too-large", f"the body may have {self._body_bytes:,} bytes", headers={"Connection": "close"})


class Authentication:
    """Finds out who calls, and notes it as ``scope["state"]["user"]``; nobody else gets any further."""

    def __init__(self, app: ASGIApp, identities: Identities) -> None:
        self._app, self._identities = app, identities

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on with its user, or refuse it."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                user = await self._identities.user_of(bearer(Headers(scope=scope)))
            except Problem as problem:
                await response(problem)(scope, receive, send)
                return
            scope.setdefault("state", {})["user"] = user
        await self._app(scope, receive, send)


def _once(first: Message, then: Receive) -> Receive:
    pending: list[Any] = [first]

    async def receive() -> Message:
        return pending.pop() if pending else await then()

    return receive
