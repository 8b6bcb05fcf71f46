"""How a stream stands: positions, lag, rates and freshness, as one plain value that others may read and keep."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestra_lib.memory.lsn import lsn_text

_FRESHNESS_KEPT = 100_000
_WINDOW_SECONDS = 5.0


@dataclass(frozen=True)
class StreamStatus:
    """A moment of a stream. ``lag_bytes`` counts log that is not confirmed, ``lag_rows`` changes that are here and not
    yet on the target, ``lag_seconds`` how old the oldest of them is; ``freshness_*`` are seconds from the commit on the
    source to the commit on the target, of the transactions of the last five seconds.

    ``quarantined`` counts the changes that were put aside and not put right yet. ``state`` is ``starting``,
    ``streaming``, ``waiting`` (for a side that cannot be reached, see ``trouble``) or ``stopped``.
    """

    state: str
    received_lsn: int
    applied_lsn: int
    lag_bytes: int
    lag_rows: int
    lag_seconds: float
    rows_applied: int
    rows_per_second: float
    batches: int
    stale: int
    quarantined: int
    breaker: str
    breaker_opened: int
    reconnects: int
    freshness_p50: float | None
    freshness_p95: float | None
    freshness_p99: float | None
    trouble: str
    at: float

    def sentence(self) -> str:
        """The status in words."""
        rate = f"{self.rows_applied:,} rows applied, {self.rows_per_second:,.0f} a second now"
        lag = f"{self.lag_rows:,} rows and {self.lag_bytes / 2**20:,.1f} MiB of log behind"
        return f"{self.state} at {lsn_text(self.applied_lsn)}: {rate}; {lag}; breaker {self.breaker}"


class SourceClock:
    """The source's clock, read off its messages: a clock of ours that is set in between changes nothing.

    A message may have waited in a buffer, so the greatest difference of the last seconds is the right one.
    """

    def __init__(self) -> None:
        self._differences: deque[tuple[float, float]] = deque()

    def hear(self, sent_at: float) -> None:
        """Note when the source says that it sent a message that has just been read (seconds since 1970)."""
        now = time.monotonic()
        difference = sent_at - now
        kept = self._differences
        while kept and kept[0][0] < now - _WINDOW_SECONDS:
            kept.popleft()
        while kept and kept[-1][1] <= difference:
            kept.pop()
        kept.append((now, difference))

    def now(self) -> float | None:
        """What the source's clock shows now, to within what a message takes; None when nothing was heard yet."""
        kept = tuple(self._differences)  # another thread may be hearing
        return time.monotonic() + kept[0][1] if kept else None


class Freshness:
    """Seconds from commit to commit, of the last transactions."""

    def __init__(self) -> None:
        self._landed, self._seconds = array("d"), array("d")

    def add(self, seconds: Sequence[float]) -> None:
        """Keep those of transactions that have landed now; of too many, the older half is forgotten."""
        self._landed.extend([time.monotonic()] * len(seconds))
        self._seconds.extend(seconds)
        if len(self._seconds) > _FRESHNESS_KEPT:
            del self._seconds[: _FRESHNESS_KEPT // 2], self._landed[: _FRESHNESS_KEPT // 2]

    def quantiles(self, parts: Sequence[float], last_seconds: float = _WINDOW_SECONDS) -> list[float | None]:
        """The quantiles of these parts (0.95 for p95) of what landed in the last seconds; None when nothing did."""
        # Copied first: an array that numpy looks at cannot grow, and the thread that streams makes these grow.
        landed, seconds = np.array(self._landed[:]), np.array(self._seconds[:])
        chosen = seconds[: len(landed)][landed[: len(seconds)] >= time.monotonic() - last_seconds]
        return [float(value) for value in np.quantile(chosen, parts)] if len(chosen) else [None] * len(parts)


class Rate:
    """Rows a second over the last few seconds."""

    def __init__(self) -> None:
        self._counted: deque[tuple[float, int]] = deque()

    def add(self, rows: int) -> None:
        """Count rows now."""
        now = time.monotonic()
        self._counted.append((now, rows))
        while self._counted[0][0] < now - _WINDOW_SECONDS:
            self._counted.popleft()

    def now(self) -> float:
        """The rate; 0 when nothing happened lately."""
        since = time.monotonic() - _WINDOW_SECONDS
        # A copy: another thread may be counting.
        return sum(rows for at, rows in tuple(self._counted) if at >= since) / _WINDOW_SECONDS
