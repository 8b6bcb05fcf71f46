"""Latencies as a high dynamic range histogram: three digits from a microsecond to an hour, merged without loss.

The encoding is HdrHistogram's V2 (http://hdrhistogram.org), which its plotter and its ports in other languages read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

DIGITS = 3
_LONGEST_US = 3_600_000_000
_US_IN_MS = 1_000


@dataclass(frozen=True)
class Histogram:
    """Counts of latencies. ``unanswered`` requests have none: they count as longer than every other one."""

    encoded: str
    answered: int
    unanswered: int

    def quantiles(self, shares: Sequence[float]) -> tuple[float, ...]:
        """Milliseconds that this share of the requests stays within, each within 0.1 %; inf where it is unanswered.

        Raises ValueError when the histogram is empty.
        """
        total = self.answered + self.unanswered
        if total == 0:
            raise ValueError("a quantile of no samples was asked for; measure something first")
        counts = _decoded(self.encoded)
        # The library ranks within what was answered; a share of all requests is a larger one of those.
        ranks = [max(1, int(np.ceil(share * total))) for share in shares]
        return tuple(
            counts.get_value_at_percentile(100 * rank / self.answered) / _US_IN_MS if rank <= self.answered else np.inf
            for rank in ranks
        )

    def quantile(self, share: float) -> float:
        """One of ``quantiles``."""
        return self.quantiles((share,))[0]


def histogram(milliseconds: Sequence[float] | NDArray[np.float64]) -> Histogram:
    """The histogram of latencies in milliseconds; an infinite one is an unanswered request.

    Raises ValueError for a latency that is negative, not a number, or longer than an hour.
    """
    values = np.asarray(milliseconds, dtype=np.float64)
    finite = values[np.isfinite(values)]
    microseconds = np.rint(finite * _US_IN_MS)
    if np.isnan(values).any() or (microseconds < 0).any() or (microseconds > _LONGEST_US).any():
        raise ValueError("latencies have to lie between 0 ms and an hour; an unanswered request is inf")
    counts = _empty()
    for value, count in zip(*np.unique(microseconds.astype(np.int64), return_counts=True), strict=True):
        counts.record_value(int(value), int(count))
    return _of(counts, int(values.size - finite.size))


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """One histogram of everything that the others hold; what each of them lost to rounding is all that is lost."""
    counts, unanswered = _empty(), 0
    for part in histograms:
        counts.add(_decoded(part.encoded))
        unanswered += part.unanswered
    return _of(counts, unanswered)


def _empty() -> HdrHistogram:
    return HdrHistogram(1, _LONGEST_US, DIGITS)


def _decoded(encoded: str) -> HdrHistogram:
    return HdrHistogram.decode(encoded)


def _of(counts: HdrHistogram, unanswered: int) -> Histogram:
    return Histogram(counts.encode().decode("ascii"), counts.get_total_count(), unanswered)
