"""Which processes are instances: written down as they start, so that those of a plane that was killed are ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

from orchestra_lib.local import background
from orchestra_lib.local.run import places

_FILE = "instances.json"


def write(directory: Path, processes: dict[int, float]) -> None:
    """Keep the instances that there are: pid to birth, in seconds since 1970."""
    file = places.home(directory) / _FILE
    part = file.with_suffix(".part")
    part.write_text(json.dumps(processes))
    part.replace(file)


def end_all(directory: Path) -> int:
    """Kill the instances that were written down and still run; returns how many."""
    file = places.home(directory) / _FILE
    if not file.exists():
        return 0
    written = {int(pid): born for pid, born in json.loads(file.read_text()).items()}
    running = [pid for pid, born in written.items() if background.running(pid, born)]
    for pid in running:
        kill_group(pid)
    file.unlink()
    return len(running)


def kill_group(pid: int) -> None:
    """Kill the process that leads a group, with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
