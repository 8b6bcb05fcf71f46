"""Builders of small memory stores for tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from orchestra_lib.memory.schema import COLUMN_TYPES, COLUMNS, create_table

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Pair:
    """Connection strings of an empty source and an empty target database, both with pgvector."""

    source: str
    target: str


def unit_vectors(count: int, seed: int = 0, dimension: int = 1536, clusters: int = 20) -> np.ndarray:
    """Clustered unit vectors (float32): close enough to real ones for an index to have something to find."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dimension))
    vectors = centres[rng.integers(clusters, size=count)] + 0.6 * rng.standard_normal((count, dimension)) @ np.diag(
        np.linspace(1.5, 0.1, dimension)
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fill(
    conninfo: str, count: int, table: str = "memories", seed: int = 0, first: int = 0, clusters: int = 20
) -> np.ndarray:
    """Make the table if need be and load ``count`` rows ``id-00000000`` …; returns their vectors."""
    vectors = unit_vectors(count, seed, clusters=clusters)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(create_table(table))
        register_vector(connection)
        with connection.cursor().copy(f"COPY {table} ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(list(COLUMN_TYPES.values()))
            for number, vector in enumerate(vectors, start=first):
                copy.write_row(row(number, vector))
    return vectors


def row(number: int, vector: np.ndarray) -> tuple:
    """One row in column order: text beyond ASCII, nested JSON, and a NULL in every third."""
    moment = EPOCH + timedelta(seconds=number)
    return (
        f"id-{number:08}", f"agent{number % 7}", f"user{number % 5}", f"session{number % 11}", "Cherry", "note",
        f"Zürich ☂ {number}\n" * (1 + number % 3), Jsonb({"n": number, "nested": {"π": [1, 2.5, None]}}), vector,
        "test/1", 1 + number % 4, moment, moment, None if number % 3 == 0 else moment + timedelta(days=30),
    )  # fmt: skip
