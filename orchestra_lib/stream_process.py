"""The stream as a process of its own: it outlives the notebook that started it, and may run for weeks beside it.

``python -m orchestra_lib stream --environment NAME`` is that process; how it stands lies in a file that it writes ten
times a second. A notebook starts it when it does not run, and stops it with SIGTERM: what was not confirmed comes
again.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestra_lib.errors import OrchestraError, TargetUnreachable
from orchestra_lib.memory.stream import Stream
from orchestra_lib.memory.stream_status import StreamStatus
from orchestra_lib.paths import state_directory

_WRITE_SECONDS = 0.1
_START_SECONDS, _STOP_SECONDS = 60.0, 60.0
_POLL_SECONDS = 0.05
_OBJECTS_BETWEEN_COLLECTIONS = 100_000


@dataclass(frozen=True)
class Report:
    """What a stream's process last wrote. ``ended`` is empty while it runs, then says why it ended; ``clean`` whether
    it was asked to. ``metrics`` is why Cloud Monitoring was not told, empty when it was.
    """

    pid: int
    born: float
    status: StreamStatus
    ended: str = ""
    clean: bool = True
    metrics: str = ""

    @property
    def is_running(self) -> bool:
        """Whether that process is there now."""
        try:
            process = psutil.Process(self.pid)
            return process.create_time() == self.born and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def report_path(environment: str) -> Path:
    """Where the stream of an environment says how it stands."""
    return state_directory() / "streams" / f"{environment}.json"


def report(environment: str) -> Report | None:
    """What the stream of an environment last wrote; None when there never was one."""
    try:
        content = json.loads(report_path(environment).read_text())
    except FileNotFoundError:
        return None
    return Report(**{**content, "status": StreamStatus(**content["status"])})


def running(environment: str) -> Report | None:
    """The report of the stream that runs now; None when none does."""
    found = report(environment)
    return found if found is not None and found.is_running else None


def start(environment: str, overrides: Mapping[str, Any]) -> Report:
    """Start the stream of an environment, or find it running; returns once it streams.

    ``overrides`` are parameters of runbook 03. They go to the process through its standard input: connection strings
    must not stand in its command line. Raises TargetUnreachable with its own words when it ends at once.
    """
    found = running(environment)
    if found is not None:
        return found
    path = report_path(environment)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    log = path.with_suffix(".log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestra_lib", "stream", "--environment", environment, "--overrides", "-"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # it outlives the kernel that starts it, and that kernel's Ctrl-C
        )
    assert process.stdin is not None  # noqa: S101 - asked for above
    with process.stdin as given:
        given.write(json.dumps(dict(overrides)).encode())
    return _awaited(environment, process, log)


def _awaited(environment: str, process: subprocess.Popen[bytes], log: Path) -> Report:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        found = report(environment)
        if found is not None and found.status.state == "streaming":
            return found
        if process.poll() is not None:
            said = found.ended if found and found.ended else _last_line(log)
            raise TargetUnreachable(f"the stream ended at its start: {said}")
        time.sleep(_POLL_SECONDS)
    said = found.status.trouble if found else _last_line(log)
    raise TargetUnreachable(f"the stream does not come up within {_START_SECONDS:.0f} s: {said or f'see {log}'}")


def stop(environment: str) -> bool:
    """Stop the stream of an environment and wait until it has ended; returns whether one ran.

    One that does not end in time is killed: what was not confirmed comes again.
    """
    found = running(environment)
    if found is None:
        return False
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(found.pid)
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)
    return True


def wait_for(environment: str, lsn: int, timeout_seconds: float) -> bool:
    """Whether the stream of an environment has brought everything before ``lsn``, once waited for.

    Raises TargetUnreachable when it has ended.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = report(environment)
        if found is not None and found.status.applied_lsn >= lsn:
            return True
        if found is None or not found.is_running:
            raise TargetUnreachable(f"the stream does not run: {(found and found.ended) or 'it was killed'}")
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)


def serve(environment: str, stream: Stream, tell: Callable[[StreamStatus], str] = lambda _status: "") -> int:
    """Run the stream in this process until SIGTERM or Ctrl-C; returns the exit code.

    ``tell`` is called with the status as often as it is written, and returns what is wrong with telling it.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    path = report_path(environment)
    path.parent.mkdir(parents=True, exist_ok=True)
    failures: list[OrchestraError] = []

    def run() -> None:
        try:
            stream.run(stop)
        except OrchestraError as error:
            failures.append(error)

    calm_collector()
    born = psutil.Process().create_time()
    thread = threading.Thread(target=run, name="stream")
    thread.start()
    while thread.is_alive():
        status = stream.status()
        _write(path, Report(os.getpid(), born, status, metrics=tell(status)))
        thread.join(_WRITE_SECONDS)
    said = str(failures[0]) if failures else "asked to stop" if stop.is_set() else "a defect: see the log"
    clean = not failures and stop.is_set()
    _write(path, Report(os.getpid(), born, stream.status(), said, clean))
    if failures:
        sys.stderr.write(f"{said}\n")
        return failures[0].exit_code
    return 0 if clean else 1


def calm_collector() -> None:
    """Have Python look for garbage rarely in this process.

    A change is some twenty objects and no cycle among them; to look through those of two batches again and again took
    a third of the reading thread's time (9 of 30 microseconds a row, 2026-11-25).
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def _write(path: Path, content: Report) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(content)))
    part.replace(path)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else ""
