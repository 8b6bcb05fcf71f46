"""The exact nearest neighbours, computed beside the database: the truth that every index is judged against.

Vectors are streamed from the table in blocks (bounded memory); while one block is searched the next one is read.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

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

    ``ids``: one tuple a query, at least k of them where there are as many; ``distances``: float64 in the same shape, in
    the operator's own unit; ``k``: how many neighbours count; ``rows``: how many there are to find (with a filter, for
    the query that has the most). ``excluded``: for queries that are rows of the table, their own ids, which never count
    as found.
    """

    ids: tuple[tuple[str, ...], ...]
    distances: tuple[tuple[float, ...], ...]
    k: int
    rows: int
    excluded: tuple[str, ...] | None = None

    def part(self, start: int, step: int) -> Truth:
        """The truth of every ``step``-th query from ``start``."""
        return self.take(range(start, len(self.ids), step))

    def take(self, queries: Iterable[int]) -> Truth:
        """The truth of the queries of these numbers, in this order."""
        numbers = list(queries)
        return replace(
            self,
            ids=tuple(self.ids[number] for number in numbers),
            distances=tuple(self.distances[number] for number in numbers),
            excluded=tuple(self.excluded[number] for number in numbers) if self.excluded is not None else None,
        )

    def wanted(self, query: int) -> int:
        """How many rows a complete answer to a query has: k, or fewer where there are not as many."""
        return min(self.k, len(self.ids[query]))

    def without_self(self, query: int, found: tuple[str, ...]) -> tuple[str, ...]:
        """The first k of what a search found, the query's own row left out."""
        others = found if self.excluded is None else tuple(key for key in found if key != self.excluded[query])
        return others[: self.k]

    def accepted(self, query: int) -> frozenset[str]:
        """The ids that count as right for a query: its k nearest and whatever is as near as the k-th."""
        distances = self.distances[query]
        edge = distances[self.wanted(query) - 1] + TIE if distances else 0.0
        return frozenset(key for key, distance in zip(self.ids[query], distances, strict=True) if distance <= edge)


def exact_neighbours(
    connection: psycopg.Connection,
    table: sql.Composable,
    queries: Matrix,
    k: int,
    opclass: str,
    excluded: tuple[str, ...] | None = None,
    where: sql.Composable | None = None,
) -> Truth:
    """The k nearest rows of every query, over the whole table, or over those that a condition ``where`` lets through.

    ``queries`` is float32 (q, dimension); ``excluded`` names the row that each query is, where queries are rows. Rows
    without a vector are nobody's neighbours, nor are zero vectors where the angle counts: no index holds them.
    Raises DataError when there is no row, a vector has another dimension than the queries, or a query is the zero
    vector where the angle counts.
    """
    truth = _neighbours(connection, table, queries, k, opclass, excluded, where)
    if not truth.rows:
        raise DataError("the table holds no row: there is no nearest neighbour to compare with")
    return truth


def filtered_neighbours(
    connection: psycopg.Connection,
    table: sql.Composable,
    queries: Matrix,
    k: int,
    opclass: str,
    filters: Mapping[str, Sequence[str]],
    excluded: tuple[str, ...] | None = None,
) -> Truth:
    """The k nearest rows of every query among those that have the query's own values in some columns.

    ``filters`` holds for each column one value a query, compared as text. A query may have fewer than k neighbours, or
    none: see ``Truth.wanted``. Raises DataError as ``exact_neighbours`` does, but not for filters that let nothing
    through.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, values in enumerate(zip(*filters.values(), strict=True)):
        groups.setdefault(values, []).append(number)
    ids: list[tuple[str, ...]] = [()] * len(queries)
    distances: list[tuple[float, ...]] = [()] * len(queries)
    rows = 0
    for values, numbers in groups.items():
        where = sql.SQL(" AND ").join(
            sql.SQL("{}::text = {}").format(sql.Identifier(column), sql.Literal(value))
            for column, value in zip(filters, values, strict=True)
        )
        own = tuple(excluded[number] for number in numbers) if excluded is not None else None
        part = _neighbours(connection, table, queries[numbers], k, opclass, own, where)
        rows = max(rows, part.rows)
        for place, number in enumerate(numbers):
            ids[number], distances[number] = part.ids[place], part.distances[place]
    return Truth(tuple(ids), tuple(distances), k, rows, excluded)


def _neighbours(
    connection: psycopg.Connection,
    table: sql.Composable,
    queries: Matrix,
    k: int,
    opclass: str,
    excluded: tuple[str, ...] | None,
    where: sql.Composable | None,
) -> Truth:
    if opclass == "vector_cosine_ops" and (zero := np.flatnonzero(~queries.any(axis=1))).size:
        raise DataError(f"query {zero[0]} is the zero vector, which has no angle to any row: leave it out")
    blocks = _read_ahead(stream_vectors(connection, table, queries.shape[1], where=where))
    found = nearest(queries, blocks, k if excluded is None else k + 1, opclass)
    truth = Truth(found.ids, found.distances, k, found.rows)
    return truth if excluded is None else _leaving_out(truth, excluded)


def _leaving_out(truth: Truth, excluded: tuple[str, ...]) -> Truth:
    kept = [
        [(key, distance) for key, distance in zip(keys, distances, strict=True) if key != own]
        for keys, distances, own in zip(truth.ids, truth.distances, excluded, strict=True)
    ]
    ids = tuple(tuple(key for key, _ in row) for row in kept)
    distances = tuple(tuple(distance for _, distance in row) for row in kept)
    return Truth(ids, distances, truth.k, max(0, truth.rows - 1), excluded)


def stream_vectors(
    connection: psycopg.Connection,
    table: sql.Composable,
    dimension: int,
    block_rows: int = _BLOCK_ROWS,
    where: sql.Composable | None = None,
) -> Iterator[tuple[list[str], Matrix]]:
    """Ids and float32 embeddings (n, dimension) of a table with columns id and embedding, in blocks.

    Rows without an embedding, or that ``where`` does not let through, are left out. A block is overwritten when the one
    after the next is asked for. Raises DataError when a vector has another dimension.
    """
    statement = sql.SQL(
        "COPY (SELECT embedding, id::text FROM {} WHERE embedding IS NOT NULL AND ({})) TO STDOUT (FORMAT binary)"
    ).format(table, where or sql.SQL("true"))
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
    _, found = struct.unpack_from(">iH", row, 2)
    return (
        f"a vector of the table has {found} dimensions where {dimension} are searched: correct it or leave its row out"
    )


def _native(big_endian: Matrix) -> Matrix:
    return big_endian.byteswap(inplace=True) if sys.byteorder == "little" else big_endian


def _read_ahead(blocks: Iterator[tuple[list[str], Matrix]]) -> Iterator[tuple[list[str], Matrix]]:
    with ThreadPoolExecutor(1, thread_name_prefix="read vectors") as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block
