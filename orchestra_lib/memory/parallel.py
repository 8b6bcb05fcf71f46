"""Work in threads, told of in the caller's: a notebook shows progress in the right cell only from there."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from itertools import chain
from typing import TypeVar

Item = TypeVar("Item")
Session = TypeVar("Session")
Result = TypeVar("Result")

_SECONDS_BETWEEN_TICKS = 0.25


class RowCount:
    """A number of rows that several threads add to."""

    def __init__(self) -> None:
        self._rows = 0
        self._lock = threading.Lock()

    def add(self, rows: int) -> None:
        """Count more rows."""
        with self._lock:
            self._rows += rows

    @property
    def rows(self) -> int:
        """How many so far."""
        return self._rows


def shared_out(
    items: Sequence[Item],
    workers: int,
    session: Callable[[], AbstractContextManager[Session]],
    work: Callable[[Session, Item], Result],
    tick: Callable[[], None],
) -> list[Result]:
    """The results of working on every item, in the items' order.

    Each of the ``workers`` threads opens one session and takes items until none is left. When an item fails, those
    under way finish, no new one starts, and the first error is raised. ``tick`` is called four times a second and at
    the end, in the caller's thread.
    """
    waiting = queue.SimpleQueue[tuple[int, Item]]()
    for numbered in enumerate(items):
        waiting.put(numbered)
    stop = threading.Event()

    def take() -> list[tuple[int, Result]]:
        done: list[tuple[int, Result]] = []
        with session() as opened:
            while not stop.is_set():
                try:
                    number, item = waiting.get_nowait()
                except queue.Empty:
                    break
                done.append((number, work(opened, item)))
        return done

    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(take) for _ in range(min(workers, len(items)))]
        try:
            shares = _gather(futures, tick)
        finally:
            stop.set()
    return [result for _, result in sorted(chain.from_iterable(shares), key=lambda share: share[0])]


def _gather(futures: Iterable[Future[Result]], tick: Callable[[], None]) -> list[Result]:
    ordered = list(futures)
    pending = set(ordered)
    while pending:
        finished, pending = wait(pending, timeout=_SECONDS_BETWEEN_TICKS, return_when=FIRST_EXCEPTION)
        for future in finished:
            future.result()
        tick()
    return [future.result() for future in ordered]
