"""Reaching the databases that a run is about. The local ones are started through their own program, never imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from orchestra_lib.errors import ParameterError, TargetUnreachable
from orchestra_lib.settings import Settings

_START_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Databases:
    """Connection strings of the store that memories come from and of the one they go to. Used, never shown."""

    source: str
    target: str
    source_is_rehearsal: bool

    def __repr__(self) -> str:
        return f"Databases(source=***, target=***, source_is_rehearsal={self.source_is_rehearsal})"


def databases(settings: Settings) -> Databases:
    """The source and target of an environment; in the local one the databases are started if they are not up.

    Raises ParameterError when an environment on Google Cloud names no database, TargetUnreachable when the local
    ones do not start.
    """
    source, target = settings.memory.source.dsn, settings.memory.target.dsn
    local = settings.environment.kind == "local"
    if not local and (source is None or target is None):
        missing = [name for name, dsn in (("source", source), ("target", target)) if dsn is None]
        raise ParameterError(
            f"environment {settings.environment.name} names no {' and no '.join(missing)} database; "
            f"set {' and '.join(f'memory.{name}.dsn' for name in missing)} in its parameter file"
        )
    started = _start_local() if source is None or target is None else {}
    return Databases(
        source.reveal() if source else started["source"],
        target.reveal() if target else started["target"],
        source_is_rehearsal=source is None,
    )


def _start_local() -> dict[str, str]:
    command = [sys.executable, "-m", "orchestra_lib", "local", "up", "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_START_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise TargetUnreachable(
            f"the local databases did not start within {_START_TIMEOUT_SECONDS} s; "
            "see `python -m orchestra_lib local status` and the log in their directory"
        ) from error
    if done.returncode != 0:
        raise TargetUnreachable(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "local up failed")
    state = json.loads(done.stdout)
    return {name: database["conninfo"] for name, database in state["databases"].items()}
