"""Starting and stopping the data plane's process, and finding it again."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from filelock import FileLock

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import background
from orchestra_lib.local.run import leftovers, places, presence
from orchestra_lib.local.run.control_client import ControlClient
from orchestra_lib.local.run.presence import DataPlane, Wanted, status

__all__ = ["DataPlane", "down", "status", "up", "wake", "want"]

_LOG_FILE = "plane.log"
_START_SECONDS = 30


def want(directory: Path, wanted: Wanted) -> DataPlane | None:
    """From now on a data plane starts when there is something to do for it; at once if there is already.

    Returns it if it runs. Raises TargetUnreachable with the last line of its log when it does not come up.
    """
    presence.want(directory, wanted)
    found = status(directory)
    if found or ControlClient(wanted.control_url, Path(wanted.token_file)).snapshot().is_empty:
        return found
    return up(directory)


def up(directory: Path) -> DataPlane:
    """Start the data plane that is wanted, unless it runs; returns where it is. Raises TargetUnreachable."""
    with FileLock(places.home(directory) / "start.lock", timeout=_START_SECONDS):
        wanted = _wanted(directory)
        found = status(directory)
        if found and found.control_url == wanted.control_url:
            return found
        if found:
            background.end(found.pid, found.started)

        def state_of(_pid: int) -> DataPlane | None:
            return status(directory)  # one that the control plane has started counts as well

        return background.start(
            "the local Cloud Run", _command(directory, wanted), _log(directory), state_of, seconds=_START_SECONDS
        )


def wake(directory: Path) -> bool:
    """Whether a data plane is wanted. If so and none runs, one is started, and not waited for."""
    wanted = presence.wanted(directory)
    if wanted is None:
        return False
    if status(directory) is None:
        with _log(directory).open("ab") as output:
            # Two that are started at once do not matter: the second finds the lock taken, and ends.
            process = subprocess.Popen(
                _command(directory, wanted),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # Whoever ends it waits until it is gone, and as our child it is gone only when we have looked.
        threading.Thread(target=process.wait, daemon=True).start()
    return True


def down(directory: Path) -> tuple[str, ...]:
    """Stop the data plane and every instance, and want none; returns the name of what was running."""
    presence.want(directory, None)
    found = status(directory)
    if found:
        background.end(found.pid, found.started)
    leftovers.end_all(directory)
    return ("run",) if found else ()


def _wanted(directory: Path) -> Wanted:
    wanted = presence.wanted(directory)
    if wanted is None:
        raise TargetUnreachable("no local Cloud Run is wanted here; start it with: python -m orchestra_lib local up")
    return wanted


def _command(directory: Path, wanted: Wanted) -> list[str]:
    command = [sys.executable, "-m", "orchestra_lib.local.run", "--directory", str(directory.absolute())]
    command += ["--control-url", wanted.control_url, "--token-file", wanted.token_file]
    return [*command, "--idle-seconds", str(wanted.idle_seconds)]


def _log(directory: Path) -> Path:
    return places.home(directory) / _LOG_FILE
