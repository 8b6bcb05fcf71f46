"""Open-loop load: requests are sent when they are due, however slowly the ones before are answered.

A closed loop asks again only after it has been answered, so a server that stands still for a second is asked once in
that second and the others are never missed (coordinated omission). Here each request has an intended start and its
latency counts from there; if no worker is free it waits, and its wait is part of its latency. Nothing is re-based.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.bench import processes
from orchestra_lib.bench.arrivals import poisson
from orchestra_lib.bench.samples import LoadRun, MakeWorker, Outcome, Sample, load_run, not_sent
from orchestra_lib.errors import DataError

AsyncWorker = Callable[[int], Awaitable[Outcome]]
"""As ``samples.Worker``, awaited."""
MakeAsyncWorker = Callable[[], AbstractAsyncContextManager[AsyncWorker]]


@dataclass(frozen=True)
class Load:
    """What is to be offered. The same seed gives the same arrivals.

    ``workers`` is how many requests can be under way at once: processes with a session each, or tasks of one event
    loop. A request that cannot be sent within ``time_limit_ms`` of its intended start is given up and counts as never
    answered; without a limit all are sent, until ``drain_seconds`` after the load's end.
    """

    offered_per_second: float
    seconds: float
    seed: int
    workers: int
    time_limit_ms: float | None = None
    drain_seconds: float = 10.0

    def arrivals(self) -> NDArray[np.float64]:
        """Intended starts, float64 seconds from the run's start: a Poisson process."""
        return poisson(self.offered_per_second, self.seconds, self.seed)

    def require_kept(self, run: LoadRun) -> None:
        """Raise DataError unless a run's latencies count from these arrivals: from other ones they are of another load.

        A generator that takes the moment of sending for the intended one hides that a server stood still.
        """
        due = self.arrivals()
        if run.intended.shape == due.shape and np.array_equal(run.intended, due):
            return
        moved = int((run.intended != due).sum()) if run.intended.shape == due.shape else due.size
        raise DataError(
            f"{moved:,} of {due.size:,} latencies do not count from the moment at which their request was due: the "
            "schedule was re-based, and what requests waited for is left out"
        )


def run_load(load: Load, make_worker: MakeWorker, *, intended: NDArray[np.float64] | None = None) -> LoadRun:
    """Offer a load from processes of its own, one for each worker, and return what became of every request.

    ``make_worker`` is called in each process (so it has to be picklable) and entered before the load starts; whichever
    worker is free takes the request that is due next. ``intended`` gives other intended starts than the load's own
    (replayed ones); they have to ascend. An interrupt ends the processes and goes on. Raises whatever a worker raises,
    and DataError when one dies.
    """
    due = _due(load, intended)
    given_up_at = np.minimum(due + _time_limit_seconds(load), _latest(load, due))
    samples = processes.run(make_worker, load.workers, due.tolist(), given_up_at.tolist())
    return load_run(due, load.seconds, load.time_limit_ms, samples)


async def run_load_async(
    load: Load, make_worker: MakeAsyncWorker, *, intended: NDArray[np.float64] | None = None
) -> LoadRun:
    """Offer a load from this event loop and return what became of every request.

    ``make_worker`` is entered once: all requests, at most ``load.workers`` at a time, go through what it yields. When
    this is cancelled, so are they. Raises whatever the worker raises.
    """
    due = _due(load, intended)
    given_up_at = np.minimum(due + _time_limit_seconds(load), _latest(load, due)).tolist()
    ready: asyncio.Queue[int | None] = asyncio.Queue()
    samples: list[Sample] = []

    async def work(ask: AsyncWorker, start: float) -> None:
        free = time.monotonic() - start
        while (number := await ready.get()) is not None:
            sent = time.monotonic() - start
            if sent > given_up_at[number]:
                samples.append(not_sent(number, free))
            else:
                outcome = await ask(number)
                samples.append(Sample(number, free, sent, time.monotonic() - start, outcome))
            free = time.monotonic() - start

    async with make_worker() as ask:
        start = time.monotonic() + processes.HEAD_START_SECONDS
        with _released(due.tolist(), start, load.workers, ready):
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(load.workers):
                        group.create_task(work(ask, start))
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None
    return load_run(due, load.seconds, load.time_limit_ms, samples)


@contextmanager
def _released(due: Sequence[float], start: float, workers: int, ready: asyncio.Queue[int | None]) -> Iterator[None]:
    """Inside, each request's number is put into the queue when it is due, and after the last a None for each worker.

    A thread watches the clock: an event loop's own timers are up to a millisecond late.
    """
    loop, ended = asyncio.get_running_loop(), threading.Event()

    def release() -> None:
        for number, seconds in enumerate(due):
            if ended.wait(max(0.0, start + seconds - time.monotonic())):
                return
            loop.call_soon_threadsafe(ready.put_nowait, number)
        for _ in range(workers):
            loop.call_soon_threadsafe(ready.put_nowait, None)

    clock = threading.Thread(target=release, name="load-clock", daemon=True)
    clock.start()
    try:
        yield
    finally:
        ended.set()
        clock.join()


def _due(load: Load, intended: NDArray[np.float64] | None) -> NDArray[np.float64]:
    due = load.arrivals() if intended is None else np.asarray(intended, dtype=np.float64)
    if due.size == 0:
        raise ValueError(f"no request is due in {load.seconds} s of {load.offered_per_second} requests a second")
    if due[0] < 0 or (np.diff(due) < 0).any():
        raise ValueError("intended starts have to ascend from 0; sort them")
    return due


def _time_limit_seconds(load: Load) -> float:
    return np.inf if load.time_limit_ms is None else load.time_limit_ms / 1e3


def _latest(load: Load, due: NDArray[np.float64]) -> float:
    return max(load.seconds, float(due[-1])) + load.drain_seconds
