"""Reaching the databases that a run is about. The local ones are started through their own program, never imported."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib import local_target
from orchestra_lib.errors import ParameterError
from orchestra_lib.settings import Settings


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
    started = local_target.start()["databases"] if source is None or target is None else {}
    return Databases(
        source.reveal() if source else started["source"]["conninfo"],
        target.reveal() if target else started["target"]["conninfo"],
        source_is_rehearsal=source is None,
    )
