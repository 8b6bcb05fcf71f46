"""The certificate: what it demands, what it says, and that it is of the index that was meant."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg import sql
from searched_table import DIMENSION, make_table_of_topics

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.local import postgres
from orchestra_lib.vectors.certificate import Conditions, Subject, attempts, bounded_recall, certify
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forms import EXACT, Effort, ivfflat
from orchestra_lib.vectors.goals import Goals
from orchestra_lib.vectors.index import IndexSpec, build_index
from orchestra_lib.vectors.measured import Measured
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.truth import exact_neighbours

GOALS = Goals(0.9, 500.0, 10, "vector_cosine_ops", None, 60.0)
CONDITIONS = Conditions(1.0, 2, None)
TABLE = sql.Identifier("memories")


def measured(recalls, effort):
    return Measured(effort, (), 0, np.asarray(recalls, dtype=np.float64), np.ones(len(recalls)), "index")


def tried(misses_by_probes, target=0.95):
    def at(effort):
        return measured(np.arange(400) >= misses_by_probes[effort.value], effort)

    return [one.effort.value for one in attempts(at, Effort(8), Effort(10), target)]


def test_a_second_attempt_is_made_only_when_the_first_straddles_the_target_or_clears_it_without_room():
    assert tried({8: 4, 10: 1}) == [8]
    assert tried({8: 20, 10: 1}) == [8, 10]
    assert tried({8: 8, 10: 1}) == [8], "0.9575 of 0.95"
    assert tried({8: 9, 10: 1}) == [8, 10], "0.9525: after a few hundred rows it may not clear the target any more"
    assert tried({8: 200, 10: 1}) == [8], "so far below a notch is no remedy: the choice was wrong"


def test_the_bound_of_a_skewed_recall_holds_as_often_as_it_says():
    rng = np.random.default_rng(3)
    shares = np.array([0.93, 0.02, 0.02, 0.015, 0.015])
    values = np.array([1.0, 0.9, 0.6, 0.3, 0.0])
    true = float(values @ shares)
    fails = sum(bounded_recall(rng.choice(values, size=400, p=shares)).low > true for _ in range(150))
    assert fails <= 6, "1 of 100 is promised, and 7 or more of 150 would come by chance in 1 of 1,000 such tests"


def test_where_everything_is_found_the_bound_is_that_of_so_many_queries():
    found = bounded_recall(np.ones(200))
    assert found.value == found.high == 1.0
    assert 0.97 < found.low < 1.0


@pytest.fixture
def indexed(pair):
    """A table with an index, a subject to certify it, and held-out queries."""
    asked = make_table_of_topics(pair.target, 2_000, 100)
    built = build_index(pair.target, IndexSpec("memories", ivfflat(40), GOALS.opclass, DIMENSION), None, lambda _: None)
    with connect(pair.target) as connection:
        truth = exact_neighbours(connection, TABLE, asked, GOALS.k, GOALS.opclass)
    target = Searchable(TABLE, GOALS.opclass, GOALS.k, ivfflat(40))
    return Subject(pair.target, target, built.name, Effort(10), Effort(13)), QuerySet(asked, None, truth)


@pytest.mark.slow
def test_it_holds_at_enough_probes_with_a_sentence_for_each_condition(indexed):
    subject, queries = indexed
    more = replace(subject, filtered={"user_id": Effort(25, iterative=True)})
    found = certify(more, queries, replace(GOALS, filters=("user_id",)), CONDITIONS)
    assert found.holds, found.reasons
    assert not found.missed_only_time
    assert len(found.reasons) == 3, "recall without and with the filter, p95"
    assert found.index == "memories_embedding_ivfflat_40"
    assert found.recall_p5 <= found.recall_p10 <= 1
    assert found.strict_recall.value <= found.recall.value
    assert found.warm.offered_per_second is None
    assert found.missing == ("cold and after a restart: the server is not ours to restart from here",)


@pytest.mark.slow
def test_too_few_probes_and_too_little_time_are_told_apart(indexed):
    subject, queries = indexed
    few = replace(subject, effort=Effort(1), notch=Effort(2))
    found = certify(few, queries, replace(GOALS, recall_target=0.999), CONDITIONS)
    assert not found.holds
    assert "does not clear 0.999" in found.reasons[0]
    assert not found.missed_only_time
    slow = certify(subject, queries, replace(GOALS, p95_ms=0.001), CONDITIONS)
    assert not slow.holds
    assert "is not within 0.001 ms" in slow.reasons[-1]
    assert slow.missed_only_time
    assert "clears 0.9" in slow.reasons[0]


@pytest.mark.slow
def test_under_load_the_offered_and_the_achieved_rate_are_told(indexed):
    subject, queries = indexed
    found = certify(subject, queries, replace(GOALS, offered_per_second=40.0), CONDITIONS)
    assert found.warm.offered_per_second == pytest.approx(40, rel=0.5)
    assert found.warm.failures == 0
    assert found.warm.p50_ms.value <= found.warm.p95_ms.value <= found.warm.p99_ms.value


@pytest.mark.slow
def test_a_plan_that_reads_something_else_is_refused(indexed):
    subject, queries = indexed
    with pytest.raises(DataError, match="the certificate is for another_index, but the plan reads memories_embedding"):
        certify(replace(subject, index="another_index"), queries, GOALS, CONDITIONS)


@pytest.mark.slow
def test_the_exact_scan_can_be_certified_too(indexed):
    subject, queries = indexed
    exact = replace(subject.target, form=EXACT)
    found = certify(Subject(subject.address, exact, None, Effort(1), Effort(1)), queries, GOALS, CONDITIONS)
    assert found.recall.value == 1.0
    assert found.holds, found.reasons


@pytest.fixture
def own_server():
    """Where a server of its own is, and what restarts it."""
    directory = Path(tempfile.mkdtemp(prefix="orchestra-certificate-"))
    directory.chmod(0o755)
    data, title = directory / "own", "the test's own server"

    def restart():
        postgres.stop(data, title)
        return postgres.start(data, title, {}).conninfo()

    try:
        conninfo = restart()
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        yield conninfo, restart
    finally:
        postgres.stop(data, title)
        shutil.rmtree(directory)


@pytest.mark.slow
def test_cold_and_after_a_restart_are_measured_where_the_server_is_ours(own_server):
    conninfo, restart = own_server
    asked = make_table_of_topics(conninfo, 2_000, 100)
    built = build_index(conninfo, IndexSpec("memories", ivfflat(40), GOALS.opclass, DIMENSION), None, lambda _: None)
    with connect(conninfo) as connection:
        truth = exact_neighbours(connection, TABLE, asked, GOALS.k, GOALS.opclass)
    target = Searchable(TABLE, GOALS.opclass, GOALS.k, ivfflat(40))
    subject = Subject(conninfo, target, built.name, Effort(10), Effort(13))
    found = certify(subject, QuerySet(asked, None, truth), GOALS, replace(CONDITIONS, restart=restart))
    assert [one.state for one in found.others] == ["cold", "after restart"]
    assert found.others[0].p99_ms.value > found.warm.p50_ms.value, "the first searches read from the disk"
    assert not any(reason.startswith("after restart") for reason in found.missing)
