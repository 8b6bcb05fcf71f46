"""Searching and judging what came back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from psycopg import sql
from stores import fill, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forms import Effort, ivfflat
from orchestra_lib.vectors.index import IndexSpec, build_index
from orchestra_lib.vectors.search import Searchable, SearchRun, hits, recalls, reciprocal_ranks, search
from orchestra_lib.vectors.truth import Truth, exact_neighbours

pytestmark = pytest.mark.slow

TABLE = sql.Identifier("memories")
MEMORIES = Searchable(TABLE, "vector_cosine_ops", 10, ivfflat(40))


def run_of(*found):
    return SearchRun(Effort(1), found, np.zeros(len(found)), None, None)


def test_recall_counts_ties_as_right_and_short_answers_as_misses():
    truth = Truth((("a", "b", "c", "d"),), ((0.1, 0.2, 0.2, 0.5),), 2, 4)
    assert recalls(run_of(("a", "c")), truth)[0] == 1.0, "c is as near as b"
    assert recalls(run_of(("a",)), truth)[0] == 0.5
    assert recalls(run_of(()), truth)[0] == 0.0
    assert recalls(run_of(("a", "d")), truth)[0] == 0.5
    assert recalls(run_of(("d", "x", "a", "b")), truth)[0] == 0.0, "only the first k count"


def test_hits_and_reciprocal_ranks():
    run = run_of(("a", "b"), ("c", "d"), ())
    assert hits(run, ("b", "x", "y")).tolist() == [1, 0, 0]
    assert reciprocal_ranks(run, ("b", "c", "y")).tolist() == [0.5, 1, 0]


@pytest.fixture(scope="module")
def queries(lasting_database):
    fill(lasting_database, 2_000, clusters=20_000)  # hardly two rows of one cluster: an index has to search for them
    spec = IndexSpec("memories", ivfflat(40), "vector_cosine_ops", 1536)
    build_index(lasting_database, spec, None, lambda words: None)
    vectors = unit_vectors(2_060, clusters=20_000)[2_000:]
    with connect(lasting_database) as connection:
        return QuerySet(vectors, None, exact_neighbours(connection, TABLE, vectors, 10, "vector_cosine_ops"))


@pytest.fixture
def indexed(lasting_database, queries):
    with connect(lasting_database) as connection:
        yield lasting_database, connection, queries


def test_more_probes_find_more_and_all_of_them_everything(indexed):
    _, connection, queries = indexed
    means = [
        recalls(search(connection, MEMORIES, queries.vectors, Effort(probes)), queries.truth).mean()
        for probes in (1, 2, 40)
    ]
    assert means[0] < means[1] <= means[2] == 1.0


def test_the_plan_names_the_index_that_is_used(indexed):
    _, connection, queries = indexed
    assert search(connection, MEMORIES, queries.vectors[:1], Effort(2)).plan_uses == "memories_embedding_ivfflat_40"
    wrong_class = Searchable(TABLE, "vector_l2_ops", 10, ivfflat(40))
    assert search(connection, wrong_class, queries.vectors[:1], Effort(2)).plan_uses is None


def test_a_row_that_is_its_own_query_finds_itself_and_that_does_not_count(indexed):
    _, connection, _ = indexed
    rows, ids = unit_vectors(2_000, clusters=20_000)[:40], tuple(f"id-{number:08}" for number in range(40))
    flattering = exact_neighbours(connection, TABLE, rows, 1, "vector_cosine_ops")
    honest = exact_neighbours(connection, TABLE, rows, 1, "vector_cosine_ops", excluded=ids)
    run = search(connection, replace(MEMORIES, k=2), rows, Effort(1))
    assert recalls(run, flattering).mean() == 1.0, "one probe always finds the row itself"
    assert recalls(run, honest).mean() < 0.9


def test_probes_do_not_leak_into_the_session(indexed):
    _, connection, queries = indexed
    search(connection, MEMORIES, queries.vectors[:1], Effort(17))
    assert connection.execute("SHOW ivfflat.probes").fetchone() == ("1",)


def test_the_plan_that_is_timed_is_told_and_so_is_what_the_planner_would_do_alone(indexed):
    _, connection, queries = indexed
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'memories_embedding_ivfflat_40'"
    connection.execute("SELECT pg_stat_force_next_flush()")
    before = connection.execute(scans).fetchone()[0]
    for probes in (1, 39):
        run = search(connection, MEMORIES, queries.vectors, Effort(probes))
        assert run.plan_uses == "memories_embedding_ivfflat_40"
        assert run.plan_left_alone is None, "so small a table is read, whatever its TOAST holds"
    connection.execute("SELECT pg_stat_force_next_flush()")
    assert connection.execute(scans).fetchone()[0] - before == 2 * len(queries.vectors)
    assert connection.execute("SHOW enable_seqscan").fetchone() == ("on",)
