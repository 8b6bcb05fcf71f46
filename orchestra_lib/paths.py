"""Where things lie: the state directory, the runs and the ledger. Each can be moved by an environment variable."""

from __future__ import annotations

import os
from pathlib import Path

from orchestra_lib.settings import root


def state_directory() -> Path:
    """Locks, pointers to open runs and the local target's data: ``$ORCHESTRA_STATE_DIR`` or ``<root>/.orchestra``."""
    return _chosen("ORCHESTRA_STATE_DIR") or root() / ".orchestra"


def runs_directory() -> Path:
    """Runs made outside papermill, and the ledger of all runs: ``$ORCHESTRA_RUNS_DIR`` or ``<root>/runs``."""
    return _chosen("ORCHESTRA_RUNS_DIR") or root() / "runs"


def ledger_path() -> Path:
    """The hash-chained ledger of executed runbooks."""
    return runs_directory() / "ledger.jsonl"


def journal_path(environment: str, phase: str, *, local: bool) -> Path:
    """The journal of a phase's changes in an environment; the local target's goes when the target is reset."""
    home = state_directory() / "local" if local else runs_directory()
    return home / "journal" / f"{environment}.{phase}.jsonl"


def move_journal_path(environment: str, name: str, *, local: bool) -> Path:
    """The journal of a part of the move that is no resource: ``cutover``, ``drills``. Beside those of the phases."""
    return journal_path(environment, name, local=local).parent / "move" / f"{environment}.{name}.jsonl"


def _chosen(variable: str) -> Path | None:
    # An empty value counts as unset: `export ORCHESTRA_RUNS_DIR=` must not scatter records over the working directory.
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None
