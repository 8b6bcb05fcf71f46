"""The queries that an index is judged by: held-out questions of the rehearsal, or rows of the user's own table."""

from __future__ import annotations

import numpy as np
import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.rehearsal import Corpus
from orchestra_lib.vectors.nearest import Matrix


def corpus_queries(corpus: Corpus) -> tuple[Matrix, tuple[str, ...]]:
    """Vectors (float32, (q, 1536)) of the held-out questions, and the id of the row that answers each."""
    return corpus.query_embeddings, tuple(query.answer_id for query in corpus.queries)


def sampled_queries(
    connection: psycopg.Connection, table: sql.Identifier, count: int, dimension: int
) -> tuple[tuple[str, ...], Matrix]:
    """Ids and vectors (float32, (count, dimension)) of rows chosen by the hash of their id: the same on every run.

    A row is its own nearest neighbour, so the caller has to leave it out of truth and results. Raises DataError when
    the table is empty.
    """
    statement = sql.SQL("SELECT id, embedding FROM {} ORDER BY md5(id) LIMIT %s").format(table)
    rows = connection.execute(statement, [count], binary=True).fetchall()
    if not rows:
        raise DataError("the target table holds no row to search with")
    vectors = np.empty((len(rows), dimension), dtype=np.float32)
    for number, (_, vector) in enumerate(rows):
        vectors[number] = vector.to_numpy()
    return tuple(row[0] for row in rows), vectors
