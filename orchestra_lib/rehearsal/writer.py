"""A small load on the memory store whose every write is in a ledger: what a migration may not lose a row of.

    python -m orchestra_lib.rehearsal.writer --route FILE --ledger FILE [--per-second 1000] [--seconds 60]

The load is open: writes have intended starts, and one that waits counts from there. Each is a transaction of its own.
A key belongs to one session, so its writes have an order. Where it writes is asked of a route again whenever a write is
refused or a connection lost: so the writer follows a cutover by itself. Interrupted or terminated, it ends in order and
prints its report as JSON. One that another program started ends with that program, however that ended.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestra_lib.database import Address
from orchestra_lib.errors import DataError, OrchestraError, TargetUnreachable
from orchestra_lib.rehearsal.caller import Caller, Keys, Load, Places, Route
from orchestra_lib.rehearsal.ledger import Ledger, lives_of, standing
from orchestra_lib.rehearsal.load_report import Report, report
from orchestra_lib.rehearsal.written import Mix

__all__ = ["Load", "Report", "Route", "WriterProcess", "file_route", "report", "write", "writer_process"]

_STOP_SECONDS = 30


def file_route(path: Path) -> Route:
    """The route of a file that holds a connection string; whoever writes the file anew switches the writer."""

    def address() -> Address:
        try:
            return path.read_text().strip()
        except OSError as error:
            raise TargetUnreachable(f"the writer's route {path} cannot be read: {error.strerror}") from error

    return address


def write(load: Load, route: Route, ledger: Path, stop: threading.Event, seconds: float | None = None) -> Report:
    """Write until ``stop`` is set or the time is over, in threads; returns the report of the whole ledger.

    A ledger that exists is gone on with: what is in doubt is looked up first. Raises DataError when the table cannot be
    written to for a reason that waiting does not heal.
    """
    own_stop = threading.Event()
    with Ledger(ledger, load.seed, load.mix) as book:
        callers = _callers(load, route, book)
        threads = [threading.Thread(target=caller.run, args=[own_stop], name="writer") for caller in callers]
        for thread in threads:
            thread.start()
        ends = time.monotonic() + seconds if seconds is not None else float("inf")
        while time.monotonic() < ends and not stop.is_set() and all(thread.is_alive() for thread in threads):
            stop.wait(min(0.1, max(0.0, ends - time.monotonic())))
        own_stop.set()
        for thread in threads:
            thread.join()
    for caller in callers:
        if caller.error is not None:
            raise caller.error
    return report(ledger)


class WriterProcess:
    """A writer in a process of its own: it takes no time from ours, and it can be killed. It ends when ours does."""

    def __init__(self, process: subprocess.Popen[str], ledger: Path) -> None:
        self._process, self.ledger = process, ledger

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def stop(self) -> Report:
        """Let it end in order; returns its report. Raises DataError with its last line when it failed."""
        self._process.terminate()
        try:
            _, errors = self._process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise DataError(f"the writer {self.pid} did not end within {_STOP_SECONDS} s and was killed") from None
        if self._process.returncode:
            raise DataError(f"the writer failed: {errors.strip().splitlines()[-1] if errors.strip() else 'no word'}")
        return report(self.ledger)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self._process.kill()
        self._process.communicate()

    @property
    def running(self) -> bool:
        """Whether it still writes."""
        return self._process.poll() is None


@contextmanager
def writer_process(load: Load, route: Path, ledger: Path, seconds: float | None = None) -> Iterator[WriterProcess]:
    """Start a writer whose route is a file; it is killed at the end of the block if it was not stopped."""
    command = [sys.executable, "-m", "orchestra_lib.rehearsal.writer", "--route", str(route), "--ledger", str(ledger)]
    command += ["--until-input-ends"]
    command += ["--per-second", str(load.per_second), "--sessions", str(load.sessions), "--seed", str(load.seed)]
    command += ["--mix", json.dumps(vars(load.mix)), "--table", load.table]
    command += ["--seconds", str(seconds)] if seconds is not None else []
    # A session of its own: a Ctrl-C in our terminal is for us, and we end the writer in order.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    writer = WriterProcess(process, ledger)
    try:
        yield writer
    finally:
        if writer.running:
            writer.kill()


def _callers(load: Load, route: Route, ledger: Ledger) -> list[Caller]:
    lives, known, places = lives_of(ledger.path), standing(ledger.path), Places(ledger)
    return [
        Caller(number, load, lives, Keys(lives, load, number, known), route, ledger, places)
        for number in range(load.sessions)
    ]


def _stop_at_the_end_of_input(stop: threading.Event) -> None:
    """Set ``stop`` when nobody holds the other end of standard input any more: a killed parent tells nobody."""
    while os.read(sys.stdin.fileno(), 1024):  # not sys.stdin.read(): its lock would be held when the interpreter ends
        pass
    stop.set()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--route", type=Path, required=True, help="a file with the connection string to write to")
    parser.add_argument("--ledger", type=Path, required=True, help="made, or gone on with")
    parser.add_argument("--table", default=Load.table)
    parser.add_argument("--per-second", type=float, default=Load.per_second, help="intended writes a second")
    parser.add_argument("--sessions", type=int, default=Load.sessions)
    parser.add_argument("--seed", type=int, default=Load.seed)
    parser.add_argument(
        "--mix", type=json.loads, default={}, help='shares that differ: {"delete": 0.2, "insert": 0.15}'
    )
    parser.add_argument("--seconds", type=float, help="without it until SIGINT or SIGTERM")
    parser.add_argument("--until-input-ends", action="store_true", help="end when standard input does")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    if options.until_input_ends:
        threading.Thread(target=_stop_at_the_end_of_input, args=[stop], daemon=True).start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        load = Load(options.per_second, options.sessions, options.seed, Mix(**options.mix), options.table)
        print(write(load, file_route(options.route), options.ledger, stop, options.seconds).as_json())
    except OrchestraError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
