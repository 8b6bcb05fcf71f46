"""What the data plane holds: a listener for each instance that is ready, its server in its role, and no data of others.

It follows the control plane by looking: a few times a second, and whenever somebody connects. So it does not matter in
which order the two start, or which of them was killed. What takes long is done beside the looking, and reported to the
control plane where an operation waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.alloydb import leftovers, places
from orchestra_lib.local.alloydb.authority import Authority
from orchestra_lib.local.alloydb.control_client import ControlClient, Instance, Snapshot
from orchestra_lib.local.alloydb.doorkeeper import InstanceDoorkeeper
from orchestra_lib.local.alloydb.front import PORT, Front
from orchestra_lib.local.alloydb.jobs import Job, jobs_of
from orchestra_lib.local.alloydb.servers import Served, Servers
from orchestra_lib.local.alloydb.wanted import wanted_of
from orchestra_lib.local.control_calls import ControlFault

_LOOK_SECONDS = 0.25
_BECOMING_SECONDS = 600
_BECOMING = frozenset({"BOOTSTRAPPING", "CREATING"})
_THREADS = 32
"""Connections that wait for a server, and jobs: each takes one while it lasts."""
_log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Listened:
    """An instance that is listened for; ``problem`` says why not, if it cannot be."""

    instance: Instance
    front: Front
    problem: str

    def fits(self, now: Instance | None) -> bool:
        """Whether this is still the way to serve the instance."""
        served = self.instance
        same = now is not None and (now.uid, now.address) == (served.uid, served.address) and now.is_serving
        return same and not self.problem


class Plane:
    """What listens now. :meth:`follow` never returns; :meth:`listen` and :meth:`serve` are for one instance."""

    def __init__(self, directory: Path, control: ControlClient) -> None:
        self._directory, self._control = directory, control
        self._servers = Servers(directory)
        self._threads = ThreadPoolExecutor(_THREADS, "servers")
        self._listened: dict[str, _Listened] = {}
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._lock, self._seeing = asyncio.Lock(), asyncio.Lock()
        self._look_again = asyncio.Event()
        self._told: dict[str, str] = {}
        self.looked = asyncio.Event()
        """Set when the control plane was looked at for the first time, or did not answer."""

    async def follow(self) -> None:
        """Look at the control plane again and again."""
        while True:
            self._look_again.clear()
            try:
                await self.look()
                self._tell("control plane", "the control plane answers")
            except (TargetUnreachable, ControlFault) as error:
                self._tell("control plane", f"cannot follow the control plane: {error}")
            self.looked.set()
            try:
                await asyncio.wait_for(self._look_again.wait(), _LOOK_SECONDS)
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Listen for every instance that is ready, and for no other; remove what is gone; begin what is to be done."""
        async with self._lock:
            # Before the look: what begins to exist after it must not be taken for a left-over.
            present = await asyncio.to_thread(leftovers.present, self._directory)
            snapshot = await self._see()
            for name, listened in tuple(self._listened.items()):
                if not listened.fits(snapshot.instances.get(name)):
                    await listened.front.close()
                    await self._in_thread(self._servers.backend(name).stop)
                    del self._listened[name]
            await self._in_thread(lambda: leftovers.remove(present, snapshot, self._directory))
            for name, instance in snapshot.instances.items():
                if instance.is_serving and name not in self._listened:
                    await self._open(instance)
            await self._begin_jobs(snapshot)

    async def listen(self, name: str) -> None:
        """Return when the instance's listener is there.

        Raises ControlFault (FAILED_PRECONDITION) with the reason when the instance takes no connections.
        """
        await self.look()
        name = await asyncio.to_thread(self._control.full_name, name)
        listened = self._listened.get(name)
        if listened is None or listened.problem:
            wanted = self._servers.wanted.get(name)
            reason = why_not(wanted.instance) if wanted else f"{name} does not exist any more"
            raise ControlFault("FAILED_PRECONDITION", listened.problem if listened else reason)

    async def serve(self, name: str) -> Served:
        """The instance's server as it has to be at this moment; waits for a change of its role, or of its data.

        Raises TargetUnreachable with the reason, ControlFault when the control plane refuses to be looked at.
        """
        await self._see()
        wanted = self._servers.wanted.get(name)
        if wanted is None:
            raise TargetUnreachable(f"{name} does not exist any more")
        if not wanted.instance.is_serving:
            raise TargetUnreachable(why_not(wanted.instance))
        try:
            return await self._in_thread(lambda: self._servers.serve(name))
        except (psycopg.Error, OSError) as error:
            raise TargetUnreachable(str(error)) from error

    async def locate(self, name: str) -> dict[str, Any]:
        """Where an instance's own socket is, once it serves; waits for one that is being made.

        Raises TargetUnreachable.
        """
        try:
            name = await asyncio.to_thread(self._control.full_name, name)
            await self._made(name)
            served = await self.serve(name)
        except ControlFault as fault:
            raise TargetUnreachable(fault.message) from fault
        except TimeoutError as error:
            raise TargetUnreachable(f"{name} has not been made within {_BECOMING_SECONDS} s") from error
        return {
            "instance": name,
            "socket_directory": served.server.socket_directory,
            "port": postgres.PORT,
            "role": served.wanted.role,
            "pid": served.server.pid,
        }

    async def close(self) -> None:
        """Stop listening and end every session. The servers go on: they are found again."""
        async with self._lock:
            for job in self._jobs.values():
                job.cancel()
            for listened in self._listened.values():
                await listened.front.close()
            self._listened.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _made(self, name: str) -> None:
        """Return when the instance is not being made any more."""
        async with asyncio.timeout(_BECOMING_SECONDS):
            await self._see()
            while (wanted := self._servers.wanted.get(name)) and wanted.instance.state in _BECOMING:
                await asyncio.sleep(_LOOK_SECONDS)
                await self._see()

    async def _see(self) -> Snapshot:
        """What has to be now. One after the other, so that none puts an older state in the place of a newer one."""
        async with self._seeing:
            snapshot = await asyncio.to_thread(self._control.snapshot)
            self._servers.wanted = wanted_of(snapshot)
        return snapshot

    async def _open(self, instance: Instance) -> None:
        cluster = places.cluster_of(instance.name)
        directory = places.cluster_directory(self._directory, cluster)
        authority = await asyncio.to_thread(Authority.open, directory / "authority", cluster)
        doorkeeper = InstanceDoorkeeper(instance.name, self._control, self.serve)
        front = Front(instance.address, authority.server_certificate(instance.address), doorkeeper)
        problem = ""
        try:
            await front.open()
        except OSError as error:
            problem = f"{instance.name} cannot listen on {instance.address}:{PORT}: {error.strerror}; free that address"
        self._listened[instance.name] = _Listened(instance, front, problem)
        self._tell(instance.name, problem or f"{instance.name} listens on {instance.address}:{PORT}")

    # --- jobs -----------------------------------------------------------------------------------------------------

    async def _begin_jobs(self, snapshot: Snapshot) -> None:
        self._jobs = {key: job for key, job in self._jobs.items() if not job.done()}
        for job in await self._in_thread(lambda: list(jobs_of(snapshot, self._servers))):
            if job.key not in self._jobs:
                self._jobs[job.key] = asyncio.create_task(self._do(job))

    async def _do(self, job: Job) -> None:
        """Do one job and report it; what goes wrong is told, and tried again at the next look if nobody waits."""
        problem = await self._problem_of(job)
        if problem is not None:
            self._tell(job.key, f"{job.about}: {problem}")
        elif job.operation:
            _log.info("%s: what %s waited for is done", job.about, job.operation.rpartition("/")[2])
        if job.operation:
            try:
                await asyncio.to_thread(self._control.report, job.operation, problem)
            except (TargetUnreachable, ControlFault) as error:
                self._tell("control plane", f"cannot report to the control plane: {error}")
                return
        if problem is None:
            self._look_again.set()

    async def _problem_of(self, job: Job) -> str | None:
        try:
            await self._in_thread(job.work)
        except (TargetUnreachable, psycopg.Error, OSError) as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - logged, and told as the failure of the operation
            # A defect of ours: the operation that waits has to end, and the log has to say where it was.
            _log.exception("%s: a job failed", job.about)
            return f"an internal error has occurred: {error!r}"
        return None

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _tell(self, about: str, news: str) -> None:
        """Log what is new; a trouble that stays is said once, not at every look."""
        if self._told.get(about) != news:
            _log.info("%s", news)
        self._told[about] = news


def why_not(instance: Instance) -> str:
    """Why an instance takes no connections, and what to do."""
    return f"{instance.name} is {instance.state}; wait until it is READY"
