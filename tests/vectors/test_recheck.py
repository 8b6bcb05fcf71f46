"""The truth against the server's own exact scan: agreement is found, and so is every kind of disagreement."""

from __future__ import annotations

from dataclasses import replace

import pytest
from psycopg import sql
from stores import fill, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.vectors import recheck
from orchestra_lib.vectors.recheck import verified_by_sql
from orchestra_lib.vectors.truth import OPERATORS, exact_neighbours

TABLE = sql.Identifier("memories")


def test_the_truth_of_every_operator_agrees_with_the_server(pair):
    vectors = fill(pair.target, 200)
    with connect(pair.target) as connection:
        connection.execute("CREATE INDEX ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = 5)")
        connection.execute("SET enable_seqscan = off")
        for opclass in OPERATORS:
            queries = unit_vectors(6, seed=3)
            truth = exact_neighbours(connection, TABLE, queries, 10, opclass)
            checked = verified_by_sql(connection, TABLE, truth, queries, 4, opclass)
            assert (checked.queries, checked.agreed, checked.disagreements) == (4, 4, ())
            assert checked.largest_difference < 1e-5
        own = ("id-00000000", "id-00000001")
        truth = exact_neighbours(connection, TABLE, vectors[:2], 10, "vector_cosine_ops", excluded=own)
        assert verified_by_sql(connection, TABLE, truth, vectors[:2], 9, "vector_cosine_ops").agreed == 2
        where = sql.SQL("user_id = 'user1'")
        truth = exact_neighbours(connection, TABLE, vectors[:2], 60, "vector_cosine_ops", where=where)
        assert verified_by_sql(connection, TABLE, truth, vectors[:2], 2, "vector_cosine_ops", where).agreed == 2


def test_a_truth_that_is_none_is_found_out(pair):
    fill(pair.target, 100)
    queries = unit_vectors(1, seed=3)
    with connect(pair.target) as connection:
        truth = exact_neighbours(connection, TABLE, queries, 10, "vector_cosine_ops")

        def disagreements(**wrong):
            return verified_by_sql(
                connection, TABLE, replace(truth, **wrong), queries, 1, "vector_cosine_ops"
            ).disagreements

        (ids,), (distances,) = truth.ids, truth.distances
        assert disagreements() == ()
        assert "does not find nobody" in disagreements(ids=((*ids[:2], "nobody", *ids[3:]),))[0]
        assert "a distance differs by 0.01" in disagreements(distances=((*distances[:9], distances[9] + 0.01),))[0]
        connection.execute("DELETE FROM memories WHERE id > 'id-00000005'")
        assert "the server has 6 rows, the truth 10" in disagreements()[0]


def test_a_plan_that_reads_an_index_is_no_check(pair, monkeypatch):
    fill(pair.target, 200)
    queries = unit_vectors(1, seed=3)
    monkeypatch.setattr(recheck, "_PLANNER", {"enable_seqscan": "off"})
    with connect(pair.target) as connection:
        connection.execute("CREATE INDEX some_index ON memories USING ivfflat (embedding vector_cosine_ops)")
        truth = exact_neighbours(connection, TABLE, queries, 10, "vector_cosine_ops")
        with pytest.raises(DataError, match="would read the index some_index, which is not exact"):
            verified_by_sql(connection, TABLE, truth, queries, 1, "vector_cosine_ops")
