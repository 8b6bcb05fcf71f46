"""What virtual indexes are computed from: the queries, the vectors of their true neighbours, and a random sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.pages import Storage
from orchestra_lib.vectors.truth import Truth


@dataclass(frozen=True)
class Geometry:
    """Queries (float32 (q, d)), where their neighbours and some random rows lie, and how many rows there are in all.

    ``neighbours``: float32 (m, d), each true neighbour of any query once; ``accepted``: for each query the numbers of
    its k nearest and of whatever is as near as the k-th, int64; ``wanted``: how many of them count, k unless the table
    has fewer rows; ``sample``: float32 (s, d), random rows in random order; ``rows``: rows that an index would hold.
    """

    queries: Matrix
    neighbours: Matrix
    accepted: tuple[NDArray[np.int64], ...]
    wanted: int
    sample: Matrix
    rows: int
    opclass: str
    storage: Storage = "vector"

    @property
    def dimension(self) -> int:
        """Of queries and rows."""
        return self.queries.shape[1]

    @property
    def spherical(self) -> bool:
        """Whether pgvector trains this operator class on directions alone."""
        return self.opclass != "vector_l2_ops"

    def in_storage(self, storage: Storage) -> Geometry:
        """The same vectors as an index of this storage holds them."""
        raise NotImplementedError

    def part(self, queries: NDArray[np.int64]) -> Geometry:
        """The same for some of the queries, by their numbers."""
        return replace(self, queries=self.queries[queries], accepted=tuple(self.accepted[number] for number in queries))


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

    ``truth`` is that of the queries. Raises DataError when a neighbour is not there any more.
    """
    raise NotImplementedError
