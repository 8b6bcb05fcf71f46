"""What an index of halfvec or of bits loses, computed beforehand: where its own order puts the true neighbours.

A true neighbour is found among the first K rows of the stored order exactly when fewer than K rows come before it. So
its rank there says everything: what is lost without re-ranking (K = k), and how many rows have to be re-ranked.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.bench.statistics import Estimate, mean
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.geometry import Geometry
from orchestra_lib.vectors.nearest import Matrix

NO_RERANK_FROM = 0.995
"""From this agreement on re-ranking is not worth its reads."""
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True)
class StoredOrder:
    """``ranks``: int64 (q, k): how many rows the stored form puts before each true neighbour of a query."""

    storage: Storage
    ranks: NDArray[np.int64]

    def recall(self, kept: int) -> Estimate:
        """The share of the true neighbours among the first ``kept`` rows of the stored order: recall@k after re-rank.

        Without re-ranking it is that of ``kept`` = k.
        """
        return mean((self.ranks < kept).mean(axis=1))

    def smallest_rerank(self, recall_target: float, most: int) -> int | None:
        """The fewest rows to re-rank whose recall clears the target with its lower bound; None up to ``most``."""
        k = self.ranks.shape[1]
        if self.recall(most).low < recall_target and (self.ranks >= most).any():
            return None
        below, above = k - 1, most
        while above - below > 1:
            middle = (above + below) // 2
            clears = self.recall(middle).low >= recall_target or not (self.ranks >= middle).any()
            below, above = (below, middle) if clears else (middle, above)
        return above


def stored_order(geometry: Geometry, storage: Storage, blocks: Iterable[tuple[list[str], Matrix]]) -> StoredOrder:
    """Read all rows once (ids and float32 vectors in blocks) and count those before each true neighbour.

    Of neighbours at equal distance the first k count. Rows at an equal stored distance come before half of the time;
    they count as half.
    """
    encode = {Storage.HALFVEC: _as_half, Storage.BIT: _as_signs, Storage.VECTOR: _as_they_are}[storage]
    angular = geometry.opclass == "vector_cosine_ops" and storage is not Storage.BIT
    squared = geometry.opclass == "vector_l2_ops" and storage is not Storage.BIT
    queries = encode(geometry.queries)
    numbers = np.array([accepted[: geometry.wanted] for accepted in geometry.accepted])
    neighbours = encode(geometry.neighbours)
    own = _scores(queries, neighbours, angular, squared)
    own = np.take_along_axis(own, numbers, axis=1)
    before = np.zeros(own.shape, dtype=np.float64)

    def count(rows: Matrix, start: int) -> None:
        part = slice(start, start + _QUERIES_AT_ONCE)
        scores = np.sort(_scores(queries[part], rows, angular, squared), axis=1)
        for query, (row, thresholds) in enumerate(zip(scores, own[part], strict=True), start=start):
            above = len(row) - np.searchsorted(row, thresholds + _slack(storage), side="right")
            level = len(row) - np.searchsorted(row, thresholds - _slack(storage), side="left")
            before[query] += (above + level) / 2

    with ThreadPoolExecutor(2, thread_name_prefix="stored-order") as pool:
        for _, vectors in blocks:
            rows = encode(vectors)
            list(pool.map(lambda start, rows=rows: count(rows, start), range(0, len(queries), _QUERIES_AT_ONCE)))
    # Half of what is level with a neighbour includes the neighbour itself.
    return StoredOrder(storage, np.floor(before - 0.5 + 1e-9).astype(np.int64).clip(0))


def _scores(queries: Matrix, rows: Matrix, angular: bool, squared: bool) -> Matrix:
    """A product that is the higher the nearer a row is."""
    found = queries @ rows.T
    if angular:
        lengths = np.sqrt(np.vecdot(rows, rows))
        found /= np.where(lengths == 0, 1, lengths)
    if squared:
        found -= np.vecdot(rows, rows) / 2
    return found


def _slack(storage: Storage) -> float:
    # Products of signs are whole numbers; what float32 rounds of the others must not look like a difference.
    return 0.5 if storage is Storage.BIT else 1e-6


def _as_half(vectors: Matrix) -> Matrix:
    return vectors.astype(np.float16).astype(np.float32)


def _as_signs(vectors: Matrix) -> Matrix:
    return np.where(vectors > 0, np.float32(1), np.float32(-1))


def _as_they_are(vectors: Matrix) -> Matrix:
    return vectors
