"""What an index needs and how fast it is at a size that nobody has measured, from sizes that somebody has.

Build time and latency are sums of a few parts that each grow in a known way, so a handful of measured points gives the
coefficients: non-negative, by least squares of the relative deviations. What a law says is believed only as far as it
has been right: every size is predicted from the smaller ones, and the largest error of that stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from orchestra_lib.errors import DataError
from orchestra_lib.vectors.kmeans import training_rows


@dataclass(frozen=True)
class IndexPoint:
    """A measured IVFFlat index: rows, lists, probes; ``visited`` rows of a query on average.

    ``build_seconds`` of its build; ``latency_ms`` is the quantile that is to be predicted, of warm searches.
    """

    rows: int
    lists: int
    probes: int
    visited: float
    build_seconds: float
    latency_ms: float


Terms = Mapping[str, Callable[[IndexPoint], float]]

BUILD: Terms = {
    "fixed": lambda _point: 1.0,
    "k-means": lambda point: float(min(training_rows(point.lists), point.rows)) * point.lists,
    "assigning": lambda point: float(point.rows) * point.lists,
    "loading": lambda point: float(point.rows),
}
"""Seconds: the training sample against every list, every row against every list, every row written and sorted."""

LATENCY: Terms = {
    "fixed": lambda _point: 1.0,
    "centroids": lambda point: float(point.lists),
    "rows": lambda point: point.visited,
    "spread": lambda point: point.visited / math.sqrt(point.probes),
}
"""Milliseconds: every centroid is read, and every row of the probed lists. A high quantile is that of the queries whose
lists are long: the sum of a few lists' sizes spreads with the root of their number."""


@dataclass(frozen=True)
class Law:
    """Coefficients by the name of their part, all at least 0."""

    terms: Terms
    coefficients: Mapping[str, float]

    def predict(self, point: IndexPoint) -> float:
        """What a point like this would measure; its own measurements are not looked at."""
        return sum(self.coefficients[name] * term(point) for name, term in self.terms.items())

    def parts(self, point: IndexPoint) -> dict[str, float]:
        """The same by part: what decides at that size."""
        return {name: self.coefficients[name] * term(point) for name, term in self.terms.items()}


def fit(points: Sequence[IndexPoint], terms: Terms, measured: Callable[[IndexPoint], float]) -> Law:
    """The law that these points follow. Raises DataError for fewer points than three."""
    if len(points) < 3:
        raise DataError(f"a law from {len(points)} points would be a guess: measure at three sizes or more")
    values = np.array([measured(point) for point in points])
    matrix = np.array([[term(point) for term in terms.values()] for point in points])
    relative = matrix / values[:, None]
    scale = relative.max(axis=0)  # the parts differ by ten orders of magnitude
    found, _ = optimize.nnls(relative / scale, np.ones(len(values)))
    return Law(terms, dict(zip(terms, (found / scale).tolist(), strict=True)))


@dataclass(frozen=True)
class Checked:
    """A law with what it has been worth: for each size but the smallest ones, predicted over measured."""

    law: Law
    ratios: Mapping[int, float]

    @property
    def worst(self) -> float:
        """The largest relative error of a size predicted from smaller ones."""
        return max((abs(ratio - 1) for ratio in self.ratios.values()), default=float("inf"))


def checked_fit(points: Sequence[IndexPoint], terms: Terms, measured: Callable[[IndexPoint], float]) -> Checked:
    """Fit all points, and tell how well each size was predicted by the points of smaller ones (mean of its points)."""
    sizes = sorted({point.rows for point in points})
    ratios = {}
    for size in sizes:
        smaller = [point for point in points if point.rows < size]
        if len(smaller) >= 3 and len({point.rows for point in smaller}) >= 2:
            law = fit(smaller, terms, measured)
            own = [point for point in points if point.rows == size]
            ratios[size] = float(np.mean([law.predict(point) / measured(point) for point in own]))
    return Checked(fit(points, terms, measured), ratios)
