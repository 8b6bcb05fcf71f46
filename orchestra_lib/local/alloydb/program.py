"""Starting and stopping the data plane's process, and finding it again."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from orchestra_lib.local import background, postgres
from orchestra_lib.local.alloydb import places
from orchestra_lib.local.alloydb.backend import Backend
from orchestra_lib.local.alloydb.presence import DataPlane, status

__all__ = ["DataPlane", "down", "installed", "status", "up"]

_LOG_FILE = "plane.log"
_START_SECONDS = 60


def up(directory: Path, control_url: str, token_file: Path, authority: Path) -> DataPlane:
    """Start the data plane for that control plane unless it runs; returns where it is.

    ``authority`` is where the admin door's certificate authority lies. It should outlive the rest: gRPC reads whom it
    trusts once in a process, so a kernel that knew an earlier authority could not connect any more.
    Raises TargetUnreachable with the last line of its log when it does not come up.
    """
    home = places.home(directory)
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "start.lock", timeout=_START_SECONDS):
        found = status(directory)
        if found and found.control_url == control_url:
            return found
        if found:
            background.end(found.pid, found.started)
        return _start(directory, control_url, token_file, authority)


def installed() -> bool:
    """Whether the packages of the connector are here, which the data plane speaks with: the extra ``gcp``."""
    return find_spec("google.cloud.alloydbconnector") is not None


def down(directory: Path) -> tuple[str, ...]:
    """Stop the data plane and every instance's server, data kept; returns the names of what was running."""
    stopped = []
    if found := status(directory):
        background.end(found.pid, found.started)
        stopped.append("alloydb")
    for data in _data_directories(directory):
        if postgres.running(data):
            Backend(data, data.name).stop()
            stopped.append(data.name)
    return tuple(stopped)


def _start(directory: Path, control_url: str, token_file: Path, authority: Path) -> DataPlane:
    command = [sys.executable, "-m", "orchestra_lib.local.alloydb", "--directory", str(directory.absolute())]
    command += ["--control-url", control_url, "--token-file", str(token_file.absolute())]
    command += ["--authority", str(authority.absolute())]
    # The process forks only to start other programs; gRPC would warn at each of them.
    environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"}

    def state_of(pid: int) -> DataPlane | None:
        found = status(directory)
        return found if found and found.pid == pid else None

    log = places.home(directory) / _LOG_FILE
    return background.start(
        "the local AlloyDB", command, log, state_of, seconds=_START_SECONDS, environment=environment
    )


def _data_directories(directory: Path) -> list[Path]:
    home = places.home(directory)
    # What is being restored has a server too, for a while.
    return sorted(file.parent for pattern in ("*", "storage/*/*") for file in home.glob(f"{pattern}/PG_VERSION"))
