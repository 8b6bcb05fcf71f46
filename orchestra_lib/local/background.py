"""A process in the background: started with a log, known again by its pid and birth, ended. It outlives its starter."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from orchestra_lib.errors import TargetUnreachable

_STOP_SECONDS = 15
_POLL_SECONDS = 0.02
State = TypeVar("State")


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    state_of: Callable[[int], State | None],
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
) -> State:
    """Start a command and return its state as soon as ``state_of(pid)`` gives it.

    Raises TargetUnreachable with the last line of the log when it ends or does not get there in time; ``name`` is what
    the message calls it.
    """
    with log.open("ab") as output:
        # A session of its own: the process outlives the command or kernel that started it, and its Ctrl-C.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
        )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := state_of(process.pid)) is not None:
            return found
        if process.poll() is not None:
            raise TargetUnreachable(_last_line(log) or f"{name} ended at its start; see {log}")
        time.sleep(_POLL_SECONDS)
    process.kill()
    raise TargetUnreachable(f"{name} did not start within {seconds:.0f} s; see {log}")


def running(pid: int, born: float) -> psutil.Process | None:
    """The process of that pid if it was born then (seconds since 1970): a pid alone does not name a process."""
    try:
        process = psutil.Process(pid)
        alive = process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if alive else None


def end(pid: int, born: float) -> None:
    """Ask the process of that pid and birth to end, and kill it if it does not; nothing if it is gone."""
    process = running(pid, born)
    if process is None:
        return
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(_STOP_SECONDS)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
