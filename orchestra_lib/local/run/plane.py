"""What the data plane holds: a router for each service, a front for each gateway, and the builds that are being made.

It follows the control plane by looking, a few times a second. So it does not matter in which order the two start, or
which of them was killed. What an operation waits for is done beside the looking, and reported.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.control_calls import ControlFault
from orchestra_lib.local.run import builds, forward, places
from orchestra_lib.local.run.control_client import (
    PENDING,
    READY,
    ControlClient,
    Gateway,
    Operation,
    Revision,
    Service,
    Snapshot,
)
from orchestra_lib.local.run.gateway import GatewayFront
from orchestra_lib.local.run.instance import StartFailed
from orchestra_lib.local.run.invokers import Invokers
from orchestra_lib.local.run.launcher import Launcher
from orchestra_lib.local.run.listeners import Listeners
from orchestra_lib.local.run.metadata import MetadataServer
from orchestra_lib.local.run.openapi import DocumentError
from orchestra_lib.local.run.pool import Pool
from orchestra_lib.local.run.router import Router, routes_of

_LOOK_SECONDS = 0.25
_log = logging.getLogger(__name__)


class Plane:
    """What is served now. :meth:`open` before, :meth:`follow` never returns, :meth:`close` ends every instance."""

    def __init__(self, directory: Path, control: ControlClient, idle_seconds: float) -> None:
        self._directory, self._control, self._idle_seconds = directory, control, idle_seconds
        self._metadata = MetadataServer(control)
        self._launcher = Launcher(directory, control, self._metadata)
        self._invokers = Invokers(directory, control)
        self._listeners = Listeners()
        self._client: aiohttp.ClientSession | None = None
        self._routers: dict[str, Router] = {}
        self._gateways: dict[str, GatewayFront] = {}
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._told: dict[str, str] = {}
        self._look_again = asyncio.Event()
        self.looked = asyncio.Event()
        """Set when the control plane was looked at for the first time, or did not answer."""

    async def open(self) -> None:
        """Get ready to serve."""
        self._client = forward.session()
        await self._metadata.open()

    async def follow(self) -> None:
        """Look at the control plane again and again."""
        while True:
            self._look_again.clear()
            try:
                await self.look()
                self._tell("control plane", "the control plane answers")
            except (TargetUnreachable, ControlFault) as error:
                self._tell("control plane", f"cannot follow the control plane: {error}")
                for router in self._routers.values():
                    router.follow(router.service)  # what is served goes on being tended
            self.looked.set()
            try:
                await asyncio.wait_for(self._look_again.wait(), _LOOK_SECONDS)
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Serve what has to be served, and begin what operations wait for."""
        # Before the look: a job that ends during it has reported what the look may not show yet.
        self._jobs = {key: job for key, job in self._jobs.items() if not job.done()}
        snapshot = await asyncio.to_thread(self._control.snapshot)
        self._drop(snapshot)
        for service in snapshot.services.values():
            router = self._routers.get(service.name) or self._add(service)
            router.follow(service)
            if service.name not in snapshot.changing:
                # While an operation is open it is its job that routes: what was read here may be older.
                router.route(routes_of(service.routed, service.latest_ready))
        for gateway in snapshot.gateways.values():
            if gateway.name not in snapshot.changing:
                self._try_gateway(gateway)
        await self._listen(snapshot)
        for operation in snapshot.operations:
            if operation.key not in self._jobs:
                self._jobs[operation.key] = asyncio.create_task(self._do(operation, snapshot))

    async def close(self) -> None:
        """Stop listening, then end every instance."""
        for job in self._jobs.values():
            job.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)
        await self._listeners.close_all()
        await asyncio.gather(*(router.close() for router in self._routers.values()), *self._endings)
        await self._metadata.close()
        if self._client:
            await self._client.close()

    # --- what is told and asked at the endpoint -------------------------------------------------------------------

    def told(self) -> dict[str, Any]:
        """What is served, and counts since the start."""
        return {
            "services": [router.told() for _, router in sorted(self._routers.items())],
            "gateways": [front.told() for _, front in sorted(self._gateways.items())],
        }

    def scale_in(self, service: str) -> int | None:
        """End the idle instances of a service above its minimum; returns how many, None without such a service."""
        router = self._routers.get(service)
        return sum(pool.scale_in(0) for pool in router.pools.values()) if router else None

    # --- services and gateways ------------------------------------------------------------------------------------

    def _add(self, service: Service) -> Router:
        def new_pool(revision: Revision) -> Pool:
            return Pool(revision, self._launcher.launch(revision, service.project_number), self._idle_seconds)

        router = Router(service, self._invokers, self._session, new_pool)
        self._routers[service.name] = router
        return router

    def _drop(self, snapshot: Snapshot) -> None:
        for name, router in tuple(self._routers.items()):
            now = snapshot.services.get(name)
            if now is None or now.uid != router.service.uid:
                del self._routers[name]
                ending = asyncio.create_task(router.close())
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)
        for name in set(self._gateways) - set(snapshot.gateways):
            del self._gateways[name]

    def _try_gateway(self, gateway: Gateway) -> None:
        try:
            self._set_gateway(gateway)
        except DocumentError as error:
            self._tell(gateway.name, f"{gateway.name}: {error}")

    def _set_gateway(self, gateway: Gateway) -> None:
        """Serve a gateway's config from the next request on. Raises DocumentError."""
        present = self._gateways.get(gateway.name)
        if present is None or present.gateway != gateway:
            self._gateways[gateway.name] = GatewayFront(gateway, self._control, self._session, self._directory)

    async def _listen(self, snapshot: Snapshot) -> None:
        """Listen at every address that is wanted, and at no other."""
        wanted: dict[str, str] = {}
        for service in snapshot.services.values():
            wanted.update(dict.fromkeys(service.addresses.values(), service.name))
        wanted.update({gateway.address: gateway.name for gateway in snapshot.gateways.values()})
        self._listeners.keep(wanted)
        for service in snapshot.services.values():
            if service.name not in snapshot.changing:
                await self._try_to(service.name, self._listen_for(service))
        for name, front in self._gateways.items():
            if name in snapshot.gateways:
                await self._try_to(name, self._listen_at_gateway(front.gateway))

    async def _try_to(self, name: str, listening: Any) -> None:
        try:
            await listening
        except TargetUnreachable as error:
            self._tell(name, f"{name}: {error}")

    async def _listen_for(self, service: Service) -> None:
        """Raises TargetUnreachable."""
        for tag, address in service.addresses.items():
            await self._listeners.open(address, self._routers[service.name].handler(tag), service.uid)

    async def _listen_at_gateway(self, gateway: Gateway) -> None:
        """Raises TargetUnreachable."""

        async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
            return await self._gateways[gateway.name].answer(request)

        await self._listeners.open(gateway.address, answer, gateway.name)

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            raise RuntimeError("the plane is not open")
        return self._client

    # --- operations -----------------------------------------------------------------------------------------------

    async def _do(self, operation: Operation, snapshot: Snapshot) -> None:
        """Do what an operation waits for and report it."""
        outcome: Mapping[str, Any] | None = None
        problem: str | None = None
        try:
            outcome = await self._done(operation, snapshot)
        except (StartFailed, builds.BuildFailed, DocumentError, TargetUnreachable, ControlFault, OSError) as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - logged, and told as the failure of the operation
            # A defect of ours: the operation that waits has to end, and the log has to say where it was.
            _log.exception("%s: a job failed", operation.subject)
            problem = f"an internal error has occurred: {error!r}"
        _log.info("%s: %s", operation.subject, problem or "done")
        try:
            await asyncio.to_thread(self._control.report, operation.key, problem, outcome)
        except (TargetUnreachable, ControlFault) as error:
            self._tell("control plane", f"cannot report to the control plane: {error}")
        self._look_again.set()

    async def _done(self, operation: Operation, snapshot: Snapshot) -> Mapping[str, Any] | None:
        if operation.build is not None:
            return await asyncio.to_thread(builds.carry_out, operation.build, places.images(self._directory))
        if gateway := snapshot.gateways.get(operation.subject):
            self._set_gateway(gateway)
            await self._listen_at_gateway(gateway)
        elif service := snapshot.services.get(operation.subject):
            await self._roll_out(service)
        return None

    async def _roll_out(self, service: Service) -> None:
        """Start the new revision, if there is one, and then send traffic where it is to go. Raises StartFailed."""
        router = self._routers[service.name]
        newest = service.revisions.get(service.latest_created)
        ready = newest is not None and newest.state == READY
        if newest is not None and newest.state == PENDING:
            try:
                await router.deploy(newest)
            except StartFailed as failed:
                words = f"Revision '{newest.name}' is not ready and cannot serve traffic. {failed}"
                raise StartFailed(words) from failed
            ready = True
        await self._listen_for(service)
        router.route(routes_of(service.asked, service.latest_created if ready else service.latest_ready))

    def _tell(self, about: str, news: str) -> None:
        """Log what is new; a trouble that stays is said once, not at every look."""
        if self._told.get(about) != news:
            _log.info("%s", news)
        self._told[about] = news
