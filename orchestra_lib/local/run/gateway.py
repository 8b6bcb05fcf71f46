"""API Gateway's gateway: the paths of a document and no others, handed on with the gateway's own token.

The words of its errors are those of ESPv2, the proxy behind API Gateway.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import id_tokens
from orchestra_lib.local.control_calls import ControlFault
from orchestra_lib.local.run.control_client import ControlClient, Gateway
from orchestra_lib.local.run.forward import UpstreamLost, hand_on, passed_on
from orchestra_lib.local.run.openapi import Backend, Caller, Route, routes_of

_RENEWED_SECONDS = 300
_FORWARDED = "X-Forwarded-Authorization"
_USER_INFO = "X-Apigateway-Api-Userinfo"


class GatewayFront:
    """One gateway with one config. Raises DocumentError when its document cannot be served."""

    def __init__(
        self, gateway: Gateway, control: ControlClient, client: aiohttp.ClientSession, directory: Path
    ) -> None:
        self.gateway = gateway
        self._routes = routes_of(gateway.document)
        self._control, self._client, self._directory = control, client, directory
        self._tokens: dict[str, tuple[str, float]] = {}
        self._counts: Counter[int] = Counter()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        answer = await self._answered(request)
        self._counts[answer.status] += 1
        return answer

    def told(self) -> dict[str, Any]:
        """Its config, its paths, and how many requests were answered with which status."""
        answered = {str(status): count for status, count in sorted(self._counts.items())}
        paths = [route.template for route in self._routes]
        return {"name": self.gateway.name, "config": self.gateway.config, "paths": paths, "answered": answered}

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        route = next((one for one in self._routes if one.pattern.fullmatch(path)), None)
        if route is None:
            return _error(404, "The current request is not defined by this API.")
        if request.method not in route.backends:
            words = f'The current request is matched to the defined url template "{route.template}"'
            return _error(405, f"{words} but its http method is not allowed")
        claims = self._claims(request, route.callers[request.method])
        if claims is None:
            given = "Authorization" in request.headers
            return _error(401, "Jwt verification fails" if given else "Jwt is missing")
        return await self._handed_on(request, route, path, query, claims)

    async def _handed_on(
        self, request: web.BaseRequest, route: Route, path: str, query: str, claims: dict[str, Any]
    ) -> web.StreamResponse:
        backend = route.backends[request.method]
        changes: dict[str, str | None] = {"Host": None, _USER_INFO: None}
        try:
            if backend.audience is not None:
                changes |= {
                    _FORWARDED: request.headers.get("Authorization"),
                    "Authorization": await self._bearer(backend),
                }
        except (ControlFault, TargetUnreachable) as error:
            return _error(500, f"The gateway cannot speak as {self.gateway.service_account}: {error}")
        if claims:
            changes[_USER_INFO] = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
        url = route.url(request.method, path, query)
        try:
            async with asyncio.timeout(backend.deadline_seconds) as limit:
                return await hand_on(request, self._client, url, passed_on(request, changes))
        except UpstreamLost as lost:
            if lost.answered and request.transport is not None:
                request.transport.abort()
            return _error(503, "upstream connect error or disconnect/reset before headers")
        except TimeoutError:
            if not limit.expired():
                raise
            return _error(504, "upstream request timeout")

    def _claims(self, request: web.BaseRequest, callers: tuple[Caller, ...]) -> dict[str, Any] | None:
        """What the caller's token says; empty where none is asked for, None for one that does not count."""
        if not callers:
            return {}
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        found = id_tokens.verified(self._directory, token) if scheme.lower() == "bearer" else None
        if found is None:
            return None
        fits = any(one.issuer == found.claims["iss"] and found.audience in one.audiences for one in callers)
        return found.claims if fits else None

    async def _bearer(self, backend: Backend) -> str:
        audience = backend.audience or ""
        token, until = self._tokens.get(audience, ("", 0.0))
        if until - time.time() < _RENEWED_SECONDS:
            token = await asyncio.to_thread(self._control.id_token, self.gateway.service_account, audience)
            self._tokens[audience] = (token, time.time() + id_tokens.SECONDS)
        return f"Bearer {token}"


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"code": status, "message": message}, status=status)
