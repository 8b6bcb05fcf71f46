"""Work in threads, told of in the caller's: a notebook shows progress in the right cell only from there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import TypeVar

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


def gather(futures: Iterable[Future[Result]], tick: Callable[[], None]) -> list[Result]:
    """The results of all futures, in their order; ``tick`` is called four times a second meanwhile and at the end.

    The first error of any of them is raised as soon as it is seen.
    """
    ordered = list(futures)
    pending = set(ordered)
    while pending:
        finished, pending = wait(pending, timeout=_SECONDS_BETWEEN_TICKS, return_when=FIRST_EXCEPTION)
        for future in finished:
            future.result()
        tick()
    return [future.result() for future in ordered]
