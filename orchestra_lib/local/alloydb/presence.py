"""Whether a data plane runs, and where: the file that it writes when it listens, and its process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from orchestra_lib.local import background
from orchestra_lib.local.alloydb import places

_STATE_FILE = "plane.json"


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


def status(directory: Path) -> DataPlane | None:
    """The data plane that runs now; starts nothing."""
    written = _written(directory)
    return written if written and background.running(written.pid, written.started) else None


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


def _written(directory: Path) -> DataPlane | None:
    file = places.home(directory) / _STATE_FILE
    return DataPlane(**json.loads(file.read_text())) if file.exists() else None
