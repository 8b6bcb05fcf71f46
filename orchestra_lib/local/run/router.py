"""The front of one service: chooses the revision by tag or percentage, lets invokers in, and hands requests on."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from orchestra_lib.local import id_tokens
from orchestra_lib.local.run.control_client import FAILED, READY, Revision, Service, Target
from orchestra_lib.local.run.forward import LARGEST_BODY_BYTES, UpstreamLost, hand_on, passed_on
from orchestra_lib.local.run.invokers import SERVERLESS_HEADER, Invokers
from orchestra_lib.local.run.pool import NoInstance, Pool
from orchestra_lib.local.run.probes import HOST

_SIGNATURE_REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"
_ATTEMPTS, _RETRY_SECONDS = 5, 0.02
"""A process that ends stops listening a moment before its end can be seen."""
NewPool = Callable[[Revision], Pool]


@dataclass(frozen=True)
class Routes:
    """Where requests go: shares by revision (short names), and revisions by tag."""

    shares: Mapping[str, int]
    tags: Mapping[str, str]

    @property
    def revisions(self) -> set[str]:
        """Everything that can be reached."""
        return {*(name for name, percent in self.shares.items() if percent), *self.tags.values()}


def routes_of(targets: tuple[Target, ...], latest: str) -> Routes:
    """The routes that a service's traffic means, with its latest revision that is ready (empty: none)."""
    shares: dict[str, int] = {}
    tags = {}
    for target in targets:
        revision = target.revision or latest
        if not revision:
            continue
        shares[revision] = shares.get(revision, 0) + target.percent
        if target.tag:
            tags[target.tag] = revision
    return Routes(shares, tags)


class Router:
    """One service at its addresses. Changes of routes hold for the next request; those in flight end where they are."""

    def __init__(self, service: Service, invokers: Invokers, client: aiohttp.ClientSession, new_pool: NewPool) -> None:
        self.service = service
        self._invokers, self._client, self._new_pool = invokers, client, new_pool
        self.pools: dict[str, Pool] = {}
        self.routes = Routes({}, {})
        self.routed_at = 0.0
        """When the routes changed last, seconds since 1970."""
        self._endings: set[asyncio.Task[None]] = set()

    # --- what there is to serve -----------------------------------------------------------------------------------

    async def deploy(self, revision: Revision) -> None:
        """Return when an instance of a new revision is ready. Raises StartFailed."""
        await self._pool(revision).ensure_one()

    def follow(self, service: Service) -> None:
        """Take over what changed but the routes; revisions that do not exist any more end."""
        self.service = service
        for name, pool in tuple(self.pools.items()):
            now = service.revisions.get(name)
            if now is None or now.uid != pool.revision.uid or now.state == FAILED:
                del self.pools[name]
                self._end(pool)
        self._set_least()
        for pool in self.pools.values():
            pool.tend()

    def route(self, routes: Routes) -> None:
        """Send requests where ``routes`` says from now on."""
        if routes == self.routes:
            return
        self.routes, self.routed_at = routes, time.time()
        self._set_least()
        for pool in self.pools.values():
            pool.tend()

    async def close(self) -> None:
        """End every instance."""
        for pool in self.pools.values():
            self._end(pool)
        self.pools.clear()
        await asyncio.gather(*self._endings)

    def _end(self, pool: Pool) -> None:
        ending = asyncio.create_task(pool.close())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _pool(self, revision: Revision) -> Pool:
        if revision.name not in self.pools:
            self.pools[revision.name] = self._new_pool(revision)
        return self.pools[revision.name]

    def _set_least(self) -> None:
        """A revision that can be reached keeps its minimum; the service's is shared out as the traffic is.

        https://cloud.google.com/run/docs/configuring/min-instances
        """
        for name in self.routes.revisions:
            if (revision := self.service.revisions.get(name)) and revision.state == READY:
                self._pool(revision)
        for name, pool in self.pools.items():
            own = pool.revision.least if name in self.routes.revisions else 0
            share = math.ceil(self.service.least * self.routes.shares.get(name, 0) / 100)
            pool.least = max(own, share)

    # --- requests -------------------------------------------------------------------------------------------------

    def handler(self, tag: str) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        """What answers at the address of a tag, or at that of the service (empty)."""

        async def answered(request: web.BaseRequest) -> web.StreamResponse:
            refusal = await self._invokers.refusal(request.headers, self.service)
            if refusal is not None:
                challenge = {"WWW-Authenticate": refusal.challenge} if refusal.challenge else None
                return _said(refusal.status, refusal.message, challenge)
            if (request.content_length or 0) > LARGEST_BODY_BYTES:
                return _said(413, f"A request has at most {LARGEST_BODY_BYTES >> 20} MiB.")
            name = self.routes.tags.get(tag) if tag else self._drawn()
            revision = self.service.revisions.get(name) if name else None
            if revision is None:
                return _said(404, "The service has no revision that requests could go to.")
            return await self._served(request, self._pool(revision))

        return answered

    def _drawn(self) -> str | None:
        """A revision by its share."""
        left = random.random() * sum(self.routes.shares.values())  # noqa: S311 - a share of traffic is no secret
        for name, percent in self.routes.shares.items():
            left -= percent
            if left < 0:
                return name
        return None

    async def _served(self, request: web.BaseRequest, pool: Pool) -> web.StreamResponse:
        seconds = pool.revision.timeout_seconds
        try:
            async with asyncio.timeout(seconds) as limit:
                return await self._sent(request, pool)
        except NoInstance as none:
            return _said(none.status, str(none), {"Retry-After": "1"} if none.status == 503 else None)
        except UpstreamLost as lost:
            pool.counts.failed += 1
            if lost.answered:
                return _broken_off(request)
            return _said(503, "The connection to the instance was lost before it answered.")
        except TimeoutError:
            if not limit.expired():
                raise
            pool.counts.failed += 1
            return _said(504, f"The request has been terminated because it has reached the time-out of {seconds:g} s.")

    async def _sent(self, request: web.BaseRequest, pool: Pool) -> web.StreamResponse:
        """Hand a request to an instance; to another one if the first has ended before it got anything."""
        for attempt in range(1, _ATTEMPTS + 1):
            instance = await pool.acquire()
            pool.counts.requests += attempt == 1
            try:
                url = f"http://{HOST}:{instance.port}{request.raw_path}"
                return await hand_on(request, self._client, url, passed_on(request, _changes(request)))
            except UpstreamLost as lost:
                instance.look()
                if lost.reached or attempt == _ATTEMPTS:
                    raise
            finally:
                pool.release(instance)
            await asyncio.sleep(_RETRY_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    def told(self) -> dict[str, Any]:
        """What there is, for a person or a measurement; counts since the data plane started."""
        return {
            "name": self.service.name,
            "shares": dict(self.routes.shares),
            "tags": dict(self.routes.tags),
            "routed_at": self.routed_at,
            "addresses": dict(self.service.addresses),
            "revisions": {name: pool.told() for name, pool in sorted(self.pools.items())},
        }


def _changes(request: web.BaseRequest) -> dict[str, str | None]:
    """The service learns who calls and cannot call others as that one: the signature of an identity is taken away.

    https://cloud.google.com/run/docs/authenticating/service-to-service
    """
    if SERVERLESS_HEADER in request.headers:
        return {SERVERLESS_HEADER: None}
    signed, dot, signature = request.headers.get("Authorization", "").rpartition(".")
    if dot and signature and signed.count(".") == 1 and id_tokens.is_signed(signed):
        return {"Authorization": f"{signed}.{_SIGNATURE_REMOVED}"}
    return {}


def _said(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=f"{message}\n", headers=headers)


def _broken_off(request: web.BaseRequest) -> web.StreamResponse:
    """The answer has begun and cannot be taken back: the client has to see that it is not whole."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)
