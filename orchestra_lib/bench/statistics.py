"""Numbers with their uncertainty: quantiles of latencies, means, slopes of a series, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
SHARES = (0.0, 1.0)
"""Between which a share lies."""
AMOUNTS = (0.0, math.inf)
"""Between which a number of things lies, or their rate."""
_RESAMPLES = 2_000


@dataclass(frozen=True)
class Estimate:
    """A value with the interval that holds the truth with the stated confidence, all in one unit."""

    value: float
    low: float
    high: float
    samples: int
    confidence: float = CONFIDENCE

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]".replace("inf", "∞")


def quantile(values: Sequence[float] | NDArray[np.float64], share: float, confidence: float = CONFIDENCE) -> Estimate:
    """A quantile with the exact, distribution-free interval of its order statistics (Conover 1999, 3.2).

    With too few samples an end of the interval does not exist: it is then infinite. Raises ValueError for no samples.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("a quantile of no samples was asked for; measure something first")
    return _quantile(sample, share, int(sample.size), confidence)


def quantile_of_series(
    values: Sequence[float] | NDArray[np.float64], share: float, confidence: float = CONFIDENCE
) -> Estimate:
    """A quantile of values in the order in which they arose, where neighbours may be alike, as they are in a queue.

    A request that waits is followed by others that wait: a thousand of them say as much as a few independent ones do.
    The interval is that of so many (the effective sample size of "is beyond the quantile", by Geyer's initial positive
    sequence, 1992); ``samples`` is their full number. An infinite value is one that never came. Raises ValueError for
    no samples.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("a quantile of no samples was asked for; measure something first")
    beyond = sample > np.quantile(sample, share, method="inverted_cdf")
    return _quantile(sample, share, _effective_samples(beyond.astype(np.float64)), confidence)


def _quantile(sample: NDArray[np.float64], share: float, independent: int, confidence: float) -> Estimate:
    ordered = np.sort(sample)
    tail = (1 - confidence) / 2
    low = int(stats.binom.ppf(tail, independent, share)) - 1
    high = int(stats.binom.isf(tail, independent, share))
    scale = ordered.size / independent
    return Estimate(
        _between(ordered, share),
        float(ordered[int((low + 1) * scale) - 1]) if low >= 0 else -np.inf,
        float(ordered[min(math.ceil(high * scale), ordered.size - 1)]) if high < independent else np.inf,
        int(ordered.size),
        confidence,
    )


def _between(ordered: NDArray[np.float64], share: float) -> float:
    """The quantile as numpy interpolates it; between a number and an infinite one lies no number."""
    place = share * (ordered.size - 1)
    below, above = (float(ordered[end]) for end in (math.floor(place), math.ceil(place)))
    return above if below == above or np.isinf(above) else below + (above - below) * (place - math.floor(place))


def _effective_samples(series: NDArray[np.float64]) -> int:
    """How many independent samples say as much about the mean of a series as its own do; at least 1."""
    centred = series - series.mean()
    variance = float(centred @ centred)
    if variance == 0.0:
        return int(series.size)
    spectrum = np.fft.rfft(centred, 2 * series.size)  # padded: the end of the series does not meet its start
    correlations = np.fft.irfft(np.abs(spectrum) ** 2)[: series.size] / variance
    pairs = correlations[: series.size // 2 * 2].reshape(-1, 2).sum(axis=1)
    end = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else pairs.size
    return max(1, min(series.size, round(series.size / max(1.0, 2 * float(pairs[:end].sum()) - 1))))


def proportion(count: int, of: int, confidence: float = CONFIDENCE) -> Estimate:
    """So many of so many as a share, with its exact interval (Clopper and Pearson, 1934).

    Right where a bootstrap is not: when hardly any were seen, as with losses. Raises ValueError for none of none.
    """
    if of < 1:
        raise ValueError("a share of no samples was asked for; measure something first")
    interval = stats.binomtest(count, of).proportion_ci(confidence, method="exact")
    return Estimate(count / of, float(interval.low), float(interval.high), of, confidence)


def mean(
    values: Sequence[float] | NDArray[np.float64],
    confidence: float = CONFIDENCE,
    seed: int = 0,
    bounds: tuple[float, float] = SHARES,
) -> Estimate:
    """A mean with the percentile bootstrap interval over its samples (one sample a query, never one a neighbour).

    When all samples are equal, as when every recall is 1, the bootstrap knows no spread. By the rule of three up to 3/n
    of what was not seen may be otherwise (at 95 %), and the interval is that of such a part at one of the ``bounds``:
    infinite for amounts, which have no upper one. Raises ValueError for no samples, or one outside the bounds.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("a mean of no samples was asked for; measure something first")
    least, most = bounds
    if sample.min() < least or sample.max() > most:
        raise ValueError(f"samples from {sample.min():g} to {sample.max():g} do not lie between {least:g} and {most:g}")
    middle = float(sample.mean())
    if np.ptp(sample) == 0.0:
        unseen = min(1.0, -math.log(1 - confidence) / sample.size)
        low, high = (middle + unseen * (bound - middle) for bound in bounds)
        return Estimate(middle, low, high, int(sample.size), confidence)
    interval = stats.bootstrap(
        (sample,), np.mean, n_resamples=_RESAMPLES, confidence_level=confidence, method="percentile", rng=seed
    ).confidence_interval
    return Estimate(middle, float(interval.low), float(interval.high), int(sample.size), confidence)


def slope(at: Sequence[float], values: Sequence[float], parts: int = 20, confidence: float = CONFIDENCE) -> Estimate:
    """How much a series grows for each unit of ``at``: the median of the slopes between any two parts of it.

    ``at`` ascends. Each of the equal parts counts with its median, so that neighbours, which are alike, do not count
    as so many witnesses; the interval is Sen's (1968). Raises ValueError for fewer values than parts.
    """
    if len(values) < parts:
        raise ValueError(f"{len(values)} values have no {parts} parts; look more often, or longer")
    places, medians = (
        [float(np.median(part)) for part in np.array_split(np.asarray(series, dtype=np.float64), parts)]
        for series in (at, values)
    )
    found = stats.theilslopes(medians, places, alpha=confidence)
    return Estimate(float(found[0]), float(found[2]), float(found[3]), len(values), confidence)
