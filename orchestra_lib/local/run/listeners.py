"""Sockets of loopback addresses, each with the handler of a service, a tag or a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.run import places

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_SHUTDOWN_SECONDS = 8.0
"""For requests in flight when a listener closes."""


class Listeners:
    """What listens now, by address."""

    def __init__(self) -> None:
        self._endings: set[asyncio.Task[None]] = set()
        self._runners: dict[str, tuple[str, web.ServerRunner]] = {}

    async def open(self, address: str, handler: Handler, owner: str) -> None:
        """Listen for an owner, unless that is done already. Raises TargetUnreachable when the port is taken."""
        present, _ = self._runners.get(address, ("", None))
        if present == owner:
            return
        await self.close(address)  # an address may have a new owner
        runner = web.ServerRunner(web.Server(handler, handler_cancellation=True, access_log=None))
        await runner.setup()
        try:
            await web.TCPSite(runner, address, places.PORT, shutdown_timeout=_SHUTDOWN_SECONDS).start()
        except OSError as error:
            await runner.cleanup()
            raise TargetUnreachable(
                f"the local Cloud Run cannot listen on {address}:{places.PORT}: {error.strerror}; free that port"
            ) from error
        self._runners[address] = (owner, runner)

    def keep(self, wanted: Mapping[str, object]) -> None:
        """Close those that are not wanted any more, without waiting for it."""
        for address in [one for one in self._runners if one not in wanted]:
            ending = asyncio.create_task(self.close(address))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)

    async def close(self, address: str) -> None:
        """Stop listening; requests in flight are waited for."""
        _, runner = self._runners.pop(address, ("", None))
        if runner is not None:
            await runner.cleanup()

    async def close_all(self) -> None:
        """Stop listening everywhere."""
        await asyncio.gather(*(self.close(address) for address in tuple(self._runners)), *self._endings)
