"""A mover in a process of its own, to be killed: the initial copy if it is not done, then the stream until SIGTERM.

    python tests/faults/mover.py SPEC STATE

SPEC is a JSON file (see mover_spec.py). How it stands and why it ended is written to STATE many times a second. SIGUSR1
sets the process's wall clock to another time, as far away as SPEC says.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
from mover_spec import PUBLICATION, SLOT, STREAM, TABLE, Spec
from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.errors import OrchestraError, TargetUnreachable
from orchestra_lib.memory.copy import CopyJob
from orchestra_lib.memory.initial_copy import CopySpec, initial_copy
from orchestra_lib.memory.source import SourceTable, source_table
from orchestra_lib.memory.stream import Stream, StreamSpec, Tuning

_WRITE_SECONDS = 0.02


class _State:
    """What others may know of this process, replaced whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = {"pid": os.getpid()}

    def write(self, **news: object) -> None:
        self._known.update(news)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._known))
        part.replace(self._path)


def main(spec_file: str, state_file: str) -> int:
    """Returns the exit code of the error that ended it, 0 when it was asked to stop."""
    spec, state, stop = Spec(**json.loads(Path(spec_file).read_text())), _State(Path(state_file)), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGUSR1, lambda *_: _set_clock(spec.clock_jump_seconds))
    state.write(phase="copying")
    try:
        source = _source_table(spec)
        target = sql.Identifier(TABLE)
        job = CopyJob(spec.source, source, spec.target, target)
        copied = initial_copy(
            CopySpec(job, STREAM, SLOT, PUBLICATION, spec.ranges, 2, spec.copy_rows_per_second),
            lambda done, total: state.write(rows_copied=done, rows=total),
        )
        state.write(phase="streaming", found=copied.before.state)
        stream = Stream(
            StreamSpec(STREAM, spec.source, source, spec.target, target, SLOT, PUBLICATION, Tuning(**spec.tuning))
        )
        _stream(stream, state, stop)
    except OrchestraError as error:
        state.write(phase="ended", error=type(error).__name__, said=str(error))
        return error.exit_code
    state.write(phase="ended", error="", said="")
    return 0


def _source_table(spec: Spec) -> SourceTable:
    try:
        with connect(spec.source, role="source") as connection:
            return source_table(connection, TABLE, {})
    except psycopg.OperationalError as error:
        raise TargetUnreachable(f"the source was lost: {error}") from error


def _stream(stream: Stream, state: _State, stop: threading.Event) -> None:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            stream.run(stop)
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            failures.append(error)

    thread = threading.Thread(target=run, name="stream")
    thread.start()
    while thread.is_alive():
        state.write(status=asdict(stream.status()))
        thread.join(_WRITE_SECONDS)
    state.write(status=asdict(stream.status()))
    if failures:
        raise failures[0]


def _set_clock(seconds: float) -> None:
    """From now on time.time() says another time; the monotonic clock goes on, as it does when a clock is set."""
    real = time.time_ns
    time.time = lambda: real() / 1e9 + seconds


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
