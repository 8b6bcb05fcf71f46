"""Who may come in to one instance: asked of the control plane for each connection, so that nothing is out of date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.alloydb.control_client import ControlClient
from orchestra_lib.local.alloydb.front import Entry, Refused
from orchestra_lib.local.alloydb.servers import Served
from orchestra_lib.local.alloydb.startup import CANNOT_CONNECT_NOW
from orchestra_lib.local.control_calls import ControlFault

_PATIENCE_SECONDS = 25
"""A connector waits for 30 seconds."""


class InstanceDoorkeeper:
    """The doorkeeper of one instance; see ``front.Doorkeeper``. ``serve`` gives the instance's server, in its role."""

    def __init__(self, instance: str, control: ControlClient, serve: Callable[[str], Awaitable[Served]]) -> None:
        self._instance, self._control, self._serve = instance, control, serve

    async def admit(self, token: str | None) -> Entry:
        """Start the server if need be and bring its flags and users up to date."""
        principal = None if token is None else await self.principal(token)
        served = await self._served()
        return Entry(
            served.server,
            frozenset(user.name for user in served.wanted.users if user.is_iam),
            served.wanted.instance.iam_authentication,
            served.unusable,
            principal,
        )

    async def principal(self, token: str) -> str:
        """The e-mail address of the token's holder."""
        try:
            return await asyncio.to_thread(self._control.principal, token)
        except ControlFault as fault:
            raise Refused(f"{fault.status}: {fault.message}") from fault
        except TargetUnreachable as error:
            raise Refused(str(error), CANNOT_CONNECT_NOW) from error

    async def _served(self) -> Served:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._serve(self._instance)
        except ControlFault as fault:
            raise Refused(f"{fault.status}: {fault.message}") from fault
        except TargetUnreachable as error:
            raise Refused(str(error), CANNOT_CONNECT_NOW) from error
        except TimeoutError as error:
            raise Refused(
                f"{self._instance} is still changing its role, or getting its data; connect again", CANNOT_CONNECT_NOW
            ) from error
