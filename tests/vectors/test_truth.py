"""Exact neighbours: the same as the server's own exact scan, ties and near-duplicates included."""

from __future__ import annotations

import numpy as np
import pytest
from pgvector import Vector
from psycopg import sql
from stores import fill, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.truth import OPERATORS, Truth, exact_neighbours, filtered_neighbours, stream_vectors

TABLE = sql.Identifier("memories")


@pytest.mark.parametrize("opclass", list(OPERATORS))
def test_truth_is_what_an_exact_scan_of_the_server_gives(pair, opclass):
    fill(pair.target, 400)
    queries = unit_vectors(12, seed=9) * np.linspace(0.5, 2, 12, dtype=np.float32)[:, None]
    with connect(pair.target) as connection:
        truth = exact_neighbours(connection, TABLE, queries, 10, opclass)
        plan = connection.execute(
            "EXPLAIN SELECT id FROM memories ORDER BY embedding <=> %s LIMIT 10", [Vector(queries[0])]
        ).fetchall()
        assert "Seq Scan" in str(plan), "the server's answer must be exact for this comparison"
        for number, query in enumerate(queries):
            rows = connection.execute(
                f"SELECT id, embedding {OPERATORS[opclass]} %s AS d FROM memories ORDER BY d LIMIT 10", [Vector(query)]
            ).fetchall()
            assert [row[0] for row in rows] == list(truth.ids[number][:10])
            assert np.allclose([row[1] for row in rows], truth.distances[number][:10], atol=1e-5)


def test_blocks_do_not_change_the_truth(pair, monkeypatch):
    fill(pair.target, 300)
    queries = unit_vectors(5, seed=3)
    with connect(pair.target) as connection:
        whole = exact_neighbours(connection, TABLE, queries, 10, "vector_cosine_ops")
        monkeypatch.setattr(stream_vectors, "__defaults__", (17, None))
        assert exact_neighbours(connection, TABLE, queries, 10, "vector_cosine_ops").ids == whole.ids


def test_streamed_vectors_are_bit_for_bit_what_was_stored(pair):
    stored = fill(pair.target, 45)
    with connect(pair.target) as connection:
        blocks = [(list(ids), block.copy()) for ids, block in stream_vectors(connection, TABLE, 1536, block_rows=20)]
    assert [len(ids) for ids, _ in blocks] == [20, 20, 5]
    assert [key for ids, _ in blocks for key in ids] == [f"id-{n:08}" for n in range(45)]
    assert (np.vstack([block for _, block in blocks]) == stored).all()


def test_rows_as_near_as_the_kth_count_as_right(pair):
    fill(pair.target, 50)
    with connect(pair.target) as connection:
        connection.execute(
            "UPDATE memories SET embedding = (SELECT embedding FROM memories WHERE id = 'id-00000000') "
            "WHERE id < 'id-00000012'"
        )
        query = unit_vectors(50)[:1]
        truth = exact_neighbours(connection, TABLE, query, 10, "vector_cosine_ops")
    assert len(truth.accepted(0)) == 12, "twelve equal rows compete for ten places"


def test_a_row_used_as_query_is_not_its_own_neighbour(pair):
    vectors = fill(pair.target, 50)
    with connect(pair.target) as connection:
        truth = exact_neighbours(
            connection, TABLE, vectors[:2], 10, "vector_cosine_ops", excluded=("id-00000000", "id-00000001")
        )
    assert "id-00000000" not in truth.ids[0]
    assert truth.rows == 49
    assert truth.without_self(0, ("id-00000000", "a", "b")) == ("a", "b")


def test_fewer_rows_than_k_are_all_neighbours(pair):
    fill(pair.target, 4)
    with connect(pair.target) as connection:
        truth = exact_neighbours(connection, TABLE, unit_vectors(2, seed=1), 10, "vector_cosine_ops")
    assert [len(ids) for ids in truth.ids] == [4, 4]
    assert len(truth.accepted(0)) == 4


def test_an_empty_table_has_no_truth(pair):
    fill(pair.target, 0)
    with connect(pair.target) as connection, pytest.raises(DataError, match="no row"):
        exact_neighbours(connection, TABLE, unit_vectors(1), 10, "vector_cosine_ops")


def test_a_part_keeps_queries_and_exclusions_together():
    truth = Truth((("a",), ("b",), ("c",)), ((0.1,), (0.2,), (0.3,)), 1, 3, ("x", "y", "z"))
    assert truth.part(1, 2) == Truth((("b",),), ((0.2,),), 1, 3, ("y",))


def test_a_vector_of_another_dimension_is_refused(pair):
    fill(pair.target, 3)
    with connect(pair.target) as connection:
        connection.execute(
            "CREATE TABLE mixed AS SELECT id, embedding::vector FROM memories UNION SELECT 'x', '[1,2,3]'"
        )
        with pytest.raises(DataError, match="a vector of the table has 3 dimensions where 1536 are searched"):
            exact_neighbours(connection, sql.Identifier("mixed"), unit_vectors(1), 10, "vector_cosine_ops")


def test_what_no_index_holds_is_nobodys_neighbour(pair):
    fill(pair.target, 30)
    with connect(pair.target) as connection:
        connection.execute("CREATE TABLE gaps AS SELECT id, embedding FROM memories")
        connection.execute("UPDATE gaps SET embedding = NULL WHERE id < 'id-00000005'")
        connection.execute("UPDATE gaps SET embedding = embedding - embedding WHERE id > 'id-00000024'")
        table, queries = sql.Identifier("gaps"), unit_vectors(2, seed=4)
        cosine = exact_neighbours(connection, table, queries, 30, "vector_cosine_ops")
        l2 = exact_neighbours(connection, table, queries, 30, "vector_l2_ops")
    assert (cosine.rows, len(cosine.ids[0])) == (20, 20)
    assert (l2.rows, len(l2.ids[0])) == (25, 25), "a zero vector has a distance, and pgvector's index for L2 holds it"


def test_a_zero_vector_has_no_neighbours_by_angle(pair):
    fill(pair.target, 3)
    queries = np.vstack([unit_vectors(1), np.zeros((1, 1536), dtype=np.float32)])
    with connect(pair.target) as connection, pytest.raises(DataError, match="query 1 is the zero vector"):
        exact_neighbours(connection, TABLE, queries, 10, "vector_cosine_ops")


def test_a_condition_leaves_only_the_rows_that_it_lets_through(pair):
    fill(pair.target, 60)
    queries = unit_vectors(3, seed=2)
    with connect(pair.target) as connection:
        truth = exact_neighbours(connection, TABLE, queries, 5, "vector_cosine_ops", where=sql.SQL("user_id = 'user2'"))
    assert truth.rows == 12
    assert {int(key[3:]) % 5 for ids in truth.ids for key in ids} == {2}


def test_each_query_has_the_neighbours_that_its_own_filters_let_through(pair):
    fill(pair.target, 110)
    queries = unit_vectors(4, seed=2)
    filters = {
        "user_id": ["user1", "user1", "user3", "nobody"],
        "session_id": ["session6", "session2", "session3", "x"],
    }
    with connect(pair.target) as connection:
        truth = filtered_neighbours(connection, TABLE, queries, 10, "vector_cosine_ops", filters)
        alone = exact_neighbours(
            connection, TABLE, queries[1:2], 10, "vector_cosine_ops",
            where=sql.SQL("user_id = 'user1' AND session_id = 'session2'"),
        )  # fmt: skip
    assert truth.ids[1] == alone.ids[0]
    assert [truth.wanted(number) for number in range(4)] == [2, 2, 2, 0], "110 rows, 5 users, 11 sessions"
    assert truth.accepted(3) == frozenset()
