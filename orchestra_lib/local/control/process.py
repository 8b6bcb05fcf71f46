"""The control plane as a background process: started, found again, stopped. It outlives whoever started it."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import background

DEFAULT_LATENCY = "0.005"
"""Of Google Cloud's, a two-hundredth: a workstation cluster takes 4.5 s, so that waiting is rehearsed too."""
_STATE_FILE, _LOG_FILE, _DIRECTORY = "control.json", "control.log", "control"
_START_SECONDS = 30
_FREE_BYTES_NEEDED = 64 << 20


@dataclass(frozen=True)
class ControlProcess:
    """A running control plane: where it listens, the file with its token, the process."""

    url: str
    token_file: str
    port: int
    pid: int
    started: float
    """When the process began, seconds since 1970: a pid alone does not name a process."""
    state_dir: str


def up(
    state_directory: Path,
    *,
    port: int | None = None,
    latency: str = DEFAULT_LATENCY,
    permissive: bool = False,
    organization: str | None = None,
) -> ControlProcess:
    """Start the control plane unless it runs; returns where it is. ``port`` None takes the last one, or a free one.

    Raises TargetUnreachable with the reason when it does not come up, or when it runs on another port.
    """
    home = _home(state_directory)
    _make(home)
    with FileLock(home / "control.lock", timeout=_START_SECONDS):
        found = status(state_directory)
        if found is None:
            options = ["--latency", latency]
            options += ["--open"] if permissive else []
            options += ["--organization", organization] if organization else []
            return _start(home, port, options)
        if port not in (None, 0, found.port):
            raise TargetUnreachable(
                f"the local Google Cloud runs on port {found.port}, not on {port}; "
                "stop it first: python -m orchestra_lib local down"
            )
        return found


def status(state_directory: Path) -> ControlProcess | None:
    """The control plane that runs now; starts nothing."""
    written = _written(_home(state_directory))
    return written if written and background.running(written.pid, written.started) else None


def down(state_directory: Path) -> tuple[str, ...]:
    """Stop the control plane, data kept; returns its name if it was running."""
    found = status(state_directory)
    if found is None:
        return ()
    background.end(found.pid, found.started)
    return ("control",)


def directory(state_directory: Path) -> Path:
    """Where the control plane keeps what there is, and its data planes what they hold."""
    return _home(state_directory) / _DIRECTORY


def write_state(file: Path, url: str, port: int, token_file: Path) -> None:
    """Say where this process listens, now that it does."""
    me = psutil.Process()
    directory = str(token_file.parent)
    state = ControlProcess(url, str(token_file), port, me.pid, me.create_time(), directory)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(asdict(state), indent=1))
    part.replace(file)


def _home(state_directory: Path) -> Path:
    return state_directory.absolute() / "local"


def _make(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / _DIRECTORY).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise TargetUnreachable(
            f"the local Google Cloud needs the directory {home}, which cannot be made: {error.strerror}; "
            "set ORCHESTRA_STATE_DIR to a directory that you may write to"
        ) from error
    free = shutil.disk_usage(home).free
    if free < _FREE_BYTES_NEEDED:
        raise TargetUnreachable(
            f"the local Google Cloud needs {_FREE_BYTES_NEEDED / 2**20:.0f} MiB of disk in {home}, "
            f"{free / 2**20:.0f} MiB are free; free some or set ORCHESTRA_STATE_DIR to a larger disk"
        )


def _start(home: Path, port: int | None, options: list[str]) -> ControlProcess:
    last = _written(home)
    if port is not None or last is None:
        return _started(home, port or 0, options)
    try:
        return _started(home, last.port, options)
    except TargetUnreachable:
        # Somebody else has the port of the last time by now, and nobody asked for it.
        return _started(home, 0, options)


def _started(home: Path, port: int, options: list[str]) -> ControlProcess:
    command = [sys.executable, "-m", "orchestra_lib.local.control.server", "--directory", str(home / _DIRECTORY)]
    command += ["--port", str(port), "--state-file", str(home / _STATE_FILE), *options]

    def state_of(pid: int) -> ControlProcess | None:
        found = _written(home)
        return found if found and found.pid == pid and background.running(pid, found.started) else None

    return background.start("the local Google Cloud", command, home / _LOG_FILE, state_of, seconds=_START_SECONDS)


def _written(home: Path) -> ControlProcess | None:
    file = home / _STATE_FILE
    return ControlProcess(**json.loads(file.read_text())) if file.exists() else None
