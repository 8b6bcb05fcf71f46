"""Not faster than this: a limit on rows a second that several threads keep together."""

from __future__ import annotations

import threading
import time


class Throttle:
    """Makes whoever takes rows wait until the rate allows them; ``rows_per_second`` None never waits."""

    def __init__(self, rows_per_second: int | None) -> None:
        self._seconds_per_row = 1 / rows_per_second if rows_per_second else 0.0
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def take(self, rows: int) -> None:
        """Return once these rows may count. Time in which nothing was taken is not saved up."""
        if not self._seconds_per_row:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + rows * self._seconds_per_row
            seconds = self._free_at - now
        time.sleep(seconds)
