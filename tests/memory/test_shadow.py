"""Asking both stores the same: every difference gets the explanation that is true of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from changes import emptied, lasting_pair
from psycopg import sql
from stores import Pair, fill, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Verdict
from orchestra_lib.local.databases import LocalState
from orchestra_lib.memory.compare import Store
from orchestra_lib.memory.shadow import ShadowSide, Why, index_opclass, shadow
from orchestra_lib.memory.source import source_table
from orchestra_lib.vectors.forms import Effort, ivfflat
from orchestra_lib.vectors.search import Searchable

ROWS, K = 300, 10
COSINE, INNER = "vector_cosine_ops", "vector_ip_ops"


@pytest.fixture(scope="module")
def lasting(servers: LocalState) -> Iterator[Pair]:
    with lasting_pair(servers, "shadowed") as pair:
        yield pair


@pytest.fixture
def pair(lasting: Pair) -> Iterator[Pair]:
    """Both databases for one test, empty again after it."""
    yield lasting
    for conninfo in (lasting.source, lasting.target):
        emptied(conninfo)


@pytest.fixture
def same(pair):
    """The same 300 rows on both sides."""
    for conninfo in (pair.source, pair.target):
        fill(conninfo, ROWS)
    return pair


def side(role, conninfo, opclass=COSINE, probes=1, k=K):
    with connect(conninfo) as connection:
        store = Store(role, conninfo, source_table(connection, "memories", {}))
    return ShadowSide(store, Searchable(sql.Identifier("memories"), opclass, k, ivfflat()), Effort(probes))


def asked(pair, queries, source_opclass=COSINE, target_opclass=COSINE, wait_for=lambda lsn, timeout_seconds: True):
    sides = side("source", pair.source, source_opclass), side("target", pair.target, target_opclass)
    return shadow(*sides, queries, wait_for)


def near(conninfo, number, count=1):
    """Queries that find this row first."""
    with connect(conninfo) as connection:
        row = connection.execute("SELECT embedding FROM memories WHERE id = %s", [f"id-{number:08}"], binary=True)
        vector = row.fetchone()[0].to_numpy()
    rng = np.random.default_rng(number)
    return (vector + 0.001 * rng.standard_normal((count, len(vector)))).astype(np.float32)


def run(conninfo, statement):
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(statement)


def failing(found):
    return [row.claim for row in found.evidence() if row.verdict is Verdict.FAIL]


def test_stores_that_are_the_same_agree_and_are_both_timed(same):
    found = asked(same, unit_vectors(20, seed=1))
    assert (found.agreement.value, found.alike, found.differences) == (1.0, 20, ())
    assert {role: len(elapsed) for role, elapsed in found.milliseconds.items()} == {"source": 20, "target": 20}
    assert all((elapsed > 0).all() for elapsed in found.milliseconds.values())
    assert failing(found) == []


@pytest.mark.parametrize(("without", "with_it"), [("target", "source"), ("source", "target")])
def test_a_row_that_one_store_lost_is_named_and_so_is_what_took_its_place(same, without, with_it):
    queries = near(same.source, 7)
    run(getattr(same, without), "DELETE FROM memories WHERE id = 'id-00000007'")
    found = asked(same, queries)
    lost, instead = sorted(found.differences, key=lambda row: row.only_on != with_it)
    assert (lost.id, lost.only_on, lost.why, lost.told) == (
        "id-00000007", with_it, Why.MISSING, f"the {without} does not have it"
    )  # fmt: skip
    assert (instead.only_on, instead.why) == (without, Why.MISSING)
    assert instead.told.startswith(f"id-00000007 stands before it on the {with_it}")
    assert found.agreement.value == pytest.approx(0.9)
    assert failing(found) == ["rows that only one store has"]


def test_a_row_that_is_behind_says_which_side_is(same):
    queries = near(same.source, 7)
    run(
        same.source,
        "UPDATE memories SET version = version + 1, embedding = (SELECT embedding FROM memories "
        "WHERE id = 'id-00000200') WHERE id = 'id-00000007'",
    )
    found = asked(same, queries)
    (row,) = [row for row in found.differences if row.id == "id-00000007"]
    assert (row.only_on, row.why) == ("target", Why.VERSION)
    assert row.told == "version 5 on the source, 4 on the target: the target is behind"
    assert {row.why for row in found.differences} == {Why.VERSION}
    assert failing(found) == ["rows of which the stores hold different versions"]


def test_what_an_index_did_not_find_is_laid_to_the_index(same):
    run(same.target, "CREATE INDEX ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = 60)")
    found = asked(same, unit_vectors(20, seed=3))
    assert {row.why for row in found.differences} == {Why.APPROXIMATE}
    assert {row.only_on for row in found.differences} == {"source", "target"}
    assert found.agreement.value < 1
    assert failing(found) == [], "a reading: how much an index may miss is judged elsewhere"


def test_stores_that_measure_differently_are_told_so(same):
    for conninfo in (same.source, same.target):
        run(
            conninfo,
            "UPDATE memories "
            "SET embedding = embedding * array_fill((1 + right(id, 1)::int)::real, ARRAY[1536])::vector",
        )
    found = asked(same, unit_vectors(20, seed=4), target_opclass=INNER)
    assert {row.why for row in found.differences} == {Why.METRIC}
    assert "vector_cosine_ops against vector_ip_ops; its vector has length" in found.differences[0].told
    assert failing(found) == ["rows that the stores rank by different measures of distance"]


def test_unit_vectors_are_ranked_alike_by_either_measure(same):
    assert asked(same, unit_vectors(20, seed=5), target_opclass=INNER).differences == ()


def test_rows_that_are_equally_near_are_no_disagreement(pair):
    for conninfo, order in ((pair.source, "ASC"), (pair.target, "DESC")):
        fill(conninfo, 40)
        run(
            conninfo,
            "CREATE TABLE doubled AS SELECT * FROM memories; TRUNCATE memories; "
            "UPDATE doubled SET embedding = (SELECT embedding FROM doubled WHERE id = 'id-00000000'); "
            f"INSERT INTO memories SELECT * FROM doubled ORDER BY id {order}",
        )
    found = asked(pair, near(pair.source, 0))
    assert len(found.differences) == 2 * K
    assert {row.why for row in found.differences} == {Why.TIE}
    assert found.agreement.value == 1.0


def test_what_the_stream_brings_in_the_meantime_was_on_its_way(same):
    queries = near(same.source, 7)
    with connect(same.source) as source:
        row = source.execute("SELECT * FROM memories WHERE id = 'id-00000007'", binary=True).fetchone()
    run(same.target, "DELETE FROM memories WHERE id = 'id-00000007'")

    def bring(lsn, timeout_seconds):
        with connect(same.target) as target:
            marks = ", ".join(["%s"] * len(row))
            values = [psycopg.types.json.Jsonb(value) if isinstance(value, dict) else value for value in row]
            target.execute(f"INSERT INTO memories VALUES ({marks}) ON CONFLICT DO NOTHING", values)
        return True

    found = asked(same, queries, wait_for=bring)
    assert {row.why for row in found.differences} == {Why.ON_ITS_WAY}
    assert failing(found) == []


def test_a_stream_that_does_not_come_is_told(same):
    queries = near(same.source, 7)
    run(same.target, "DELETE FROM memories WHERE id = 'id-00000007'")
    with pytest.raises(DataError, match="the stream did not pass"):
        asked(same, queries, wait_for=lambda lsn, timeout_seconds: False)


def test_different_numbers_of_rows_are_refused(same):
    with pytest.raises(DataError, match="asked for 10 rows and the target for 5"):
        shadow(side("source", same.source), side("target", same.target, k=5), unit_vectors(1), lambda *_: True)


def test_the_operator_class_is_read_off_the_index(same):
    with connect(same.source) as source:
        table = sql.Identifier("memories")
        assert index_opclass(source, table, "embedding") is None
        source.execute("CREATE INDEX ON memories USING hnsw (embedding vector_l2_ops)")
        assert index_opclass(source, table, "embedding") == "vector_l2_ops"
