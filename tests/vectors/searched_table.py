"""A small searched table for tests: few dimensions, so that an index takes a moment to build."""

from __future__ import annotations

import numpy as np
import psycopg
from bench.families import topics
from pgvector.psycopg import register_vector
from psycopg import sql
from stores import unit_vectors

from orchestra_lib.vectors.forms import Effort, Form, Method, Storage
from orchestra_lib.vectors.index import IndexSpec, build_index
from orchestra_lib.vectors.search import Searchable

DIMENSION = 64
COSINE = "vector_cosine_ops"
TABLE = sql.Identifier("memories")


def make_table(conninfo: str, rows: int, dimension: int = DIMENSION, seed: int = 0) -> np.ndarray:
    """Make ``memories`` with ``rows`` clustered unit vectors, every tenth of user ``rare``; returns the vectors."""
    vectors = unit_vectors(rows, seed, dimension, clusters=max(1, rows // 4))
    _make(conninfo, vectors)
    return vectors


def make_table_of_topics(conninfo: str, rows: int, queries: int) -> np.ndarray:
    """Make ``memories`` with rows of the benchmarks' clustered family; returns questions of it that are no rows."""
    vectors, asked = topics(rows, queries, DIMENSION, 0)
    _make(conninfo, vectors)
    return asked


def _make(conninfo: str, vectors: np.ndarray) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE memories (id text PRIMARY KEY, user_id text, version bigint DEFAULT 1, "
            f"embedding vector({vectors.shape[1]}))"
        )
        add_rows(connection, vectors)
        connection.execute("ANALYZE memories")


def add_rows(connection: psycopg.Connection, vectors: np.ndarray, first: int = 0) -> None:
    """Add rows ``id-00000000`` … with these vectors; every tenth is of user ``rare``, the others of ``many``."""
    register_vector(connection)
    with connection.cursor().copy("COPY memories (id, user_id, embedding) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["text", "text", "vector"])
        for number, vector in enumerate(vectors, start=first):
            copy.write_row((f"id-{number:08}", "many" if number % 10 else "rare", vector))


def spec(form: Form, dimension: int = DIMENSION, name: str | None = None) -> IndexSpec:
    """The index of that form on the table."""
    return IndexSpec("memories", form, COSINE, dimension, given_name=name)


def build(conninfo: str, form: Form, name: str | None = None) -> str:
    """Build an index of that form; returns its name."""
    return build_index(conninfo, spec(form, name=name), None, lambda _: None).name


def searchable(form: Form, opclass: str = COSINE, **changes: object) -> Searchable:
    """The ten nearest, by an index of that form."""
    return Searchable(TABLE, opclass, 10, form, dimension=DIMENSION, **changes)  # type: ignore[arg-type]


def thorough(form: Form) -> Effort:
    """An effort with which the form finds nearly everything in a small table."""
    value = {Method.EXACT: 1, Method.IVFFLAT: form.lists or 1, Method.HNSW: 400, Method.SCANN: 1}[form.method]
    # In an IVFFlat index candidates at one distance come in an order that each build draws anew: take more of them.
    candidates = 400 if form.method is Method.HNSW else 700
    return Effort(value, candidates if form.storage is Storage.BIT else None)
