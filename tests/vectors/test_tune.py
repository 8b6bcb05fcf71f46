"""Tuning a real table: what is chosen, what stays untouched, what is remembered, and how a run ends early."""

from __future__ import annotations

import json
from dataclasses import replace

import psycopg
import pytest
from searched_table import DIMENSION, make_table_of_topics

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.certificate import certify
from orchestra_lib.vectors.explanation import sentences
from orchestra_lib.vectors.forms import EXACT, Method, Storage, ivfflat
from orchestra_lib.vectors.goals import Goals, Queries
from orchestra_lib.vectors.index import IndexSpec, build_index
from orchestra_lib.vectors.lists_choice import ListsChoice
from orchestra_lib.vectors.tune import Options, tune

pytestmark = pytest.mark.slow

ROWS, QUERIES = 1_200, 110
GOALS = Goals(0.9, 50.0, 10, "vector_cosine_ops", None, 120.0)
LISTS_ONLY = Options(methods=("ivfflat",), storages=("vector",), told_lists=())


@pytest.fixture
def tuned(pair, tmp_path, monkeypatch):
    """A table, its held-out queries, and a function that tunes it."""
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(tmp_path / "state"))
    asked = make_table_of_topics(pair.target, ROWS, QUERIES)
    queries, journal = Queries(asked, None, "synthetic"), tmp_path / "tuning.jsonl"

    def run(goals=GOALS, options=LISTS_ONLY, progress=lambda _: None):
        return tune(pair.target, "memories", queries, goals, journal_path=journal, options=options, progress=progress)

    return pair.target, run, journal


def relations(conninfo):
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        return {name for (name,) in rows.fetchall()}


def test_lists_are_chosen_built_once_and_certified_and_the_table_is_left_alone(tuned):
    conninfo, run, _ = tuned
    before = relations(conninfo)
    found = run(replace(GOALS, filters=("user_id",)))
    assert relations(conninfo) == before, "nothing is left behind, nothing was built on the table"
    assert found.chosen.form.method is Method.IVFFLAT
    assert found.chosen.recall.low >= 0.9
    measured = [one for one in found.candidates if one.source == "measured"]
    assert len(measured) <= 2, "one build, or two where the model cannot tell"
    assert len([one for one in found.candidates if one.source == "predicted"]) >= 2
    assert all(one.build_seconds is None and one.create_seconds for one in measured), "no k-means but our own"
    assert found.model_error is not None
    certificate = found.certificate
    assert [mix.name for mix in certificate.mixes] == ["all rows", "user_id"]
    assert certificate.recall.samples == 44, "the four tenths that had no part in the choice"
    assert certificate.mixes[1].effort.iterative
    assert certificate.mixes[1].short_answers == 0
    assert "recall@10 of all rows" in certificate.reasons[0]
    assert any("ten times" in one or f"{10 * ROWS:,} rows" in one for one in sentences(found))


def test_an_interrupt_keeps_what_was_learnt_and_later_runs_go_on_from_there(tuned):
    conninfo, run, journal = tuned

    def interrupt(words):
        if "finding its effort" in words:
            raise KeyboardInterrupt

    found = run(progress=interrupt)
    assert found.interrupted
    assert (found.chosen, found.certificate) == (None, None)
    assert not [name for name in relations(conninfo) if name.startswith("orchestra_tuning")]
    resumed = run()
    assert resumed.chosen is not None
    assert any(step.resumed and step.name.startswith("virtual index") for step in resumed.steps)
    assert any(step.name.startswith("centroids once more") for step in resumed.steps), "a journal keeps none"
    again = run()
    assert again.chosen == resumed.chosen
    assert again.certificate == resumed.certificate, "the test queries are not touched a second time"
    steps = [json.loads(line)["step"] for line in journal.read_text().splitlines()]
    assert len(steps) == len(set(steps))


def test_a_certificate_that_missed_nothing_but_the_time_is_made_again_by_the_next_run(tuned, monkeypatch):
    _, run, _ = tuned
    made = []

    def certified_with(recall):
        def certify_so(*arguments):
            found = certify(*arguments)
            mixes = tuple(replace(mix, recall=Estimate(recall, recall, recall, 44)) for mix in found.mixes)
            made.append(recall)
            return replace(found, mixes=mixes, holds=False)

        monkeypatch.setattr("orchestra_lib.vectors.tune.certify", certify_so)

    certified_with(1.0)
    assert run().certificate.missed_only_time
    certified_with(0.5)
    assert not run().certificate.missed_only_time
    assert run().certificate.mixes[0].recall.value == 0.5
    assert made == [1.0, 0.5], "what is not found is no matter of the minute"


def test_a_budget_that_is_spent_ends_the_run_and_says_what_was_left_out(tuned):
    _, run, _ = tuned
    found = run(replace(GOALS, budget_seconds=0.001))
    assert not found.interrupted
    assert found.chosen is None
    assert found.skipped
    assert not any("reaches recall" in reason for reason in found.skipped), "nothing is known of what nobody looked at"


def test_what_was_measured_is_not_said_to_have_had_no_time(tuned, monkeypatch):
    _, run, _ = tuned
    observe = ListsChoice.observe

    def observe_to_the_end(self, *arguments):
        observe(self, *arguments)
        self.learning.deadline = 0.0

    monkeypatch.setattr(ListsChoice, "observe", observe_to_the_end)
    found = run(replace(GOALS, budget_seconds=60.0), replace(LISTS_ONLY, certify=False))
    assert found.chosen is not None
    assert not [reason for reason in found.skipped if reason.startswith(found.chosen.form.label)]


def test_what_an_index_reads_is_timed_where_there_is_time_and_remembered(tuned, monkeypatch):
    _, run, _ = tuned
    options = replace(LISTS_ONLY, certify=False)
    build = ListsChoice.build

    def build_to_the_end(self, chosen):
        built = build(self, chosen)
        self.learning.deadline = 0.0
        return built

    def with_no_time_left():
        with monkeypatch.context() as patch:
            patch.setattr(ListsChoice, "build", build_to_the_end)
            found = run(options=options)
        return found, [reason for reason in found.skipped if reason.startswith("timing what")]

    found, left_out = with_no_time_left()
    assert found.chosen.reaches
    assert found.model is None
    assert len(left_out) == 1
    assert run(options=options).model is not None
    found, left_out = with_no_time_left()
    assert found.model is not None
    assert not left_out, "what is known takes no time"


def test_where_the_exact_scan_is_quick_no_index_is_needed(tuned):
    _, run, _ = tuned
    found = run(replace(GOALS, p95_ms=5_000.0), replace(LISTS_ONLY, methods=("exact", "ivfflat", "hnsw")))
    assert found.no_index_needed
    assert found.chosen.form == EXACT
    assert found.certificate.holds, found.certificate.reasons
    assert "no index is needed" in sentences(found)[0]


def test_lists_that_were_asked_for_are_judged_beside_the_choice(tuned, monkeypatch):
    _, run, _ = tuned
    found = run(replace(GOALS, lists=(300,)))
    assert [one.form.lists for one in found.asked] == [300]
    assert found.asked[0].source == "measured"
    # However little the model is to be trusted, what memory does not allow is no rival.
    monkeypatch.setattr("orchestra_lib.vectors.lists_choice.ListsChoice.error_of_p95", lambda _: 0.9)
    less = run(replace(GOALS, lists=(1_000,), memory_limit_mib=4))
    assert less.asked[0].source == "predicted"
    assert any("needs maintenance_work_mem" in reason for reason in less.skipped), "it is refused with the number"
    assert found.chosen.reaches
    assert any("300 lists, as asked for" in one for one in sentences(found))


def test_the_present_index_is_measured_and_spares_the_model_a_build(tuned):
    conninfo, run, _ = tuned
    spec = IndexSpec("memories", ivfflat(50), "vector_cosine_ops", DIMENSION)
    build_index(conninfo, spec, None, lambda _: None)
    found = run()
    assert found.before.form == ivfflat(50)
    assert found.before.effort.value == 1, "what a new session has"
    assert any("the present index of 50 lists" in step.name for step in found.steps)


def test_challengers_are_measured_in_the_same_units(tuned, monkeypatch):
    _, run, _ = tuned
    monkeypatch.setattr("orchestra_lib.vectors.halving.OPTIONS", ((8, 32), (16, 64)))
    found = run(options=Options(methods=("ivfflat", "hnsw", "scann"), told_lists=(), certify=False))
    kinds = {(one.form.method, one.form.storage) for one in found.candidates if one.p95_ms is not None}
    assert {(Method.IVFFLAT, Storage.VECTOR), (Method.IVFFLAT, Storage.HALFVEC)} <= kinds
    assert any(method is Method.HNSW for method, _ in kinds)
    assert any("ScaNN was not tried" in reason for reason in found.skipped)
    assert found.certificate is None


def test_too_few_queries_and_an_empty_table_are_refused(pair, tmp_path):
    asked = make_table_of_topics(pair.target, 50, 60)
    few, enough = Queries(asked[:39], None, "synthetic"), Queries(asked, None, "synthetic")
    with pytest.raises(DataError, match="39 queries"):
        tune(pair.target, "memories", few, GOALS, journal_path=None, options=LISTS_ONLY, progress=lambda _: None)
    with psycopg.connect(pair.target, autocommit=True) as connection:
        connection.execute("DELETE FROM memories")
    with pytest.raises(DataError, match="holds no row"):
        tune(pair.target, "memories", enough, GOALS, journal_path=None, options=LISTS_ONLY, progress=lambda _: None)
