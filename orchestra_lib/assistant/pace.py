"""A pace for requests: never more than so many in any minute, which is how Google counts its quotas."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

_WINDOW_SECONDS = 60.0


class Pace:
    """Waits where the next request would be one too many. Any number of threads."""

    def __init__(
        self,
        requests_per_minute: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._most, self._clock, self._sleep = requests_per_minute, clock, sleep
        self._sent: deque[float] = deque()
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may be sent."""
        with self._lock:  # held while waiting: those that come later would only wait longer
            now = self._clock()
            while len(self._sent) >= self._most:
                wait_seconds = self._sent[0] + _WINDOW_SECONDS - now
                if wait_seconds > 0:
                    self._sleep(wait_seconds)
                    now = self._clock()
                else:
                    self._sent.popleft()
            self._sent.append(now)
