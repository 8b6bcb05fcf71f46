"""Where the choice of an index and its swaps are noted: by environment, and apart for a store that somebody named."""

from __future__ import annotations

import hashlib
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from orchestra_lib.paths import move_journal_path
from orchestra_lib.settings import Settings

_WHERE = ("host", "hostaddr", "port", "dbname")


def tuning_journal(settings: Settings) -> Path:
    """What was learnt about the store's index."""
    return _path(settings, "tuning")


def swap_journal(settings: Settings, phase: str) -> Path:
    """The swaps of the store's index by one phase: what its rollback takes back."""
    return _path(settings, f"index.{phase}")


def drift_notes(settings: Settings) -> Path:
    """The rolling recalls of the drift watch."""
    return _path(settings, "drift").with_suffix(".json")


def _path(settings: Settings, name: str) -> Path:
    dsn = settings.memory.target.dsn
    if dsn is not None:
        # The password and the user may change; the database stays the one whose index it is.
        parameters = conninfo_to_dict(dsn.reveal())
        place = "\n".join(str(parameters.get(key, "")) for key in _WHERE)
        name = f"{name}.{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    return move_journal_path(settings.environment.name, name, local=settings.environment.kind == "local")
