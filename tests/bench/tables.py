"""Tables of vectors for the benchmarks of the optimizer, from a synthetic family or from the rehearsal's corpus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import psycopg
from families import FAMILIES
from pgvector.psycopg import register_vector

from orchestra_lib.paths import state_directory
from orchestra_lib.rehearsal import corpus
from orchestra_lib.vectors.nearest import Matrix

TABLE = "memories"
KINDS = (*FAMILIES, "corpus")


@dataclass(frozen=True)
class Made:
    """Rows and held-out queries (float32), and what they are, in words."""

    rows: Matrix
    queries: Matrix
    label: str


def make(kind: str, rows: int, queries: int, dimension: int, seed: int) -> Made:
    """A synthetic family of so many rows; the rehearsal's corpus or a .npy file, which have rows of their own."""
    if kind.endswith(".npy"):
        kept = np.load(kind, allow_pickle=False).astype(np.float32)
        order = np.random.default_rng(seed).permutation(len(kept))
        return Made(kept[order[queries:]], kept[order[:queries]], f"rows of {kind}, some held out as queries")
    if kind == "corpus":
        made = corpus.build(seed, queries, state_directory() / "corpus")
        return Made(made.embeddings, made.query_embeddings, f"rehearsal corpus, {made.embedding_model}")
    if kind not in FAMILIES:
        raise SystemExit(f"--kind {kind} is none of {', '.join(KINDS)}, nor a .npy file of float32 (rows, dimension)")
    vectors, asked = FAMILIES[kind](rows, queries, dimension, seed)
    return Made(vectors, asked, f"synthetic, family {kind}")


def load(conninfo: str, vectors: Matrix) -> None:
    """Fill a table of ids, versions and embeddings."""
    dimension = vectors.shape[1]
    with psycopg.connect(conninfo, autocommit=True) as connection:
        register_vector(connection)
        connection.execute(
            f"CREATE TABLE {TABLE} (id text PRIMARY KEY, version bigint DEFAULT 1, embedding vector({dimension}))"
        )
        with connection.cursor().copy(f"COPY {TABLE} (id, embedding) FROM STDIN (FORMAT binary)") as stream:
            stream.set_types(["text", "vector"])
            for number, vector in enumerate(vectors):
                stream.write_row((f"{number:08}", vector))
        connection.execute(f"VACUUM ANALYZE {TABLE}")
