"""The exact nearest neighbours, computed beside the database: the truth that every index is judged against.

Vectors are streamed from the table in blocks (bounded memory); while one block is searched the next one is read.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.vectors.nearest import TIE, Matrix, nearest

_BLOCK_ROWS = 8_192
_HEADER_BYTES = 19  # of a COPY BINARY stream: it comes with the first row
_TRAILER_BYTES = 2

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
        edge = distances[min(self.k, len(distances)) - 1] + TIE
        return frozenset(key for key, distance in zip(self.ids[query], distances, strict=True) if distance <= edge)


def exact_neighbours(
    connection: psycopg.Connection,
    table: sql.Composable,
    queries: Matrix,
    k: int,
    opclass: str,
    excluded: tuple[str, ...] | None = None,
) -> Truth:
    """The k nearest rows of every query, over the whole table.

    ``queries`` is float32 (q, dimension); ``excluded`` names the row that each query is, where queries are rows.
    Raises DataError when the table is empty or a vector has another dimension than the queries.
    """
    blocks = _read_ahead(stream_vectors(connection, table, queries.shape[1]))
    found = nearest(queries, blocks, k if excluded is None else k + 1, opclass)
    if not found.rows:
        raise DataError("the table holds no row: there is no nearest neighbour to compare with")
    truth = Truth(found.ids, found.distances, k, found.rows)
    return truth if excluded is None else _leaving_out(truth, excluded)


def _leaving_out(truth: Truth, excluded: tuple[str, ...]) -> Truth:
    kept = [
        [(key, distance) for key, distance in zip(keys, distances, strict=True) if key != own]
        for keys, distances, own in zip(truth.ids, truth.distances, excluded, strict=True)
    ]
    ids = tuple(tuple(key for key, _ in row) for row in kept)
    distances = tuple(tuple(distance for _, distance in row) for row in kept)
    return Truth(ids, distances, truth.k, truth.rows - 1, excluded)


def stream_vectors(
    connection: psycopg.Connection, table: sql.Composable, dimension: int, block_rows: int = _BLOCK_ROWS
) -> Iterator[tuple[list[str], Matrix]]:
    """Ids and float32 embeddings (n, dimension) of a table with columns id and embedding, in blocks.

    A block is overwritten when the one after the next is asked for. Raises DataError when a vector has another
    dimension.
    """
    statement = sql.SQL("COPY (SELECT embedding, id FROM {}) TO STDOUT (FORMAT binary)").format(table)
    # A tuple in COPY BINARY format (field count, vector length, dimension, unused, floats, id length, id) is read by
    # hand: building a Python object for each vector takes ten times as long.
    start = struct.pack(">hiHH", 2, 4 + 4 * dimension, dimension, 0)
    floats_end = len(start) + 4 * dimension
    blocks = [np.empty((block_rows, dimension), dtype=np.float32) for _ in range(2)]
    ids: list[str] = []
    with connection.cursor().copy(statement) as copy:
        header_bytes = _HEADER_BYTES
        for message in copy:
            row = memoryview(message)[header_bytes:]
            header_bytes = 0
            if len(row) <= _TRAILER_BYTES:
                continue
            if row[: len(start)] != start:
                raise DataError(_wrong_vector(row, dimension))
            blocks[0][len(ids)].data.cast("B")[:] = row[len(start) : floats_end]
            ids.append(str(row[floats_end + 4 :], "utf-8"))
            if len(ids) == block_rows:
                yield ids, _native(blocks[0])
                ids = []
                blocks.reverse()
    if ids:
        yield ids, _native(blocks[0][: len(ids)])


def _wrong_vector(row: memoryview, dimension: int) -> str:
    length, found = struct.unpack_from(">iH", row, 2)
    has = "is NULL" if length < 0 else f"has {found} dimensions"
    return f"a vector of the table {has} where {dimension} dimensions are searched: correct it or leave its row out"


def _native(big_endian: Matrix) -> Matrix:
    return big_endian.byteswap(inplace=True) if sys.byteorder == "little" else big_endian


def _read_ahead(blocks: Iterator[tuple[list[str], Matrix]]) -> Iterator[tuple[list[str], Matrix]]:
    with ThreadPoolExecutor(1, thread_name_prefix="read vectors") as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block
