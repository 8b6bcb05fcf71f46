"""The queries that an index is judged by: logged ones, held-out questions of the rehearsal, or rows of the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg
from psycopg import sql

from orchestra_lib.bench.replay import Replay, read_queries, read_server_log
from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.rehearsal import Corpus
from orchestra_lib.vectors.goals import Queries
from orchestra_lib.vectors.nearest import Matrix

_READERS = {".jsonl": read_queries, ".parquet": read_queries, ".csv": read_server_log, ".json": read_server_log}


def judging_queries(
    address: Address, table: str, dimension: int, count: int, corpus: Corpus | None, replay: str | None
) -> Queries:
    """The best queries that there are: logged ones from a file, else the rehearsal's questions, else rows of the table.

    Raises ParameterError for a file that is not there or has an unknown ending, DataError for one without queries of
    the table's dimension, and for an empty table.
    """
    if replay is not None:
        return _logged(Path(replay), dimension, count)
    if corpus is not None:
        return Queries(corpus.query_embeddings, None, "held-out questions")
    with connect(address, role="target") as session:
        ids, vectors = sampled_queries(session, sql.Identifier(table), count, dimension)
    return Queries(vectors, ids, "rows of the table")


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


def read_replay(path: Path) -> Replay:
    """Logged queries: of JSON lines or Parquet, or from PostgreSQL's own log as csvlog or jsonlog.

    Raises ParameterError for a file that is not there or has another ending, DataError for one without a search.
    """
    if path.suffix not in _READERS:
        raise ParameterError(
            f"replay {path} is read by its ending: .jsonl or .parquet for queries, .csv or .json for PostgreSQL's log"
        )
    if not path.is_file():
        raise ParameterError(f"replay {path} is not there; the working folder is {Path.cwd()}")
    return _READERS[path.suffix](path)


def _logged(path: Path, dimension: int, count: int) -> Queries:
    """The last ``count`` logged queries, which are the most like those to come."""
    found = read_replay(path)
    if found.vectors.shape[1] != dimension:
        raise DataError(f"{path} holds vectors of {found.vectors.shape[1]} dimensions, the table has {dimension}")
    return Queries(found.vectors[-count:], None, "logged production queries")
