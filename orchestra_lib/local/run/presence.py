"""Whether a data plane is wanted and whether one runs: two small files, and the process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestra_lib.local import background
from orchestra_lib.local.run import places

_STATE_FILE, _WANTED_FILE = "plane.json", "wanted.json"
IDLE_SECONDS = 900.0
"""How long an instance without requests is kept. https://cloud.google.com/run/docs/about-instance-autoscaling"""


@dataclass(frozen=True)
class Wanted:
    """What a data plane is to be started with. While this is written, the control plane starts one when it needs it."""

    control_url: str
    token_file: str
    idle_seconds: float = IDLE_SECONDS


@dataclass(frozen=True)
class DataPlane:
    """A running data plane: where it tells what it does, and the process."""

    endpoint: str
    control_url: str
    pid: int
    started: float
    """When the process began, seconds since 1970: a pid alone does not name a process."""


def want(directory: Path, wanted: Wanted | None) -> None:
    """Write what a data plane is to be started with; None forgets it."""
    file = places.home(directory) / _WANTED_FILE
    if wanted is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(file, asdict(wanted))


def wanted(directory: Path) -> Wanted | None:
    """What a data plane is to be started with; None if none is wanted."""
    try:
        return Wanted(**json.loads((places.home(directory) / _WANTED_FILE).read_text()))
    except FileNotFoundError:
        return None


def status(directory: Path) -> DataPlane | None:
    """The data plane that runs now; starts nothing."""
    written = _written(directory)
    return written if written and background.running(written.pid, written.started) else None


def last_port(directory: Path) -> int:
    """The port of its endpoint the last time; 0 the first time."""
    written = _written(directory)
    return int(written.endpoint.rpartition(":")[2]) if written else 0


def write_state(directory: Path, endpoint: str, control_url: str) -> None:
    """Say where this process listens, now that it does."""
    me = psutil.Process()
    _write(places.home(directory) / _STATE_FILE, asdict(DataPlane(endpoint, control_url, me.pid, me.create_time())))


def _written(directory: Path) -> DataPlane | None:
    file = places.home(directory) / _STATE_FILE
    return DataPlane(**json.loads(file.read_text())) if file.exists() else None


def _write(file: Path, content: dict[str, Any]) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.replace(file)
