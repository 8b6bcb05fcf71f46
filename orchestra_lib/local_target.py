"""The local target, reached as others reach it: started through its own program, never imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from orchestra_lib.errors import TargetUnreachable

PYTHON_VARIABLE = "ORCHESTRA_LOCAL_PYTHON"
"""Names the Python that has the local target's program, for one that has not, as Apache Beam's."""
_START_TIMEOUT_SECONDS = 120
_INSTANCE_TIMEOUT_SECONDS = 900
"""An instance's server may have to be copied or restored first."""


def start() -> dict[str, Any]:
    """Start what does not run of the local target; returns its state as ``local up --json`` prints it.

    Raises TargetUnreachable, with the program's own reason, when it does not start.
    """
    return _answer("up", seconds=_START_TIMEOUT_SECONDS, late="the local target did not start")


def instance(name: str) -> dict[str, Any]:
    """Where the server of a local AlloyDB instance listens, once it serves; ``name`` is the full resource name.

    ``{"instance", "socket_directory", "port", "role", "pid"}``, with ``role`` PRIMARY, SECONDARY or READ_POOL. Whoever
    runs the local target is each of the instance's IAM users there. Raises TargetUnreachable with the program's reason.
    """
    late = f"AlloyDB instance {name} did not serve"
    return _answer("instance", name, seconds=_INSTANCE_TIMEOUT_SECONDS, late=late)


def _answer(action: str, *arguments: str, seconds: float, late: str) -> dict[str, Any]:
    python = os.environ.get(PYTHON_VARIABLE) or sys.executable
    command = [python, "-m", "orchestra_lib", "local", action, *arguments, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise TargetUnreachable(
            f"{late} within {seconds:.0f} s; see `python -m orchestra_lib local status` and the logs in its directory"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise TargetUnreachable(lines[-1] if lines else f"local {action} failed")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
