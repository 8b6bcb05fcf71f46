"""The exact nearest vectors of many queries, block by block, at the speed of the matrix product.

Every query is scored against every vector by one float32 product. Whatever the product's rounding could hide among the
k nearest is scored again in float64: float32 loses the order of near-duplicates. Each core has queries of its own, so
products, selection and second scores all run side by side.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

Matrix = NDArray[np.float32]

_TILE_ROWS = 8_192  # scores of a tile stay near the processor; thinner tiles sort more often
TIE = 1e-7
"""Distances closer than this are equal: float32 coordinates carry no more."""
_TIES_KEPT = 32  # beyond k
_RESCORED = 1_000  # beyond k, of a query in a tile: a bound for tables that hold the same row again and again
_UNIT = 1e-5  # squared lengths this near to 1 count as 1 for the first score; _Share._error allows for it
_PAIRS_AT_ONCE = 128  # 1.5 MB in float64 at 1,536 dimensions: what a core's own cache holds
_GROUPS_PER_NEIGHBOUR = 8


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of each query, nearest first: their ids and float64 distances in the operator's unit.

    At least k a query where there are as many, and more where rows are as near as the k-th. ``rows``: how many there
    were in all.
    """

    ids: tuple[tuple[str, ...], ...]
    distances: tuple[tuple[float, ...], ...]
    rows: int


def nearest(queries: Matrix, blocks: Iterable[tuple[list[str], Matrix]], k: int, opclass: str) -> Neighbours:
    """The k nearest rows of every query among blocks of ids and float32 vectors, by pgvector's operator class.

    Where the angle counts, zero vectors have none and are left out, as pgvector's indexes leave them out.
    """
    cores = len(os.sched_getaffinity(0))
    shares = [_Share(part, k, opclass) for part in np.array_split(queries, min(cores, len(queries)))]
    rows = 0
    with ThreadPoolExecutor(len(shares)) as pool, threadpool_limits(1, user_api="blas"):
        for ids, vectors in blocks:
            for start in range(0, len(ids), _TILE_ROWS):
                tile = _tile(ids[start : start + _TILE_ROWS], vectors[start : start + _TILE_ROWS], rows, opclass)
                if len(tile.ids):
                    list(pool.map(lambda share, tile=tile: share.add(tile), shares))
                    rows += len(tile.ids)
    return Neighbours(
        tuple(ids for share in shares for ids in share.ids()),
        tuple(distances for share in shares for distances in share.distances()),
        rows,
    )


@dataclass(frozen=True)
class _Tile:
    """Some rows: ``scored`` is what the product is taken with, ``offset`` what it is lowered by (L2 only)."""

    ids: NDArray[np.object_]
    vectors: Matrix
    scored: Matrix
    offset: Matrix | None
    longest: float
    first: int


def _tile(ids: list[str], vectors: Matrix, first: int, opclass: str) -> _Tile:
    squares = np.vecdot(vectors, vectors)
    names = np.asarray(ids, dtype=object)
    if opclass == "vector_cosine_ops":
        if not squares.all():
            directed = squares > 0
            names, vectors, squares = names[directed], vectors[directed], squares[directed]
        unit = bool(np.all(np.abs(squares - 1) < _UNIT))
        scored = vectors if unit else (vectors / np.sqrt(squares)[:, None]).astype(np.float32)
        return _Tile(names, vectors, scored, None, 1, first)
    offset = squares / 2 if opclass == "vector_l2_ops" else None
    return _Tile(names, vectors, vectors, offset, float(np.sqrt(squares.max())), first)


class _Share:
    """Some of the queries and their nearest rows so far, as one flat list sorted by query and distance."""

    def __init__(self, queries: Matrix, k: int, opclass: str) -> None:
        self._opclass = opclass
        self._k = k
        self._exact = queries.astype(np.float64)
        self._lengths = np.linalg.norm(self._exact, axis=1)
        if opclass == "vector_cosine_ops":
            self._exact /= np.where(self._lengths == 0, 1, self._lengths)[:, None]
            self._lengths = np.ones(len(queries))
        self._queries = np.ascontiguousarray(self._exact, dtype=np.float32)
        self._scores = np.empty((len(queries), _TILE_ROWS), dtype=np.float32)
        self._query: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._number: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._id: NDArray[np.object_] = np.empty(0, dtype=object)
        self._distance: NDArray[np.float64] = np.empty(0)

    def ids(self) -> list[tuple[str, ...]]:
        """Each query's nearest rows, nearest first."""
        return [tuple(part) for part in np.split(self._id, self._starts()[1:])]

    def distances(self) -> list[tuple[float, ...]]:
        """Their distances."""
        return [tuple(part) for part in np.split(self._distance, self._starts()[1:])]

    def add(self, tile: _Tile) -> None:
        """Take the rows of a tile into account."""
        scores = self._scores[:, : len(tile.ids)]
        np.matmul(self._queries, tile.scored.T, out=scores)
        if tile.offset is not None:
            scores -= tile.offset
        query, row = self._candidates(scores, tile)
        self._query = np.concatenate([self._query, query])
        self._number = np.concatenate([self._number, tile.first + row])
        self._id = np.concatenate([self._id, tile.ids[row]])
        self._distance = np.concatenate([self._distance, self._distances(tile, query, row)])
        kept = self._nearest_or_tied()
        self._query, self._number = self._query[kept], self._number[kept]
        self._id, self._distance = self._id[kept], self._distance[kept]

    def _nearest_or_tied(self) -> NDArray[np.int64]:
        """Where the nearest are, sorted by query, distance and order of arrival."""
        order = np.lexsort((self._number, self._distance, self._query))
        query, distance = self._query[order], self._distance[order]
        ranks = _ranks(query)
        edge = np.full(len(self._exact), np.inf)
        edge[query[ranks == self._k - 1]] = distance[ranks == self._k - 1] + TIE
        return order[(distance <= edge[query]) & (ranks < self._k + _TIES_KEPT)]

    def _candidates(self, scores: Matrix, tile: _Tile) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Query and row of every score that may belong to the k nearest, given what rounding can do to it."""
        error = self._error(tile)
        bar = self._bar() - error
        if np.isneginf(bar).any():
            bar = np.maximum(bar, _lower_bound(scores, self._k) - 2 * error)
        query, row = np.divmod(np.flatnonzero(scores >= _rounded_down(bar)[:, None]), scores.shape[1])
        found = scores[query, row]
        order = np.lexsort((-found, query))
        query, row, found = query[order], row[order], found[order]
        ranks = _ranks(query)
        kth = np.full(len(scores), -np.inf)
        kth[query[ranks == self._k - 1]] = found[ranks == self._k - 1]
        kept = (found >= (kth - 2 * error)[query]) & (ranks < self._k + _RESCORED)
        return query[kept], row[kept]

    def _error(self, tile: _Tile) -> NDArray[np.float64]:
        """How far a score may lie from the true one (https://doi.org/10.1137/1.9780898718027, section 3.1)."""
        size = self._lengths * tile.longest
        if self._opclass == "vector_l2_ops":
            size += tile.longest**2
        return np.asarray(size * (tile.vectors.shape[1] * 2.0**-24 + _UNIT))

    def _bar(self) -> NDArray[np.float64]:
        """The true score of each query's k-th nearest row so far; minus infinity where there is none."""
        bar = np.full(len(self._exact), -np.inf)
        kth = _ranks(self._query) == self._k - 1
        query, distance = self._query[kth], self._distance[kth]
        if self._opclass == "vector_l2_ops":
            bar[query] = (self._lengths[query] ** 2 - distance**2) / 2
        else:
            bar[query] = (self._opclass == "vector_cosine_ops") - distance
        return bar

    def _distances(self, tile: _Tile, query: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.float64]:
        distances = np.empty(len(query))
        for start in range(0, len(query), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            rows, queries = tile.vectors[row[part]].astype(np.float64), self._exact[query[part]]
            if self._opclass == "vector_l2_ops":
                distances[part] = np.linalg.norm(rows - queries, axis=1)
                continue
            products = np.vecdot(rows, queries)
            if self._opclass == "vector_cosine_ops":
                distances[part] = 1 - products / np.sqrt(np.vecdot(rows, rows))
            else:
                distances[part] = -products
        return distances

    def _starts(self) -> NDArray[np.int64]:
        return np.searchsorted(self._query, np.arange(len(self._exact)))


def _ranks(sorted_queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each entry within its query, from 0."""
    return np.arange(len(sorted_queries)) - np.searchsorted(sorted_queries, sorted_queries)


def _lower_bound(scores: Matrix, k: int) -> NDArray[np.float64]:
    """A score that at least k rows of each query reach: the k-th of the maxima of groups of rows."""
    width = scores.shape[1] // (k * _GROUPS_PER_NEIGHBOUR)
    if width < 1:
        return np.full(len(scores), -np.inf)
    groups = scores.shape[1] // width
    maxima = scores[:, : groups * width].reshape(len(scores), groups, width).max(axis=2)
    return np.partition(maxima, groups - k, axis=1)[:, groups - k].astype(np.float64)


def _rounded_down(bar: NDArray[np.float64]) -> Matrix:
    return np.nextafter(bar.astype(np.float32), np.float32(-np.inf))
