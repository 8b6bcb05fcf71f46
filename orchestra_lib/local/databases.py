"""The local databases: real PostgreSQL 16 servers beside AlloyDB, first of all "today's" memory store.

Their data lies in the state directory: removing that removes them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import postgres
from orchestra_lib.local.postgres import Running

NAMES = ("source",)
"""What the local target has; tests and benchmarks make others beside it."""
# A store that is to be followed while it moves, with a limit on what it keeps for whoever follows it.
SETTINGS = {
    **postgres.SETTINGS,
    "wal_level": "logical",
    "max_slot_wal_keep_size": "2GB",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
}
# An empty cluster takes 40 MB, its first WAL segments and temporary files some more.
FREE_BYTES_NEEDED = 1 << 30


@dataclass(frozen=True)
class Database:
    """One running server: where to connect and which process serves it."""

    name: str
    conninfo: str
    pid: int
    data_directory: str


@dataclass(frozen=True)
class LocalState:
    """The databases that are up, and the directory that holds everything of them."""

    state_dir: str
    databases: dict[str, Database]

    def as_json(self) -> str:
        """The state as one JSON object: ``{"state_dir": ..., "databases": {name: {...}}}``."""
        return json.dumps(asdict(self), indent=1)


def up(state_directory: Path, names: Sequence[str] = NAMES) -> LocalState:
    """Start what is not running and return where it is. Running servers are found again, not restarted.

    Raises TargetUnreachable when there is no room or no permission, or when a server does not come up.
    """
    directory = _make_directory(state_directory, names)
    with _one_at_a_time(directory):
        return LocalState(str(directory), {name: _start(directory, name) for name in names})


def status(state_directory: Path, names: Sequence[str] = NAMES) -> LocalState:
    """The databases that are running now; starts nothing."""
    directory = state_directory / "local"
    running = {name: database for name in names if (database := _running(directory, name))}
    return LocalState(str(directory), running)


def down(state_directory: Path) -> tuple[str, ...]:
    """Stop every running server, data kept; returns their names. Raises TargetUnreachable if one will not stop."""
    directory = state_directory / "local"
    if not directory.exists():
        return ()
    with _one_at_a_time(directory):
        present = sorted(file.parent.name for file in directory.glob("*/PG_VERSION"))
        running = [name for name in present if _running(directory, name)]
        for name in running:
            postgres.stop(directory / name, _called(name))
    return tuple(running)


def reset(state_directory: Path) -> tuple[str, ...]:
    """Stop the servers and delete their data; returns the names of those that were running."""
    stopped = down(state_directory)
    shutil.rmtree(state_directory / "local", ignore_errors=False) if (state_directory / "local").exists() else None
    return stopped


def _make_directory(state_directory: Path, names: Sequence[str]) -> Path:
    directory = state_directory / "local"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetUnreachable(
            f"the local databases need the directory {directory}, which cannot be made: {error.strerror}; "
            "set ORCHESTRA_STATE_DIR to a directory that you may write to"
        ) from error
    free = shutil.disk_usage(directory).free
    if free < FREE_BYTES_NEEDED and not all((directory / name / "PG_VERSION").exists() for name in names):
        raise TargetUnreachable(
            f"the local databases need {FREE_BYTES_NEEDED / 2**20:,.0f} MiB of disk in {directory}, "
            f"{free / 2**20:,.0f} MiB are free; free some or set ORCHESTRA_STATE_DIR to a larger disk"
        )
    return directory


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    with FileLock(directory / "databases.lock", timeout=60):
        yield


def _start(directory: Path, name: str) -> Database:
    server = postgres.start(directory / name, _called(name), SETTINGS)
    return _database(directory, name, server)


def _running(directory: Path, name: str) -> Database | None:
    server = postgres.running(directory / name)
    return _database(directory, name, server) if server else None


def _database(directory: Path, name: str, server: Running) -> Database:
    return Database(name, server.conninfo(), server.pid, str(directory / name))


def _called(name: str) -> str:
    return f"the local {name} database"
