"""Virtual IVFFlat indexes: what an index with so many lists would find and read, for every probes at once, unbuilt.

A search finds a true neighbour exactly when the list that holds it is among the nearest ``probes`` lists of the query.
So the rank of that list is all there is to know about recall, and the sizes of the lists before it about cost. Both
follow from the centroids, and pgvector trains these on a sample that can be drawn here just as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.bench.statistics import mean
from orchestra_lib.errors import ParameterError
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.geometry import Geometry
from orchestra_lib.vectors.kmeans import Labels, Trained, assign, train, training_rows
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.pages import centroid_pages, list_pages

_ROWS_FOR_SIZES = 50_000  # beside those that were trained on, which are nearer to their centroids than others
_MOST_PROBES = 8_192  # further lists of a query are not kept: 4 bytes each


@dataclass(frozen=True)
class VirtualIndex:
    """An index that was never built, as a set of queries would meet it.

    ``ranks``: int32 (q, k), ascending: how many lists are nearer to the query than the list of each true neighbour;
    of neighbours at equal distance those count that are found first. ``list_rows``: float64 (lists,), rows of each
    list, estimated where the table is larger than the sample. ``order``: int32 (q, p), the nearest lists of a query,
    nearest first, ``most_probes`` of them. ``centroids``: float32 (lists, dimension), None where they were not kept.
    """

    lists: int
    seed: int
    ranks: NDArray[np.int32]
    list_rows: NDArray[np.float64]
    order: NDArray[np.int32]
    dimension: int
    storage: Storage
    centroids: Matrix | None = None

    @property
    def most_probes(self) -> int:
        """The most probes that this index can be asked about."""
        return int(self.order.shape[1])

    @property
    def rows(self) -> float:
        """Rows in the index."""
        return float(self.list_rows.sum())

    @property
    def centroid_pages(self) -> int:
        """Pages that every query reads first."""
        return centroid_pages(self.lists, self.dimension, self.storage)

    @property
    def skew(self) -> float:
        """How much more rows a list has for a random row than for a random list: 1 when all lists are equal.

        Faiss calls it the imbalance factor.
        """
        return float(self.lists * np.square(self.list_rows).sum() / self.list_rows.sum() ** 2)

    def recall(self, probes: int) -> NDArray[np.float64]:
        """Recall@k of each query, float64 (q,)."""
        return np.asarray((self.ranks < self._checked(probes)).mean(axis=1))

    def recall_curve(self) -> NDArray[np.float64]:
        """Mean recall over the queries for 1, 2 … ``most_probes`` probes, float64."""
        counts = np.bincount(self.ranks.ravel(), minlength=self.most_probes + 1)[: self.most_probes]
        return np.cumsum(counts) / self.ranks.size

    def rows_visited(self, probes: int) -> NDArray[np.float64]:
        """Rows that each query reads and sorts, float64 (q,). Larger lists lie near more queries."""
        return np.asarray(self.list_rows[self.order[:, : self._checked(probes)]].sum(axis=1))

    def pages(self, probes: int) -> NDArray[np.float64]:
        """Pages that each query reads, centroids included, float64 (q,)."""
        pages = list_pages(self.list_rows, self.dimension, self.storage)
        return np.asarray(self.centroid_pages + pages[self.order[:, : self._checked(probes)]].sum(axis=1))

    def smallest_probes(self, recall_target: float) -> int | None:
        """The fewest probes whose mean recall clears the target with its lower bound; None when none does.

        The bound is that of ``bench.statistics.mean``, over queries. Where every neighbour of every query is found
        there is nothing more to be had: that counts as cleared however few the queries are.
        """
        if not self._clears(self.most_probes, recall_target):
            return None
        # The bound lies below the mean, mostly by little: what the mean does not reach need not be tried.
        below, step = int(np.searchsorted(self.recall_curve(), recall_target)), 1
        while not self._clears(above := min(below + step, self.most_probes), recall_target):
            below, step = above, 2 * step
        while above - below > 1:
            middle = (above + below) // 2
            below, above = (below, middle) if self._clears(middle, recall_target) else (middle, above)
        return above

    def part(self, queries: NDArray[np.int64]) -> VirtualIndex:
        """The same index for some of the queries, by their numbers."""
        return replace(self, ranks=self.ranks[queries], order=self.order[queries])

    def at_rows(self, rows: float) -> VirtualIndex:
        """The same index after its table has grown alike everywhere: recall stays, each list grows in proportion."""
        return replace(self, list_rows=self.list_rows * (rows / self.rows))

    def _clears(self, probes: int, recall_target: float) -> bool:
        recall = self.recall(probes)
        return bool(recall.min() == 1) or mean(recall).low >= recall_target

    def _checked(self, probes: int) -> int:
        if not 1 <= probes <= self.most_probes:
            raise ParameterError(f"probes {probes} must lie between 1 and {self.most_probes:,}, which were computed")
        return probes


def virtual_index(geometry: Geometry, lists: int, seed: int) -> VirtualIndex:
    """Train centroids as a build with this seed would, and see where the queries and their neighbours come to lie.

    ``lists`` may exceed the rows, as with pgvector. Raises ParameterError for storage "bit", whose centroids are bits.
    """
    if geometry.storage is Storage.BIT:
        raise ParameterError("bit indexes are not computed beforehand; judge them by the loss of their distances")
    mixed = np.random.default_rng(seed).permutation(len(geometry.sample))
    count = training_rows(lists)
    trained_on = mixed[:count] if count < len(mixed) else slice(None)  # all of them without a copy
    others = mixed[count:][:_ROWS_FOR_SIZES]
    projected = None if geometry.projected is None else geometry.projected[trained_on]
    trained = train(
        geometry.sample[trained_on],
        lists,
        spherical=geometry.spherical,
        seed=seed,
        axes=geometry.axes,
        projected=projected,
    )
    near = assign(geometry.neighbours, trained.centroids, spherical=geometry.spherical)
    order = _order(geometry, trained.centroids)
    return VirtualIndex(
        lists,
        seed,
        _ranks(geometry, near, order),
        _list_rows(geometry, trained, others),
        order,
        geometry.dimension,
        geometry.storage,
        trained.centroids,
    )


def virtual_indexes(geometry: Geometry, lists_options: Sequence[int], seeds: Sequence[int]) -> Iterator[VirtualIndex]:
    """One index for each number of lists and seed, computed as it is asked for."""
    for lists in lists_options:
        for seed in seeds:
            yield virtual_index(geometry, lists, seed)


def sufficient_probes(indexes: Sequence[VirtualIndex], recall_target: float) -> int | None:
    """The fewest probes that suffice whichever of these seeds a build turns out like; None when one never does."""
    found = [index.smallest_probes(recall_target) for index in indexes]
    return max((probes for probes in found if probes is not None), default=None) if None not in found else None


def _order(geometry: Geometry, centroids: Matrix) -> NDArray[np.int32]:
    scores = geometry.queries @ centroids.T
    if not geometry.spherical:
        scores -= np.vecdot(centroids, centroids) / 2
    kept = min(len(centroids), _MOST_PROBES)
    if kept < len(centroids):
        nearest = np.argpartition(-scores, kept, axis=1)[:, :kept]
        inner = np.argsort(-np.take_along_axis(scores, nearest, axis=1), axis=1, kind="stable")
        return np.take_along_axis(nearest, inner, axis=1).astype(np.int32)
    return np.argsort(-scores, axis=1, kind="stable").astype(np.int32)


def _ranks(geometry: Geometry, near: Labels, order: NDArray[np.int32]) -> NDArray[np.int32]:
    """The ranks of the lists of each query's neighbours; ``most_probes`` where a list is further than that."""
    ranks = np.empty((len(order), geometry.wanted), dtype=np.int32)
    place = np.empty(int(max(near.max(), order.max())) + 1, dtype=np.int32)
    for query, lists in enumerate(order):
        place[:] = order.shape[1]
        place[lists] = np.arange(order.shape[1], dtype=np.int32)
        found = np.sort(place[near[geometry.accepted[query]]])
        ranks[query] = found[: geometry.wanted]
    return ranks


def _list_rows(geometry: Geometry, trained: Trained, others: Labels) -> NDArray[np.float64]:
    """Rows of each list: those trained on as they are, all further ones in the proportions of some others."""
    lists = len(trained.centroids)
    own = np.bincount(trained.labels, minlength=lists).astype(np.float64)
    further = geometry.rows - len(trained.labels)
    if further <= 0:
        return own
    if not len(others):
        return own * (geometry.rows / len(trained.labels))
    space = geometry.sample if geometry.projected is None else geometry.projected
    labels = assign(space[others], trained.projected, spherical=geometry.spherical)
    return own + further * np.bincount(labels, minlength=lists) / len(others)
