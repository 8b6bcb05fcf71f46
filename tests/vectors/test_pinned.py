"""Two indexes on one column: the one that is named answers, in this session alone, whatever the planner prefers."""

from __future__ import annotations

import pytest
from searched_table import COSINE, DIMENSION, TABLE, build, make_table, searchable
from stores import unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.forms import Effort, Method, hnsw, ivfflat
from orchestra_lib.vectors.pinned import PlanLost
from orchestra_lib.vectors.search import recalls, search, searching
from orchestra_lib.vectors.truth import exact_neighbours

ROWS = 1_500
QUERIES = unit_vectors(ROWS + 20, 0, DIMENSION, clusters=ROWS // 4)[ROWS:]


@pytest.fixture(scope="module")
def table(lasting_database):
    make_table(lasting_database, ROWS)
    return lasting_database


def scans(connection):
    connection.execute("SELECT pg_stat_force_next_flush()")
    rows = connection.execute("SELECT indexrelname, idx_scan FROM pg_stat_user_indexes WHERE indexrelname ~ '^x'")
    return dict(rows.fetchall())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (ivfflat(10), ivfflat(40)),
        (ivfflat(40), ivfflat(10)),
        (ivfflat(20), ivfflat(20)),
        (ivfflat(20), hnsw()),
        (hnsw(), ivfflat(20)),
        (hnsw(), hnsw(24, 80)),
        (hnsw(24, 80), hnsw()),
    ],
    ids=lambda form: form.label,
)
def test_the_newer_of_two_indexes_is_searched_alone_with_the_effort_that_was_asked_for(table, old, new):
    build(table, old, "x_old")
    build(table, new, "x_new")
    effort = Effort(3 if new.method is Method.IVFFLAT else 10)
    with connect(table) as connection:
        truth = exact_neighbours(connection, TABLE, QUERIES, 10, COSINE)
        before = scans(connection)
        run = search(connection, searchable(new, only="x_new"), QUERIES, effort)
        after = scans(connection)
        assert run.plan_uses == "x_new"
        assert after["x_new"] - before["x_new"] == len(QUERIES) + 1, "one more to have it planned"
        assert after["x_old"] == before["x_old"]
        connection.execute("DROP INDEX x_old")
        assert search(connection, searchable(new), QUERIES, effort).ids == run.ids, "as it answers when it is alone"
        if new.method is Method.IVFFLAT:
            assert recalls(run, truth).mean() < 1.0, "it was not searched with the probes that it was planned with"
        connection.execute("DROP INDEX x_new")


def test_an_index_that_cannot_answer_the_search_is_said_to_be_so(table):
    build(table, ivfflat(20), "x_cosine")
    with connect(table) as connection:
        with pytest.raises(DataError, match="no index where x_cosine was to answer"):
            search(connection, searchable(ivfflat(20), "vector_l2_ops", only="x_cosine"), QUERIES, Effort(3))
        connection.execute("DROP INDEX x_cosine")


def test_a_plan_that_is_made_anew_in_the_middle_voids_what_was_measured(table):
    build(table, ivfflat(40), "x_many")
    build(table, ivfflat(10), "x_few")

    def pass_with(in_the_middle):
        with (
            connect(table) as connection,
            searching(connection, searchable(ivfflat(10), only="x_few"), Effort(6)) as ask,
        ):
            ask(QUERIES[0])
            in_the_middle()
            ask(QUERIES[1])

    with connect(table) as other:
        pass_with(lambda: None)
        with pytest.raises(PlanLost, match="without x_few"):
            pass_with(lambda: other.execute("CREATE INDEX x_other ON memories (user_id)"))
        other.execute("DROP INDEX x_many, x_few, x_other")
