"""The processes that a load comes from: one session each, one schedule for all of them.

Processes, because two threads of one Python share its interpreter lock: with 1,000 answers a second to decode they wait
for each other, and that wait would be measured as the server's.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import select
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from orchestra_lib.bench.samples import MakeWorker, Sample, Worker, not_sent
from orchestra_lib.errors import DataError, ParameterError

HEAD_START_SECONDS = 0.05
"""Between the last worker's being ready and the run's start: each has been told by then."""
_LONGEST_SLEEP_SECONDS = 0.1
"""A worker looks up this often, while it waits for a request, whether the run is over."""
_GRACE_SECONDS = 1.0
_NOT_STARTED = (
    "a worker of the load did not start (exit code {}); make it of a class or function of a module: what a notebook "
    "defines is not there in another process"
)
_DIED = "a worker of the load died with exit code {} and took its samples along; measure again"
_PRELOADED = ("orchestra_lib.bench.sql_load",)


@dataclass(frozen=True)
class _Schedule:
    """What the workers share: when each request is due, when it is given up, and the next number."""

    due: Sequence[float]
    given_up_at: Sequence[float]
    next_number: Any  # multiprocessing's synchronised wrapper of an integer

    def take(self) -> int | None:
        """The number of the request that is due next, None when there is none."""
        with self.next_number.get_lock():
            number: int = self.next_number.value
            self.next_number.value = number + 1
        return number if number < len(self.due) else None


def run(make_worker: MakeWorker, workers: int, due: Sequence[float], given_up_at: Sequence[float]) -> list[Sample]:
    """The samples of all workers; both schedules are seconds from the run's start.

    Raises ParameterError when ``make_worker`` cannot be handed to another process, whatever a worker raises, and
    DataError when one dies.
    """
    context = _context()
    schedule = _Schedule(due, given_up_at, context.Value("q", 0))
    started: list[tuple[ForkServerProcess, Connection]] = []
    try:
        for _ in range(workers):
            started.append(_start(context, make_worker, schedule))
        for process, connection in started:
            _received(process, connection, _NOT_STARTED)
        start = time.monotonic() + HEAD_START_SECONDS
        for _, connection in started:
            connection.send(start)
        return _collect(started)
    finally:
        _end(started)


def _context() -> ForkServerContext:
    # Forked from a server that has loaded the libraries and nothing else: no session or thread of this process is
    # copied into a worker, and none has to import them again.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED])
    return context


def _start(
    context: ForkServerContext, make_worker: MakeWorker, schedule: _Schedule
) -> tuple[ForkServerProcess, Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(make_worker, schedule, theirs, dict(os.environ)), name="load-worker", daemon=True
    )
    try:
        process.start()
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ParameterError(
            f"a load's worker cannot be handed to another process ({error}); make it of a class or function of a "
            "module, and of values without open connections"
        ) from error
    theirs.close()  # so that a worker's end is heard of here
    return process, ours


def _collect(started: list[tuple[ForkServerProcess, Connection]]) -> list[Sample]:
    samples: list[Sample] = []
    working = list(started)
    while working:
        heard = wait([connection for _, connection in working])
        for process, connection in [both for both in working if both[1] in heard]:
            working.remove((process, connection))
            samples += _received(process, connection, _DIED)
    return samples


def _received(process: ForkServerProcess, connection: Connection, on_death: str) -> list[Sample]:
    """What a worker has to say. Raises what it raised, and DataError with ``on_death`` when it is gone."""
    try:
        message: list[Sample] | Exception = connection.recv()
    except EOFError:
        process.join(_GRACE_SECONDS)
        raise DataError(on_death.format(process.exitcode)) from None
    if isinstance(message, Exception):
        raise message
    return message


def _end(started: list[tuple[ForkServerProcess, Connection]]) -> None:
    """Let the workers know that the run is over, wait for them, and end those whose request does not."""
    deadline = time.monotonic() + _GRACE_SECONDS
    for _, connection in started:
        connection.close()
    for process, _ in started:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.terminate()
            process.join(_GRACE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()


def _work(make_worker: MakeWorker, schedule: _Schedule, connection: Connection, environment: dict[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt reaches the whole group; the run's process decides
    os.environ.update(environment)  # the server that forked us may have been started before it was so
    with suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1")  # sleeps are 50 us late otherwise
    with suppress(BrokenPipeError, EOFError):  # the run has ended without us
        try:
            with make_worker() as ask:
                # A collection in the middle of a request would be measured as the server's time.
                gc.collect()
                gc.disable()
                connection.send([])
                start: float = connection.recv()
                samples = _serve(ask, schedule, start, connection)
            connection.send(samples)
        except (BrokenPipeError, EOFError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the run was started
            connection.send(_portable(error))


def _serve(ask: Worker, schedule: _Schedule, start: float, connection: Connection) -> list[Sample]:
    samples = []
    # Nothing more is to be heard from the run but its end, by whatever it ended.
    over = select.poll()
    over.register(connection, select.POLLIN)
    free = time.monotonic()
    while (number := schedule.take()) is not None:
        if not _slept_until(start + schedule.due[number], over):
            break
        sent = time.monotonic()
        if sent > start + schedule.given_up_at[number]:
            samples.append(not_sent(number, free - start))
        else:
            outcome = ask(number)
            done = time.monotonic()
            samples.append(Sample(number, free - start, sent - start, done - start, outcome))
        free = time.monotonic()
    return samples


def _slept_until(moment: float, over: select.poll) -> bool:
    """Sleep until then; False as soon as the run is over."""
    while (left := moment - time.monotonic()) > _LONGEST_SLEEP_SECONDS:
        if over.poll(_LONGEST_SLEEP_SECONDS * 1e3):
            return False
    if left > 0:  # a sleep of nothing gives the processor away, too
        time.sleep(left)  # more exact than poll
    return not over.poll(0)


def _portable(error: Exception) -> Exception:
    """The error itself, or one that says the same, if it cannot be handed to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes of a moment ago
    except Exception:  # noqa: BLE001 - a class may refuse in any way
        return DataError(f"a worker of the load failed: {type(error).__name__}: {error}")
    return error
