"""Kept truth: used for the same question about the same rows, and for nothing else."""

from __future__ import annotations

import pytest
from psycopg import sql
from stores import fill, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.vectors import truth_cache
from orchestra_lib.vectors.truth import exact_neighbours
from orchestra_lib.vectors.truth_cache import cached_neighbours

TABLE = sql.Identifier("memories")
OPCLASS = "vector_cosine_ops"


@pytest.fixture
def asked(monkeypatch):
    """How often the truth was really computed."""
    calls = []

    def counted(*given, **named):
        calls.append(given)
        return exact_neighbours(*given, **named)

    monkeypatch.setattr(truth_cache, "exact_neighbours", counted)
    return calls


def test_the_same_question_about_the_same_rows_is_computed_once(pair, tmp_path, monkeypatch, asked):
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(tmp_path))
    vectors = fill(pair.target, 60)
    own = ("id-00000000", "id-00000001")
    with connect(pair.target) as connection:
        first = cached_neighbours(connection, TABLE, vectors[:2], 10, OPCLASS, own)
        assert cached_neighbours(connection, TABLE, vectors[:2], 10, OPCLASS, own) == first
        assert len(asked) == 1
        assert first == exact_neighbours(connection, TABLE, vectors[:2], 10, OPCLASS, own)
    assert len(list((tmp_path / "truth").glob("*"))) == 1, "nothing half made is left"


def test_another_question_or_another_table_is_computed_anew(pair, tmp_path, asked):
    fill(pair.target, 60)
    queries = unit_vectors(3, seed=1)
    where = sql.SQL("user_id = 'user1'")
    with connect(pair.target) as connection:

        def ask(queries=queries, k=5, opclass=OPCLASS, excluded=None, where=None):
            return cached_neighbours(connection, TABLE, queries, k, opclass, excluded, where, tmp_path)

        ask()
        for question in ({"queries": queries[::-1]}, {"k": 6}, {"opclass": "vector_l2_ops"}, {"where": where}):
            before = len(asked)
            ask(**question)
            assert len(asked) == before + 1
        connection.execute(
            "UPDATE memories SET embedding = embedding + embedding, version = 99 WHERE id = 'id-00000003'"
        )
        ask()
        assert len(asked) == 6
        connection.execute("DELETE FROM memories WHERE id = 'id-00000004'")
        assert ask().rows == 59


def test_a_file_that_cannot_be_read_is_named(pair, tmp_path):
    fill(pair.target, 20)
    with connect(pair.target) as connection:
        cached_neighbours(connection, TABLE, unit_vectors(1), 5, OPCLASS, directory=tmp_path)
        (kept,) = tmp_path.glob("*.npz")
        kept.write_bytes(kept.read_bytes()[:100])
        with pytest.raises(DataError, match=f"the kept truth in {kept} cannot be read"):
            cached_neighbours(connection, TABLE, unit_vectors(1), 5, OPCLASS, directory=tmp_path)


def test_only_so_many_are_kept(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(truth_cache, "_FILES_KEPT", 2)
    fill(pair.target, 20)
    with connect(pair.target) as connection:
        for k in range(1, 5):
            cached_neighbours(connection, TABLE, unit_vectors(1), k, OPCLASS, directory=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2
