"""Numbers with their uncertainty: quantiles of latencies and means of recalls, each with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
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
    interval = stats.quantile_test(sample, p=share).confidence_interval(confidence_level=confidence)
    low, high = (float(end) for end in interval)
    return Estimate(
        float(np.quantile(sample, share)),
        -np.inf if np.isnan(low) else low,
        np.inf if np.isnan(high) else high,
        int(sample.size),
        confidence,
    )


def mean(values: Sequence[float] | NDArray[np.float64], confidence: float = CONFIDENCE, seed: int = 0) -> Estimate:
    """A mean with the percentile bootstrap interval over its samples (one sample a query, never one a neighbour).

    When all samples are equal, as when every recall is 1, the bootstrap knows no spread; the interval then reaches as
    far as the rule of three: 3/n at 95 %. Raises ValueError for no samples.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("a mean of no samples was asked for; measure something first")
    middle = float(sample.mean())
    if sample.size == 1 or np.ptp(sample) == 0.0:
        reach = float(-np.log(1 - confidence)) / sample.size
        return Estimate(middle, middle - reach, min(middle + reach, max(1.0, middle)), int(sample.size), confidence)
    interval = stats.bootstrap(
        (sample,), np.mean, n_resamples=_RESAMPLES, confidence_level=confidence, method="percentile", rng=seed
    ).confidence_interval
    return Estimate(middle, float(interval.low), float(interval.high), int(sample.size), confidence)
