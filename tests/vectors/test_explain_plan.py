"""The traps of vector search on a real server: each is fallen into, told in a sentence, and the remedy tried."""

from __future__ import annotations

import re

import numpy as np
import psycopg
import pytest
from pgvector import Vector
from psycopg import sql
from searched_table import DIMENSION, TABLE, build, make_table
from stores import fill, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.vectors.explain_plan import Trap, why_not
from orchestra_lib.vectors.forms import Storage, hnsw, ivfflat

ROWS = 3_000
QUERY = {"q": Vector(unit_vectors(1, 9, DIMENSION)[0])}
RIGHT = "SELECT id FROM memories ORDER BY embedding <=> %(q)s LIMIT 10"
COLUMN = "memories.embedding"


@pytest.fixture(scope="module")
def filled(lasting_database):
    make_table(lasting_database, ROWS)
    with connect(lasting_database) as connection:
        connection.execute(f"CREATE TABLE asked (q vector({DIMENSION}))")
        connection.execute("INSERT INTO asked SELECT embedding FROM memories LIMIT 1")
    return lasting_database


@pytest.fixture
def session(filled):
    with connect(filled) as connection:
        for (name,) in connection.execute("SELECT indexname FROM pg_indexes WHERE indexname ~ 'ivf|hnsw'").fetchall():
            connection.execute(f'DROP INDEX "{name}"')
        connection.execute("SELECT '[1]'::vector <=> '[1]'::vector")
        yield connection


def explain(session, statement, **more):
    return why_not(session, sql.SQL(statement), QUERY if "%(q)s" in statement else {}, TABLE, **more)


@pytest.mark.parametrize(
    ("statement", "trap", "said", "remedied"),
    [
        ("SELECT id FROM memories ORDER BY 1 - (embedding <=> %(q)s) DESC LIMIT 10", Trap.WRAPPED, r"\?::doub", RIGHT),
        ("SELECT id FROM memories ORDER BY sqrt(embedding <=> %(q)s) LIMIT 10", Trap.WRAPPED, r"sqrt\(", RIGHT),
        ("SELECT id FROM memories ORDER BY cosine_distance(embedding, %(q)s) LIMIT 10", Trap.WRAPPED, "cosine_", RIGHT),
        ("SELECT id FROM memories ORDER BY embedding <=> %(q)s DESC LIMIT 10", Trap.DESCENDING, "nearest first", RIGHT),
        ("SELECT id FROM memories ORDER BY embedding <-> %(q)s LIMIT 10", Trap.OTHER_OPERATOR,
         r"by <->, the index answers <=> \(memories_embedding_ivfflat_30\)", RIGHT),
        (f"SELECT id FROM memories ORDER BY embedding::halfvec({DIMENSION}) <=> %(q)s::halfvec({DIMENSION}) LIMIT 10",
         Trap.OTHER_EXPRESSION, "the index is on embedding", RIGHT),
        ("SELECT id FROM memories ORDER BY user_id, embedding <=> %(q)s LIMIT 10", Trap.OTHER_ORDER, "else first",
         "SELECT id FROM (SELECT * FROM memories ORDER BY embedding <=> %(q)s LIMIT 10) x ORDER BY user_id"),
        ("SELECT id FROM memories ORDER BY embedding <=> %(q)s, id LIMIT 10", Trap.OTHER_ORDER, "more than the dist",
         "SELECT id FROM (SELECT * FROM memories ORDER BY embedding <=> %(q)s LIMIT 10) x ORDER BY id"),
        ("SELECT m.id FROM asked, memories m ORDER BY m.embedding <=> asked.q LIMIT 10", Trap.JOINED, "asked.q",
         "SELECT x.id FROM asked, LATERAL (SELECT id FROM memories m ORDER BY m.embedding <=> asked.q LIMIT 10) x"),
        ("SELECT id FROM memories WHERE embedding <=> %(q)s < 0.5 LIMIT 10", Trap.NO_ORDER, "no WHERE on", RIGHT),
    ],
)  # fmt: skip
def test_a_statement_that_no_index_can_answer_is_told_why_and_the_remedy_works(
    session, filled, statement, trap, said, remedied
):
    name = build(filled, ivfflat(30))
    session.execute("SET enable_seqscan = off")
    found = explain(session, statement)
    assert (found.uses, found.traps) == (None, (trap,))
    assert re.search(said, found.findings[0].sentence), found.findings[0].sentence
    assert found.findings[0].remedy
    assert explain(session, remedied).uses == name


def test_the_very_expression_of_a_halfvec_index_is_wanted(session, filled):
    name = build(filled, ivfflat(30, Storage.HALFVEC))
    session.execute("SET enable_seqscan = off")
    found = explain(session, RIGHT)
    assert found.traps == (Trap.OTHER_EXPRESSION,)
    assert "the index is on (embedding::halfvec)" in found.findings[0].sentence
    half = f"halfvec({DIMENSION})"
    assert (
        explain(session, f"SELECT id FROM memories ORDER BY embedding::{half} <=> %(q)s::{half} LIMIT 10").uses == name
    )


def test_no_index_and_an_index_that_is_not_valid_are_told_apart(session, filled):
    assert explain(session, RIGHT).traps == (Trap.NO_INDEX,)
    with connect(filled) as building, connect(filled, autocommit=False) as writer:
        writer.execute("UPDATE memories SET user_id = user_id WHERE id = 'id-00000000'")
        building.execute("SET statement_timeout = 300")  # the build waits for the writer, and is cut off
        with pytest.raises(psycopg.errors.QueryCanceled):
            building.execute(
                "CREATE INDEX CONCURRENTLY cut_off_ivfflat ON memories USING ivfflat (embedding vector_cosine_ops) "
                "WITH (lists = 30)"
            )
        writer.rollback()
    found = explain(session, RIGHT)
    assert found.traps == (Trap.NOT_VALID,)
    session.execute(found.findings[0].remedy.split(" and ")[0])
    assert explain(session, RIGHT).traps == (Trap.NO_INDEX,)


def test_without_a_limit_the_index_silently_leaves_rows_out(session, filled):
    """https://github.com/pgvector/pgvector/issues/846"""
    name = build(filled, ivfflat(30))
    statement = "SELECT id FROM memories ORDER BY embedding <=> %(q)s"
    assert explain(session, statement).traps == (Trap.NO_LIMIT,)
    assert len(session.execute(statement, QUERY).fetchall()) == ROWS
    session.execute("SET enable_seqscan = off")
    found = explain(session, statement)
    assert (found.uses, found.traps) == (name, (Trap.NO_LIMIT,))
    assert len(session.execute(statement, QUERY).fetchall()) < ROWS, "one list of thirty"
    session.execute("SET enable_indexscan = off")
    assert len(session.execute(statement, QUERY).fetchall()) < ROWS, "both switched off is as if neither were"
    session.execute("SET enable_seqscan = on")
    assert len(session.execute(statement, QUERY).fetchall()) == ROWS, "the remedy"


def test_probes_as_many_as_lists_drive_the_planner_to_the_table(session, filled):
    build(filled, ivfflat(30))
    session.execute("SET ivfflat.probes = 30")
    session.execute("SET work_mem = '4MB'")
    found = explain(session, "SELECT id FROM memories ORDER BY embedding <=> %(q)s LIMIT 2999")
    assert found.traps == (Trap.ALL_PROBES,)
    assert "ivfflat.probes is 30" in found.findings[0].sentence
    session.execute("SET enable_seqscan = off")
    assert explain(session, RIGHT).traps == (Trap.ALL_PROBES,), "and where it may not, every row is sorted"
    session.execute("SET ivfflat.probes = 3")
    assert explain(session, RIGHT).traps == ()


def test_a_table_whose_vectors_lie_in_toast_is_read_rather_than_searched(pair):
    fill(pair.target, 400)
    with connect(pair.target) as connection:
        connection.execute(
            "CREATE INDEX wide ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = 20)"
        )
        connection.execute("ANALYZE memories")
        wide = {"q": Vector(unit_vectors(1, 9)[0])}
        connection.execute("SELECT '[1]'::vector <=> '[1]'::vector")
        connection.execute("SET ivfflat.probes = 12")
        found = why_not(connection, sql.SQL(RIGHT), wide, TABLE)
        assert found.traps == (Trap.COST,)
        assert "cheaper than wide with 12 probes" in found.findings[0].sentence
        connection.execute("SET enable_seqscan = off")
        assert why_not(connection, sql.SQL(RIGHT), wide, TABLE).uses == "wide"


def test_a_filter_that_is_applied_after_the_search_is_warned_of_until_the_scan_is_iterative(session, filled):
    name = build(filled, ivfflat(30))
    statement = "SELECT id FROM memories WHERE user_id = 'rare' ORDER BY embedding <=> %(q)s LIMIT 100"
    session.execute("SET enable_seqscan = off")
    found = explain(session, statement)
    assert (found.uses, found.traps) == (name, (Trap.FILTERED,))
    assert len(session.execute(statement, QUERY).fetchall()) < 100
    session.execute(found.findings[0].remedy.split(",")[0])
    assert explain(session, statement).traps == ()
    assert len(session.execute(statement, QUERY).fetchall()) == 100


def test_two_indexes_on_a_column_live_by_one_setting_and_which_one_answers_changes_with_it(session, filled):
    build(filled, ivfflat(10))
    build(filled, ivfflat(50))
    session.execute("SET enable_seqscan = off")
    answering = set()
    for probes in (1, 9, 50):
        session.execute(f"SET ivfflat.probes = {probes}")
        found = explain(session, RIGHT)
        assert Trap.TWO_INDEXES in found.traps
        answering.add(found.uses)
    assert answering == {"memories_embedding_ivfflat_10", "memories_embedding_ivfflat_50"}


def test_an_index_of_another_method_is_no_twin(session, filled):
    build(filled, ivfflat(30))
    build(filled, hnsw(4, 8))
    session.execute("SET enable_seqscan = off")
    assert explain(session, RIGHT).traps == ()


def test_rows_that_do_not_fit_into_work_mem_are_sorted_on_the_disk_and_the_remedy_is_enough(session, filled):
    build(filled, ivfflat(30))
    session.execute("SET enable_seqscan = off")
    session.execute("SET ivfflat.probes = 29")
    session.execute("SET work_mem = '64kB'")
    found = explain(session, RIGHT, run=True)
    assert found.traps == (Trap.SPILLED,)
    assert "work_mem of 64 kB" in found.findings[0].sentence
    session.execute(re.match(r"SET work_mem = '\d+kB'", found.findings[0].remedy).group())
    assert explain(session, RIGHT, run=True).traps == ()


def test_null_and_zero_vectors_are_not_in_a_cosine_index_and_no_search_finds_them(pair):
    with connect(pair.target) as connection:
        connection.execute("CREATE TABLE memories (id int PRIMARY KEY, embedding vector(3))")
        connection.execute(
            "INSERT INTO memories SELECT n, CASE n %% 3 WHEN 0 THEN NULL WHEN 1 THEN '[0,0,0]'::vector "
            "ELSE ARRAY[n, 1, 2]::vector END FROM generate_series(1, 30) n",
            (),
        )
        connection.execute("CREATE INDEX ON memories USING hnsw (embedding vector_cosine_ops)")
        connection.execute("SET enable_seqscan = off")
        near = "SELECT id FROM memories ORDER BY embedding <=> '[1,1,1]' LIMIT 30"
        assert {key % 3 for (key,) in connection.execute(near)} == {2}
        connection.execute("SET enable_indexscan = off")
        connection.execute("SET enable_seqscan = on")
        assert len(connection.execute(near).fetchall()) == 30, "an exact search gives them, last"


def test_fewer_rows_than_lists_can_be_indexed_and_searched(session, filled):
    with connect(filled) as connection:
        connection.execute(f"CREATE TABLE few (id int, embedding vector({DIMENSION}))")
        connection.execute("INSERT INTO few SELECT row_number() OVER (), embedding FROM memories LIMIT 5")
        connection.execute("CREATE INDEX ON few USING ivfflat (embedding vector_cosine_ops) WITH (lists = 100)")
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET ivfflat.probes = 100")
        found = connection.execute("SELECT id FROM few ORDER BY embedding <=> %(q)s LIMIT 10", QUERY).fetchall()
        connection.execute("DROP TABLE few")
    assert len(found) == 5


def test_duplicated_vectors_fill_one_list_and_an_index_of_nothing_else_still_answers(pair):
    same = np.ones(8, dtype=np.float32)
    with connect(pair.target) as connection:
        connection.execute("CREATE TABLE memories (id int PRIMARY KEY, embedding vector(8))")
        connection.execute("INSERT INTO memories SELECT n, %s FROM generate_series(1, 500) n", [Vector(same)])
        connection.execute("CREATE INDEX ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = 20)")
        connection.execute("SET enable_seqscan = off")
        near = "SELECT id FROM memories ORDER BY embedding <=> %s LIMIT 600"
        assert len(connection.execute(near, [Vector(same)]).fetchall()) == 500
