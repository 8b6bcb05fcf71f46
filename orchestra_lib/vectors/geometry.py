"""What virtual indexes are computed from: the queries, the vectors of their true neighbours, and a random sample."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.kmeans import directions
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.projection import principal_axes
from orchestra_lib.vectors.truth import Truth, stream_vectors

_IN_MEMORY_BYTES = 1 << 29  # a larger sample lies in a temporary file, of which the system keeps what it has room for
_PROJECTED_FROM = 16_384  # rows of a sample; with fewer all dimensions cost little
_MORE, _MORE_ROWS = 1.1, 1_000  # room for a Bernoulli sample, whose size is not fixed


@dataclass(frozen=True)
class Geometry:
    """Queries (float32 (q, d)), where their neighbours and some random rows lie, and how many rows there are in all.

    ``neighbours``: float32 (m, d), each true neighbour of any query once; ``accepted``: for each query the numbers of
    its k nearest and of whatever is as near as the k-th, int64; ``wanted``: how many of them count, k unless there are
    fewer; ``sample``: float32 (s, d), random rows, of unit length where only directions are trained on; ``rows``: rows
    that an index would hold. ``axes`` (d, a) and ``projected`` (s, a): a few directions and the sample along them, None
    where the sample is small or takes too many.
    """

    queries: Matrix
    neighbours: Matrix
    accepted: tuple[NDArray[np.int64], ...]
    wanted: int
    sample: Matrix
    rows: int
    opclass: str
    storage: Storage = Storage.VECTOR
    axes: Matrix | None = None
    projected: Matrix | None = None

    @property
    def dimension(self) -> int:
        """Of queries and rows."""
        return int(self.queries.shape[1])

    @property
    def spherical(self) -> bool:
        """Whether pgvector trains this operator class on directions alone."""
        return is_spherical(self.opclass)

    def in_storage(self, storage: Storage) -> Geometry:
        """The same for an index of this storage. Rounding to halfvec moves no centroid by more than its own error."""
        return replace(self, storage=storage)

    def part(self, queries: NDArray[np.int64]) -> Geometry:
        """The same for some of the queries, by their numbers."""
        return replace(
            self, queries=self.queries[queries], accepted=tuple(self.accepted[number] for number in queries.tolist())
        )


def is_spherical(opclass: str) -> bool:
    """Whether pgvector trains an operator class on directions alone (sql/vector.sql: it has a norm for k-means)."""
    return opclass != "vector_l2_ops"


def read_geometry(
    connection: psycopg.Connection,
    table: sql.Composable,
    queries: Matrix,
    truth: Truth,
    opclass: str,
    *,
    sample_rows: int,
    seed: int = 0,
) -> Geometry:
    """Read the neighbours' vectors and a sample of at most ``sample_rows`` rows from a table of ids and embeddings.

    ``truth`` is that of the queries over the whole table; read both in one transaction of isolation level REPEATABLE
    READ where the table is written to. Raises DataError when a neighbour is not there any more, or queries have
    different numbers of neighbours, as under a filter of their own.
    """
    wanted = {truth.wanted(number) for number in range(len(truth.ids))}
    if len(wanted) != 1:
        raise DataError("queries with different numbers of neighbours have no virtual index in common")
    numbers = {key: number for number, key in enumerate(dict.fromkeys(key for ids in truth.ids for key in ids))}
    accepted = tuple(
        np.array([numbers[key] for key in sorted(truth.accepted(query))], dtype=np.int64)
        for query in range(len(truth.ids))
    )
    sample = sampled_vectors(connection, table, queries.shape[1], truth.rows, sample_rows, opclass, seed)
    axes = principal_axes(sample, seed) if len(sample) >= _PROJECTED_FROM else None
    return Geometry(
        queries=queries,
        neighbours=vectors_of(connection, table, tuple(numbers), queries.shape[1]),
        accepted=accepted,
        wanted=wanted.pop(),
        sample=sample,
        rows=truth.rows + (truth.excluded is not None),
        opclass=opclass,
        axes=axes,
        projected=None if axes is None else sample @ axes,
    )


def vectors_of(connection: psycopg.Connection, table: sql.Composable, keys: tuple[str, ...], dimension: int) -> Matrix:
    """The vectors of these rows, float32 (n, dimension), in this order. Raises DataError when a row is missing."""
    places = {key: place for place, key in enumerate(keys)}
    found = np.empty((len(keys), dimension), dtype=np.float32)
    seen = 0
    where = sql.SQL("id = ANY({})").format(sql.Literal(list(keys)))
    for ids, vectors in stream_vectors(connection, table, dimension, where=where):
        found[[places[key] for key in ids]] = vectors
        seen += len(ids)
    if seen != len(keys):
        raise DataError(
            f"{len(keys) - seen} of {len(keys)} nearest rows are not in the table any more: it was changed meanwhile; "
            "compute the truth again in the same transaction"
        )
    return found


def sampled_vectors(
    connection: psycopg.Connection,
    table: sql.Composable,
    dimension: int,
    rows: int,
    most: int,
    opclass: str,
    seed: int,
) -> Matrix:
    """About ``most`` rows of a table of about ``rows``, drawn at random, in the table's order: float32 (n, dimension).

    They have unit length where the operator class is trained on directions, and zero vectors are left out then.
    pgvector samples blocks and then rows among theirs, which differs only where blocks hold few rows.
    """
    source, room = table, rows + _MORE_ROWS  # the table may have grown
    if most < rows:
        room = int(_MORE * most) + _MORE_ROWS
        source = sql.SQL("{} TABLESAMPLE BERNOULLI ({}) REPEATABLE ({})").format(
            table, sql.Literal(100 * most / rows), sql.Literal(seed)
        )
    found, count = _room(room, dimension), 0
    for _, block in stream_vectors(connection, source, dimension):
        vectors = directions(block) if is_spherical(opclass) else block
        taken = min(len(vectors), room - count)
        found[count : count + taken] = vectors[:taken]
        count += taken
    return found[:count]


def _room(rows: int, dimension: int) -> Matrix:
    if 4 * rows * dimension < _IN_MEMORY_BYTES:
        return np.empty((rows, dimension), dtype=np.float32)
    with tempfile.TemporaryFile(prefix="orchestra-sample-") as file:  # it lives on as long as the array does
        return np.memmap(file, dtype=np.float32, shape=(rows, dimension))
