"""Pointers to runs that have begun and are not yet sealed: how a run whose process was killed is found again."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestra_lib import paths
from orchestra_lib.lock import is_alive
from orchestra_lib.record import write_atomically


@dataclass(frozen=True)
class OpenRun:
    """A run that was announced: its record, and the process that will seal it."""

    run_id: str
    record: Path
    pid: int
    process_start: float
    host: str

    @property
    def is_elsewhere(self) -> bool:
        """Whether it runs on another host, where only that host can tell whether its process lives."""
        return self.host != platform.node()

    @property
    def is_alive(self) -> bool:
        """Whether its process still runs, as far as this host can tell."""
        return self.is_elsewhere or is_alive(self.pid, self.process_start)


def announce(record_path: Path, run_id: str, pid: int, process_start: float) -> None:
    """Leave a pointer to a run that has begun; sealing the run removes it.

    ``pid`` and ``process_start`` (``lock.process_start``) are of the process that will seal the run: papermill's, or
    the kernel's in JupyterLab. Raises RecordError when the state directory cannot be written.
    """
    path = pointer_path(run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    run = OpenRun(run_id, record_path.resolve(), pid, process_start, platform.node())
    content = json.dumps({**asdict(run), "record": str(run.record)}, indent=1)
    write_atomically(path, (content + "\n").encode())


def open_runs() -> list[OpenRun]:
    """The announced runs that are not sealed, oldest first. A file that is no pointer is passed over."""
    found = []
    for path in sorted((paths.state_directory() / "open").glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
            found.append(OpenRun(**{**content, "record": Path(content["record"])}))
        except (OSError, ValueError, TypeError, KeyError):
            continue  # sealed this very moment, or not ours
    return found


def pointer_path(run_id: str) -> Path:
    """Where the pointer to a run lies while it is open."""
    return paths.state_directory() / "open" / f"{run_id}.json"
