"""The endpoint for programs of this machine: what is served, by revision, and idle instances ended at once.

``GET /services`` and ``POST /scale-down`` with ``{"service": "projects/…/services/…"}``, with the operator's token.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

from aiohttp import web

from orchestra_lib.local.run.control_client import ControlClient
from orchestra_lib.local.run.plane import Plane
from orchestra_lib.local.run.probes import HOST


class Door:
    """The listening endpoint of a plane."""

    def __init__(self, plane: Plane, control: ControlClient) -> None:
        self._plane, self._control = plane, control
        self._runner: web.AppRunner | None = None

    async def open(self, port: int) -> str:
        """Listen on a port (that of the last time) or, if it is taken, on a free one; returns the endpoint."""
        application = web.Application(middlewares=[self._checked])
        application.router.add_get("/services", self._services)
        application.router.add_post("/scale-down", self._scale_down)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, port).start()
        except OSError:
            await web.TCPSite(self._runner, HOST, 0).start()
        return f"http://{HOST}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """Stop listening."""
        if self._runner:
            await self._runner.cleanup()

    @web.middleware
    async def _checked(self, request: web.Request, handler: Any) -> web.StreamResponse:
        wanted = f"Bearer {await asyncio.to_thread(self._control.own_token)}"
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), wanted.encode()):
            return web.json_response({"error": "the operator's token is wanted"}, status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _services(self, _request: web.Request) -> web.Response:
        return web.json_response(self._plane.told())

    async def _scale_down(self, request: web.Request) -> web.Response:
        try:
            service = str((await request.json())["service"])
        except (ValueError, KeyError, TypeError):
            return web.json_response({"error": 'the body has to be {"service": "projects/…/services/…"}'}, status=400)
        ended = self._plane.scale_in(service)
        if ended is None:
            return web.json_response({"error": f"there is no service {service}"}, status=404)
        return web.json_response({"ended": ended})
