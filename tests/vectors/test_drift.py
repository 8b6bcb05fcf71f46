"""An index that no longer suits its table says so, with the reason, and one that does stays quiet."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from searched_table import COSINE, DIMENSION, TABLE, add_rows, build, make_table, searchable
from stores import unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.drift import WINDOW, Advice, Baseline, list_unevenness, take_baseline, watch
from orchestra_lib.vectors.forms import Effort, hnsw, ivfflat
from orchestra_lib.vectors.index import serving_index
from orchestra_lib.vectors.truth import exact_neighbours

ROWS, LISTS = 2_000, 20
QUERIES = unit_vectors(ROWS + 40, 0, DIMENSION, clusters=ROWS // 4)[ROWS:]


@pytest.fixture(scope="module")
def filled(lasting_database):
    make_table(lasting_database, ROWS)
    return lasting_database


@pytest.fixture
def live(filled):
    """The table with an index of twenty lists: a session, the index, and how things stood when it was made."""
    with connect(filled) as connection:
        connection.execute("DROP INDEX IF EXISTS memories_embedding_ivfflat_20")
        connection.execute(f"DELETE FROM memories WHERE id >= 'id-{ROWS:08}'")
    build(filled, ivfflat(LISTS))
    with connect(filled) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        index = serving_index(connection, TABLE)
        yield connection, index, take_baseline(connection, "memories", index)


def look(connection, index, baseline, probes=LISTS, target=0.9, queries=QUERIES, earlier=()):
    truth = exact_neighbours(connection, TABLE, queries, 10, COSINE)
    connection.execute("SELECT pg_stat_force_next_flush()")
    return watch(connection, searchable(index.form), index, Effort(probes), queries, truth, target, baseline, earlier)


def test_an_index_as_it_was_chosen_needs_nothing(live):
    report = look(*live)
    assert (report.advice, report.written_share, report.grown) == (Advice.NOTHING, 0.0, 1.0)
    assert report.recall.value == 1.0
    assert report.reasons == ("recall, lists and growth are as they were when the index was chosen",)


def test_recall_below_the_target_asks_for_tuning_with_its_interval(live):
    report = look(*live, probes=1, target=0.99)
    assert report.advice is Advice.TUNE
    assert str(report.recall) in report.reasons[0]
    assert "below the target of 0.99" in report.reasons[0]


def test_rows_that_lie_in_few_lists_ask_for_a_new_index(live):
    connection, _, baseline = live
    # Close enough together that no border between two lists runs through them.
    crowd = QUERIES[:1] + 1e-4 * np.random.default_rng(1).standard_normal((ROWS // 2, DIMENSION)).astype(np.float32)
    add_rows(connection, crowd, first=ROWS)
    report = look(*live)
    assert report.advice is Advice.REBUILD
    assert report.unevenness > 1.5 * baseline.unevenness
    assert report.written_share == pytest.approx(1 / 3)
    assert any("times as many rows for a probe" in reason for reason in report.reasons)
    assert any(reason.startswith("33% of the rows were written since") for reason in report.reasons)


def test_a_table_that_has_doubled_asks_for_tuning(live):
    connection, _, _ = live
    add_rows(connection, unit_vectors(ROWS, 3, DIMENSION, clusters=ROWS // 4), first=ROWS)
    report = look(*live)
    assert report.grown == 2.0
    assert any(
        "2.0 times the rows that the IVFFlat with 20 lists was chosen for" in reason for reason in report.reasons
    )


def test_an_index_that_learnt_from_too_few_rows_asks_for_a_new_one_once_there_are_more(live):
    connection, index, baseline = live
    report = look(connection, index, replace(baseline, rows=200, written=baseline.written - 1_800))
    assert report.advice is Advice.REBUILD
    assert any("learnt its 20 lists from 200 rows, where it wants 1,000" in reason for reason in report.reasons)


def test_the_sample_rolls_over_the_reports(live):
    first = look(*live, probes=1, queries=QUERIES[:20])
    second = look(*live, queries=QUERIES[20:], earlier=first.recalls)
    assert second.recalls[:20] == first.recalls
    assert second.recall.samples == 40
    assert first.recall.value < second.recall.value < 1.0
    assert len(look(*live, queries=QUERIES[:2], earlier=(1.0,) * WINDOW).recalls) == WINDOW


def test_what_was_written_is_unknown_once_the_servers_statistics_were_reset(live):
    connection, _, _ = live
    connection.execute("SELECT pg_stat_reset()")
    report = look(*live)
    assert (report.written_share, report.advice) == (None, Advice.NOTHING)
    assert "not known" in report.reasons[-1]


def test_unevenness_is_that_of_the_lists_themselves(pair):
    """Two lists of 90 and 10 rows: a row drawn at random lies in one of 0.9 * 90 + 0.1 * 10 = 82 rows, the average
    list has 50. All rows are drawn, so nothing is left to chance."""
    make_table(pair.target, 0)
    with connect(pair.target) as connection:
        sides = np.zeros((100, DIMENSION), dtype=np.float32)
        sides[:90, 0], sides[90:, 1] = 1.0, 1.0
        add_rows(connection, sides)
        build(pair.target, ivfflat(2))
        index = serving_index(connection, TABLE)
        assert list_unevenness(connection, "memories", index) == pytest.approx(0.9 * 1.8 + 0.1 * 0.2)


def test_an_index_without_lists_has_no_unevenness_and_is_watched_all_the_same(pair):
    make_table(pair.target, 500)
    build(pair.target, hnsw(8, 32))
    with connect(pair.target) as connection:
        index = serving_index(connection, TABLE)
        baseline = take_baseline(connection, "memories", index)
        report = look(connection, index, baseline, probes=100)
    assert (baseline.unevenness, report.unevenness, report.advice) == (None, None, Advice.NOTHING)


def test_a_baseline_comes_back_from_its_document(live):
    baseline = live[2]
    assert Baseline.from_document(asdict(baseline)) == baseline


def test_a_relation_that_is_no_table_is_refused(live):
    with pytest.raises(DataError, match="keeps no statistics of pg_stats"):
        take_baseline(live[0], "pg_stats", None)
