"""The exact nearest neighbours, computed beside the database: the truth that every index is judged against.

Vectors are streamed from the table in blocks (bounded memory), scored in float32 by BLAS through faiss, and the best
candidates of each query are scored again in float64, because float32 loses the order of near-duplicates.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import faiss
import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from orchestra_lib.errors import DataError

Matrix = NDArray[np.float32]

_BLOCK_ROWS = 20_000
_SPARE_CANDIDATES = 32  # kept beyond k, so that ties and float32 errors at the edge are settled in float64
_UNIT = 1e-5  # squared lengths this near to 1 do not move a row past the spare candidates
_TIE = 1e-7  # distances closer than this are equal: float32 coordinates carry no more

_HEADER_BYTES = 19  # of a COPY BINARY stream: it comes with the first row
_SMALLEST_ROW = 14

OPERATORS = {"vector_cosine_ops": "<=>", "vector_ip_ops": "<#>", "vector_l2_ops": "<->"}
"""pgvector's distance operator of an operator class."""


@dataclass(frozen=True)
class Truth:
    """For each query its nearest rows, nearest first, ties included.

    ``ids``: one tuple a query, at least k of them where the table has as many; ``distances``: float64 in the same
    shape, in the operator's own unit; ``k``: how many neighbours count; ``rows``: how many there are to find.
    ``excluded``: for queries that are rows of the table, their own ids, which never count as found.
    """

    ids: tuple[tuple[str, ...], ...]
    distances: tuple[tuple[float, ...], ...]
    k: int
    rows: int
    excluded: tuple[str, ...] | None = None

    def part(self, start: int, step: int) -> Truth:
        """The truth of every ``step``-th query from ``start``."""
        excluded = self.excluded[start::step] if self.excluded else None
        return Truth(self.ids[start::step], self.distances[start::step], self.k, self.rows, excluded)

    def without_self(self, query: int, found: tuple[str, ...]) -> tuple[str, ...]:
        """The first k of what a search found, the query's own row left out."""
        others = found if self.excluded is None else tuple(key for key in found if key != self.excluded[query])
        return others[: self.k]

    def accepted(self, query: int) -> frozenset[str]:
        """The ids that count as right for a query: its k nearest and whatever is as near as the k-th."""
        distances = self.distances[query]
        edge = distances[min(self.k, len(distances)) - 1] + _TIE
        return frozenset(key for key, distance in zip(self.ids[query], distances, strict=True) if distance <= edge)


def exact_neighbours(
    connection: psycopg.Connection,
    table: sql.Identifier,
    queries: Matrix,
    k: int,
    opclass: str,
    excluded: tuple[str, ...] | None = None,
) -> Truth:
    """The k nearest rows of every query, over the whole table.

    ``queries`` is float32 (q, dimension); ``excluded`` names the row that each query is, where queries are rows.
    Raises DataError when the table is empty.
    """
    found = neighbours_of(queries, stream_vectors(connection, table, queries.shape[1]), k, opclass)
    return found if excluded is None else _leaving_out(found, excluded)


def neighbours_of(queries: Matrix, blocks: Iterable[tuple[list[str], Matrix]], k: int, opclass: str) -> Truth:
    """The k nearest rows of every query among blocks of ids and float32 vectors. Raises DataError without a row."""
    scorer = _Scorer(queries, k + _SPARE_CANDIDATES, opclass)
    for ids, vectors in blocks:
        scorer.add(ids, vectors)
    return scorer.truth(k)


def _leaving_out(truth: Truth, excluded: tuple[str, ...]) -> Truth:
    kept = [
        [(key, distance) for key, distance in zip(keys, distances, strict=True) if key != own]
        for keys, distances, own in zip(truth.ids, truth.distances, excluded, strict=True)
    ]
    ids = tuple(tuple(key for key, _ in row) for row in kept)
    distances = tuple(tuple(distance for _, distance in row) for row in kept)
    return Truth(ids, distances, truth.k, truth.rows - 1, excluded)


def stream_vectors(
    connection: psycopg.Connection, table: sql.Identifier, dimension: int, block_rows: int = _BLOCK_ROWS
) -> Iterator[tuple[list[str], Matrix]]:
    """Ids and float32 embeddings (n, dimension) of a table with columns id and embedding, in blocks."""
    statement = sql.SQL("COPY (SELECT id, embedding FROM {}) TO STDOUT (FORMAT binary)").format(table)
    ids: list[str] = []
    block = np.empty((block_rows, dimension), dtype=np.float32)
    with connection.cursor().copy(statement) as copy:
        for number, message in enumerate(copy):
            parsed = _parse_row(memoryview(message)[_HEADER_BYTES if number == 0 else 0 :])
            if parsed is None:
                continue
            key, block[len(ids)] = parsed
            ids.append(key)
            if len(ids) == block_rows:
                yield ids, block
                ids = []
    if ids:
        yield ids, block[: len(ids)]


def _parse_row(message: memoryview) -> tuple[str, NDArray[np.float32]] | None:
    # (field count, id length, id, vector length, dimension, unused, floats): a tuple in COPY BINARY format, read by
    # hand because building a Python object for each vector takes ten times as long. None for the stream's trailer.
    if len(message) < _SMALLEST_ROW:
        return None
    (length,) = struct.unpack_from(">i", message, 2)
    floats_start = 6 + length + 8
    (dimension,) = struct.unpack_from(">H", message, floats_start - 4)
    vector = np.frombuffer(message, dtype=">f4", count=dimension, offset=floats_start)
    return bytes(message[6 : 6 + length]).decode(), vector


class _Scorer:
    """Keeps the best candidates of every query over all blocks."""

    def __init__(self, queries: Matrix, keep: int, opclass: str) -> None:
        self._metric = opclass
        self._exact_queries = _prepared(queries.astype(np.float64), opclass)
        self._queries = np.ascontiguousarray(self._exact_queries, dtype=np.float32)
        self._keep = keep
        self._ids: NDArray[np.object_] = np.empty((len(queries), 0), dtype=object)
        self._distances: NDArray[np.float64] = np.empty((len(queries), 0))
        self._rows = 0

    def add(self, ids: list[str], vectors: Matrix) -> None:
        """Take one block of rows into account."""
        prepared = vectors if _is_prepared(vectors, self._metric) else _prepared(vectors, self._metric)
        keep = min(self._keep, len(ids))
        metric = faiss.METRIC_L2 if self._metric == "vector_l2_ops" else faiss.METRIC_INNER_PRODUCT
        _, found = faiss.knn(self._queries, prepared, keep, metric=metric)
        distances = self._rescored(vectors, found)
        names = np.asarray(ids, dtype=object)[found]
        all_ids = np.concatenate([self._ids, names], axis=1)
        all_distances = np.concatenate([self._distances, distances], axis=1)
        order = np.argsort(all_distances, axis=1, kind="stable")[:, : self._keep]
        self._ids = np.take_along_axis(all_ids, order, axis=1)
        self._distances = np.take_along_axis(all_distances, order, axis=1)
        self._rows += len(ids)

    def truth(self, k: int) -> Truth:
        """What was found. Raises DataError when no row was seen."""
        if not self._rows:
            raise DataError("the table holds no row: there is no nearest neighbour to compare with")
        return Truth(tuple(map(tuple, self._ids)), tuple(map(tuple, self._distances)), k, self._rows)

    def _rescored(self, vectors: Matrix, found: NDArray[np.int64]) -> NDArray[np.float64]:
        # Query by query: all candidates at once, in float64, would be a copy of hundreds of megabytes.
        distances = np.empty(found.shape)
        for number, (rows, query) in enumerate(zip(found, self._exact_queries, strict=True)):
            candidates = _prepared(vectors[rows].astype(np.float64), self._metric)
            if self._metric == "vector_l2_ops":
                distances[number] = np.linalg.norm(candidates - query, axis=1)
            else:
                distances[number] = (self._metric == "vector_cosine_ops") - candidates @ query
        return distances


def _prepared(vectors: NDArray[np.floating], opclass: str) -> NDArray[np.floating]:
    if opclass != "vector_cosine_ops":
        return vectors
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)


def _is_prepared(vectors: Matrix, opclass: str) -> bool:
    """Whether candidates may be sought among the vectors as they are: exact distances are computed afterwards."""
    if opclass != "vector_cosine_ops":
        return True
    return bool(np.all(np.abs(np.einsum("ij,ij->i", vectors, vectors) - 1) < _UNIT))
