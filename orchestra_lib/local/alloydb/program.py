"""Starting and stopping the data plane's process, and finding it again."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
from filelock import FileLock

from orchestra_lib.local import background, postgres
from orchestra_lib.local.alloydb import places

_STATE_FILE, _LOG_FILE = "plane.json", "plane.log"
_START_SECONDS = 60


@dataclass(frozen=True)
class DataPlane:
    """A running data plane: the connector's admin endpoint, and the process."""

    endpoint: str
    ca_file: str
    """The authority that vouches for the endpoint, and the public ones: all that a client's gRPC is to trust."""
    control_url: str
    pid: int
    started: float
    """When the process began, seconds since 1970: a pid alone does not name a process."""


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


def status(directory: Path) -> DataPlane | None:
    """The data plane that runs now; starts nothing."""
    written = _written(directory)
    return written if written and background.running(written.pid, written.started) else None


def down(directory: Path) -> tuple[str, ...]:
    """Stop the data plane and every instance's server, data kept; returns the names of what was running."""
    stopped = []
    if found := status(directory):
        background.end(found.pid, found.started)
        stopped.append("alloydb")
    for data in _data_directories(directory):
        if postgres.running(data):
            postgres.stop(data, f"the server of AlloyDB instance {data.name}")
            stopped.append(data.name)
    return tuple(stopped)


def last_port(directory: Path) -> int:
    """The port of the admin door the last time, so that clients find it again after a restart; 0 the first time."""
    written = _written(directory)
    return int(written.endpoint.rpartition(":")[2]) if written else 0


def write_state(directory: Path, host: str, port: int, ca_file: Path, control_url: str) -> None:
    """Say where this process listens, now that it does."""
    me = psutil.Process()
    state = DataPlane(f"{host}:{port}", str(ca_file), control_url, me.pid, me.create_time())
    file = places.home(directory) / _STATE_FILE
    part = file.with_suffix(".part")
    part.write_text(json.dumps(asdict(state)))
    part.replace(file)


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


def _written(directory: Path) -> DataPlane | None:
    file = places.home(directory) / _STATE_FILE
    return DataPlane(**json.loads(file.read_text())) if file.exists() else None


def _data_directories(directory: Path) -> list[Path]:
    return sorted(file.parent for file in places.home(directory).glob("*/PG_VERSION"))
