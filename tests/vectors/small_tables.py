"""A small table of clustered vectors, of few dimensions so that building and searching it takes no time."""

from __future__ import annotations

import psycopg
from bench.families import topics
from pgvector.psycopg import register_vector

DIMENSION = 32


def table_with_vectors(conninfo, rows, queries, name="memories", seed=0):
    """Make a table of ids, users, versions and embeddings; returns the vectors of its rows and held-out queries."""
    vectors, asked = topics(rows, queries, DIMENSION, seed)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        register_vector(connection)
        connection.execute(
            f"CREATE TABLE {name} (id text PRIMARY KEY, user_id text, version bigint DEFAULT 1, "
            f"embedding vector({DIMENSION}))"
        )
        copy = f"COPY {name} (id, user_id, embedding) FROM STDIN (FORMAT binary)"
        with connection.cursor().copy(copy) as stream:
            stream.set_types(["text", "text", "vector"])
            for number, vector in enumerate(vectors):
                stream.write_row((f"id-{number:06}", f"user{number % 5}", vector))
        connection.execute(f"ANALYZE {name}")
    return vectors, asked
