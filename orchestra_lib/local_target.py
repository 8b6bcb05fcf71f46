"""The local target, reached as others reach it: started through its own program, never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from orchestra_lib.errors import TargetUnreachable

_START_TIMEOUT_SECONDS = 120


def start() -> dict[str, Any]:
    """Start what does not run of the local target; returns its state as ``local up --json`` prints it.

    Raises TargetUnreachable, with the program's own reason, when it does not start.
    """
    command = [sys.executable, "-m", "orchestra_lib", "local", "up", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_START_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise TargetUnreachable(
            f"the local target did not start within {_START_TIMEOUT_SECONDS} s; "
            "see `python -m orchestra_lib local status` and the logs in its directory"
        ) from error
    if done.returncode != 0:
        raise TargetUnreachable(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "local up failed")
    state: dict[str, Any] = json.loads(done.stdout)
    return state
