"""What the data plane holds: a listener for each instance that is ready, and the data of those that exist.

It follows the control plane by looking: every second, and whenever somebody asks for an instance's address. So it does
not matter in which order the two start, or which of them was killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.alloydb import places
from orchestra_lib.local.alloydb.authority import Authority
from orchestra_lib.local.alloydb.backend import Backend
from orchestra_lib.local.alloydb.control_client import ControlClient, ControlFault, Instance
from orchestra_lib.local.alloydb.doorkeeper import InstanceDoorkeeper, why_not
from orchestra_lib.local.alloydb.front import PORT, Front

_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Served:
    """An instance that is listened for; ``problem`` says why not, if it cannot be."""

    instance: Instance
    front: Front
    backend: Backend
    problem: str

    def fits(self, now: Instance | None) -> bool:
        """Whether this is still the way to serve the instance."""
        served = self.instance
        same = now is not None and (now.uid, now.address) == (served.uid, served.address) and now.is_serving
        return same and not self.problem


class Plane:
    """What listens now. :meth:`follow` never returns; :meth:`listen` is for one instance, at once."""

    def __init__(self, directory: Path, control: ControlClient) -> None:
        self._directory, self._control = directory, control
        self._served: dict[str, _Served] = {}
        self._lock = asyncio.Lock()
        self._told: dict[str, str] = {}
        self.looked = asyncio.Event()
        """Set when the control plane was looked at for the first time, or did not answer."""

    async def follow(self) -> None:
        """Look at the control plane again and again."""
        while True:
            try:
                await self.look()
                self._tell("control plane", "the control plane answers")
            except (TargetUnreachable, ControlFault) as error:
                self._tell("control plane", f"cannot follow the control plane: {error}")
            self.looked.set()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Listen for every instance that is ready, and for no other; remove the data of those that are gone."""
        async with self._lock:
            instances = {found.name: found for found in await asyncio.to_thread(self._control.instances)}
            for name, served in tuple(self._served.items()):
                if not served.fits(instances.get(name)):
                    await served.front.close()
                    await asyncio.to_thread(served.backend.stop)
                    del self._served[name]
            await self._remove_data_of_the_gone(instances)
            for name, instance in instances.items():
                if instance.is_serving and name not in self._served:
                    await self._serve(instance)

    async def listen(self, name: str) -> None:
        """Return when the instance's listener is there.

        Raises ControlFault (FAILED_PRECONDITION) with the reason when the instance takes no connections.
        """
        await self.look()
        instance = await asyncio.to_thread(self._control.instance, name)
        served = self._served.get(instance.name)
        if served is None or served.problem:
            raise ControlFault("FAILED_PRECONDITION", served.problem if served else why_not(instance))

    async def close(self) -> None:
        """Stop listening and end every session. The servers go on: they are found again."""
        async with self._lock:
            for served in self._served.values():
                await served.front.close()
            self._served.clear()

    async def _serve(self, instance: Instance) -> None:
        cluster = places.cluster_of(instance.name)
        directory = places.cluster_directory(self._directory, cluster)
        authority = await asyncio.to_thread(Authority.open, directory / "authority", cluster)
        backend = Backend(places.data_directory(self._directory, instance.name), instance.name)
        doorkeeper = InstanceDoorkeeper(instance.name, self._directory, self._control, backend)
        front = Front(instance.address, authority.server_certificate(instance.address), doorkeeper)
        problem = ""
        try:
            await front.open()
        except OSError as error:
            problem = f"{instance.name} cannot listen on {instance.address}:{PORT}: {error.strerror}; free that address"
        self._served[instance.name] = _Served(instance, front, backend, problem)
        self._tell(instance.name, problem or f"{instance.name} listens on {instance.address}:{PORT}")

    async def _remove_data_of_the_gone(self, instances: Mapping[str, Instance]) -> None:
        wanted = {places.data_directory(self._directory, name) for name in instances}
        for file in places.home(self._directory).glob("*/PG_VERSION"):
            if file.parent not in wanted:
                _log.info("removing the data of a deleted instance: %s", file.parent)
                await asyncio.to_thread(Backend(file.parent, file.parent.name).remove)

    def _tell(self, about: str, news: str) -> None:
        """Log what is new; a trouble that stays is said once, not every second."""
        if self._told.get(about) != news:
            _log.info("%s", news)
        self._told[about] = news
