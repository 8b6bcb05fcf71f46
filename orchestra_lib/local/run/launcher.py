"""Starts the instances of revisions, and keeps the list of their processes on disk while they run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from orchestra_lib.local.run import containers, leftovers
from orchestra_lib.local.run.control_client import ControlClient, Revision
from orchestra_lib.local.run.instance import Instance, StartFailed, log_end
from orchestra_lib.local.run.metadata import MetadataServer
from orchestra_lib.local.run.pool import Launch
from orchestra_lib.local.run.probes import ProbeFailed, probe_of

_log = logging.getLogger(__name__)


class Launcher:
    """Starts instances for every pool of a data plane."""

    def __init__(self, directory: Path, control: ControlClient, metadata: MetadataServer) -> None:
        self._directory, self._control, self._metadata = directory, control, metadata
        self._running: dict[int, float] = {}
        self._warned: set[str] = set()

    def launch(self, revision: Revision, project_number: str) -> Launch:
        """What a pool starts its instances with."""

        async def started(ended: Callable[[Instance], None]) -> Instance:
            return await self._start(revision, project_number, ended)

        return started

    async def _start(self, revision: Revision, project_number: str, ended: Callable[[Instance], None]) -> Instance:
        try:
            probe = probe_of(revision.container)
        except ProbeFailed as failed:
            raise StartFailed(str(failed)) from failed
        host = self._metadata.host_for(revision, project_number)
        command = await asyncio.to_thread(containers.command_of, revision, self._directory, host, self._control.secret)

        def gone(instance: Instance) -> None:
            self._running.pop(instance.pid, None)
            leftovers.write(self._directory, self._running)
            ended(instance)

        instance = await Instance.start(command, gone)
        self._running[instance.pid] = instance.born
        leftovers.write(self._directory, self._running)
        try:
            await instance.become_ready(probe)
        except StartFailed as failed:
            said = log_end(command.log)
            words = f"{failed} The end of {command.log}: {said}" if said else f"{failed} Nothing is in {command.log}."
            raise StartFailed(words) from failed
        if revision.name not in self._warned and instance.listens_everywhere:
            self._warned.add(revision.name)
            _log.warning(
                "revision %s listens on every address: it is reached past the check of invokers", revision.name
            )
        return instance
