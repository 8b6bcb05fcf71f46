"""What an index needs and how fast it is at a size that nobody has measured, from sizes that somebody has.

Build time and a query's latency are sums of a few parts that each grow in a known way, so some measured points give the
coefficients: non-negative, by least squares of the relative deviations. A high quantile of latencies is not such a sum:
it is that of the queries whose lists are long. So each query's rows are taken from virtual indexes of the larger table,
which a sample of the table as it is suffices for, each gets its own latency, and the quantile is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from orchestra_lib.errors import DataError
from orchestra_lib.scale.matched_radius import sampled_geometry
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.ivf import VirtualIndex, virtual_indexes
from orchestra_lib.vectors.kmeans import training_rows
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.pages import PAGE_BYTES, index_pages

_SEEDS = (0, 1)
_HELD_OUT = 10  # one row in so many is not trained on
_MOST_RATIOS = 1_000
_OUTLIER = 0.1  # relative deviation from which on an observation counts less the further it is off
_REWEIGHTED = 10  # times; the weights settle in fewer

Point = TypeVar("Point")
Terms = Mapping[str, Callable[[Point], float]]


@dataclass(frozen=True)
class IndexPoint:
    """An IVFFlat index that was built: its rows and lists, and the seconds that it took."""

    rows: int
    lists: int
    build_seconds: float


@dataclass(frozen=True)
class SearchPoint:
    """One warm query: the rows that it visits, the lists and the bytes of its index, and its milliseconds."""

    rows: float
    lists: int
    index_bytes: float
    milliseconds: float


BUILD: Terms[IndexPoint] = {
    "fixed": lambda _point: 1.0,
    "k-means": lambda point: float(min(training_rows(point.lists), point.rows)) * point.lists,
    "assigning": lambda point: float(point.rows) * point.lists,
    "loading": lambda point: float(point.rows),
}
"""Seconds: the training sample against every list, every row against every list, every row written and sorted."""


@dataclass(frozen=True)
class Caches:
    """What holds parts of an index: the processor's last cache, and the server's ``shared_buffers``; bytes."""

    processor_bytes: float
    buffers_bytes: float


def search_terms(caches: Caches) -> Terms[SearchPoint]:
    """Milliseconds of a query: every centroid is read, and every row of the probed lists.

    A row costs more that comes from memory, and more again that is not in the server's buffers. Rows lie anywhere in
    the index, so the share that is not in a cache is what the cache does not hold of the index.
    """
    return {
        "fixed": lambda _point: 1.0,
        "centroids": lambda point: float(point.lists),
        "rows": lambda point: point.rows,
        "rows from memory": lambda point: point.rows * _beyond(point.index_bytes, caches.processor_bytes),
        "rows from outside": lambda point: point.rows * _beyond(point.index_bytes, caches.buffers_bytes),
    }


@dataclass(frozen=True)
class Law(Generic[Point]):
    """Coefficients by the name of their part, all at least 0."""

    terms: Terms[Point]
    coefficients: Mapping[str, float]

    def predict(self, point: Point) -> float:
        """What a point like this would measure; its own measurements are not looked at."""
        return sum(self.parts(point).values())

    def parts(self, point: Point) -> dict[str, float]:
        """The same by part: what decides at that size."""
        return {name: self.coefficients[name] * term(point) for name, term in self.terms.items()}


def fit(points: Sequence[Point], terms: Terms[Point], measured: Callable[[Point], float]) -> Law[Point]:
    """The law that these points follow; outliers are weighed down.

    Raises DataError for fewer points than three, and for one where nothing was measured.
    """
    if len(points) < 3:
        raise DataError(f"a law from {len(points)} points would be a guess: measure at three sizes or more")
    values = np.array([measured(point) for point in points])
    if values.min() <= 0:
        raise DataError(f"{points[int(values.argmin())]} measured nothing: take a size that takes longer")
    matrix = np.array([[term(point) for term in terms.values()] for point in points])
    relative = matrix / values[:, None]
    scale = relative.max(axis=0)  # the parts differ by ten orders of magnitude
    scale[scale == 0] = 1
    weights, found = np.ones(len(values)), np.zeros(len(scale))
    for _ in range(_REWEIGHTED):
        root = np.sqrt(weights)
        found, _ = optimize.nnls(relative / scale * root[:, None], root)
        weights = np.minimum(1, _OUTLIER / np.maximum(np.abs(relative / scale @ found - 1), 1e-9))
    return Law(terms, dict(zip(terms, (found / scale).tolist(), strict=True)))


@dataclass(frozen=True)
class Checked:
    """A law of builds with what it has been worth: for each size but the smallest ones, predicted over measured."""

    law: Law[IndexPoint]
    ratios: Mapping[int, float]

    @property
    def worst(self) -> float:
        """The largest relative error of a size predicted from smaller ones."""
        return max((abs(ratio - 1) for ratio in self.ratios.values()), default=float("inf"))


def fit_builds(points: Sequence[IndexPoint]) -> Checked:
    """Fit all points, and tell how well each size was predicted by the points of smaller ones (mean of its points)."""
    ratios = {}
    for size in sorted({point.rows for point in points}):
        smaller = [point for point in points if point.rows < size]
        if len(smaller) >= 3 and len({point.rows for point in smaller}) >= 2:
            law = fit(smaller, BUILD, _build_seconds)
            own = [point for point in points if point.rows == size]
            ratios[size] = float(np.mean([law.predict(point) / point.build_seconds for point in own]))
    return Checked(fit(points, BUILD, _build_seconds), ratios)


@dataclass(frozen=True)
class SearchLaw:
    """The law of a query's latency, and how single queries scatter about it.

    ``ratios`` are measured / predicted of the queries that it was fitted to, over the median of their index, ascending:
    by how much the law is off for a whole index is not scatter. ``largest_bytes`` is the largest of their indexes.
    """

    law: Law[SearchPoint]
    caches: Caches
    ratios: tuple[float, ...]
    largest_bytes: float

    def quantile_ms(self, indexes: Sequence[VirtualIndex], probes: int, share: float = 0.95) -> float:
        """A quantile over the queries of indexes that were never built: one for each seed that a build may have.

        Raises DataError where they are larger than the server's buffers and none was that the law was fitted to.
        """
        predicted = np.concatenate([self._milliseconds(index, probes) for index in indexes])
        return float(np.quantile(np.outer(predicted, self.ratios), share))

    def _milliseconds(self, index: VirtualIndex, probes: int) -> NDArray[np.float64]:
        size = float(PAGE_BYTES * index_pages(index.list_rows, index.dimension, index.storage))
        if size > self.caches.buffers_bytes >= self.largest_bytes:
            raise DataError(
                f"an index of {size / 1e6:,.0f} MB is larger than the server's buffers "
                f"({self.caches.buffers_bytes / 1e6:,.0f} MB), and none was that was measured: what a page from "
                "outside takes is not known. Measure one that is larger, or give the server as many buffers"
            )
        points = (SearchPoint(rows, index.lists, size, np.nan) for rows in index.rows_visited(probes).tolist())
        return np.array([self.law.predict(point) for point in points])


def fit_searches(points: Sequence[SearchPoint], caches: Caches) -> SearchLaw:
    """The law of the latencies of single queries. Raises DataError for fewer points than three."""
    law = fit(points, search_terms(caches), lambda point: point.milliseconds)
    scatter = _scatter(points, law)
    kept = np.quantile(scatter, np.linspace(0, 1, min(len(scatter), _MOST_RATIOS)))
    return SearchLaw(law, caches, tuple(kept.tolist()), max(point.index_bytes for point in points))


def grown_indexes(
    queries: Matrix, sample: Matrix, rows: int, lists: int, opclass: str, storage: Storage = Storage.VECTOR
) -> tuple[VirtualIndex, ...]:
    """Virtual indexes of a table of ``rows``, from a random sample of it, or of it as it was when it was smaller.

    ``queries`` are not in the sample. Whoever takes a smaller table for a sample claims that it grows alike everywhere.
    """
    held_out = max(1, len(sample) // _HELD_OUT)
    searched, trained_on = sample[:held_out], sample[held_out:]
    # Of the sample's own size first: all of its rows count for how long the lists are.
    geometry, _ = sampled_geometry(queries, searched, trained_on, 1, len(trained_on), opclass, storage)
    return tuple(index.at_rows(rows) for index in virtual_indexes(geometry, [lists], _SEEDS))


def _scatter(points: Sequence[SearchPoint], law: Law[SearchPoint]) -> NDArray[np.float64]:
    by_index: dict[tuple[int, float], list[float]] = {}
    for point in points:
        by_index.setdefault((point.lists, point.index_bytes), []).append(point.milliseconds / law.predict(point))
    return np.concatenate([np.array(ratios) / np.median(ratios) for ratios in by_index.values()])


def _build_seconds(point: IndexPoint) -> float:
    return point.build_seconds


def _beyond(size: float, cache: float) -> float:
    """The share of something of this size that a cache does not hold."""
    return max(0.0, 1 - cache / size)
