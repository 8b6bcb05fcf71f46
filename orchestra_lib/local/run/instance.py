"""One instance of a revision: a process with a port of its own, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestra_lib.local.run import leftovers
from orchestra_lib.local.run.probes import HOST, Probe, ProbeFailed, passed

_GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL. https://cloud.google.com/run/docs/container-contract#instance-shutdown"""
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - looked for, not listened on


class StartFailed(Exception):
    """An instance did not become ready; the message is for whoever deployed it."""


@dataclass(frozen=True)
class Command:
    """What is run: ``environment`` is all of it but ``PORT``."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    working_directory: Path
    log: Path


class Instance:
    """A running process. ``in_flight`` is counted by who sends requests; ``ended`` is called when it is gone."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, ended: Callable[[Instance], None]) -> None:
        self._process, self.port = process, port
        self.started = time.time()
        self.born = _born(process.pid)
        self.ready = False
        self.stopping = False
        self.in_flight = 0
        self.served = 0
        self.idle_since = time.monotonic()
        self.startup_seconds: float | None = None
        self.gone = asyncio.create_task(self._watch(ended))

    @classmethod
    async def start(cls, command: Command, ended: Callable[[Instance], None]) -> Instance:
        """A new process, not ready yet. Raises StartFailed when the command cannot be run."""
        port = _free_port()
        try:
            with command.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *command.arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**command.environment, "PORT": str(port)},
                    cwd=command.working_directory,
                    start_new_session=True,
                )
        except OSError as error:
            raise StartFailed(f"Application failed to start: {command.arguments[0]}: {error.strerror}.") from error
        return cls(process, port, ended)

    @property
    def pid(self) -> int:
        """Of the command's own process."""
        return self._process.pid

    def look(self) -> None:
        """See at once whether the process has ended: who lost its connection cannot wait until that is told."""
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            ended = True
        self.ready = self.ready and not ended

    @property
    def memory_bytes(self) -> int:
        """The resident memory of the process and its children; 0 when it is gone."""
        try:
            leader = psutil.Process(self.pid)
            return sum(one.memory_info().rss for one in (leader, *leader.children(recursive=True)))
        except psutil.Error:
            return 0

    @property
    def listens_everywhere(self) -> bool:
        """Whether the process, or a child, listens on every address of this machine: past the check of invokers."""
        try:
            leader = psutil.Process(self.pid)
            sockets = [
                one for process in (leader, *leader.children(recursive=True)) for one in process.net_connections()
            ]
        except psutil.Error:
            return False
        return any(one.status == psutil.CONN_LISTEN and one.laddr.ip in _EVERYWHERE for one in sockets)

    async def become_ready(self, probe: Probe) -> None:
        """Return when the startup probe has passed. Raises StartFailed, with the process gone, when it does not."""
        begun = time.monotonic()
        probing = asyncio.create_task(passed(probe, self.port))
        try:
            await asyncio.wait((probing, self.gone), return_when=asyncio.FIRST_COMPLETED)
            if self.gone.done():
                raise StartFailed(f"Container called exit({self._process.returncode}).")
            probing.result()
        except ProbeFailed as failed:
            await self.stop()
            raise StartFailed(str(failed)) from failed
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            probing.cancel()
            with contextlib.suppress(asyncio.CancelledError, ProbeFailed):
                await probing
        self.startup_seconds = time.monotonic() - begun
        self.ready = not self.stopping
        self.idle_since = time.monotonic()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL ten seconds later for what is left; returns when it is gone."""
        self.stopping, self.ready = True, False
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.gone), _GRACE_SECONDS)
        leftovers.kill_group(self.pid)
        await asyncio.shield(self.gone)

    async def _watch(self, ended: Callable[[Instance], None]) -> None:
        await self._process.wait()
        leftovers.kill_group(self.pid)  # what the command has started goes with it, as a container does
        self.ready = False
        ended(self)


def _born(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0  # gone already; the watch sees it


def _free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.socket() as probing:
        probing.bind((HOST, 0))
        return int(probing.getsockname()[1])


def log_end(log: Path, lines: int = 5) -> str:
    """The last lines of a log, in one; what a person would look at first."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            return " | ".join(file.read().decode(errors="replace").strip().splitlines()[-lines:])
    except OSError:
        return ""
