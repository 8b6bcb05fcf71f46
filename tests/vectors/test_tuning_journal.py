"""What a tuning has learnt is remembered by its question, and by nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.errors import RecordError
from orchestra_lib.vectors.candidate import Candidate
from orchestra_lib.vectors.forms import Effort, Storage, hnsw
from orchestra_lib.vectors.goals import Goals, Queries, split
from orchestra_lib.vectors.ivf import VirtualIndex
from orchestra_lib.vectors.tuning_journal import TuningJournal, question

GOALS = Goals(0.95, 30.0, 10, "vector_cosine_ops", 50.0, 60.0, filters=("user_id",))
QUERIES = Queries(np.eye(4, dtype=np.float32), None, "synthetic")
CANDIDATE = Candidate(
    hnsw(storage=Storage.HALFVEC),
    Effort(80, 20),
    "measured",
    Estimate(0.97, 0.96, 0.98, 100),
    None,
    Estimate(1.5, 1.4, np.inf, 40),
    reaches=True,
)


def test_a_candidate_comes_back_as_it_was_an_infinite_bound_included(tmp_path):
    path = tmp_path / "tuning.jsonl"
    TuningJournal(path, "q").once("step", Candidate, lambda: CANDIDATE)
    journal = TuningJournal(path, "q")
    assert journal.once("step", Candidate, lambda: pytest.fail("it was done")) == CANDIDATE
    assert [step.resumed for step in journal.steps] == [True]


def test_what_does_not_stand_is_found_out_again(tmp_path):
    path = tmp_path / "tuning.jsonl"
    TuningJournal(path, "q").once("step", int, lambda: 1)
    assert TuningJournal(path, "q").once("step", int, lambda: 2, stands=lambda known: known > 1) == 2
    again = TuningJournal(path, "q").once("step", int, lambda: pytest.fail("it was done"), stands=lambda one: one > 1)
    assert again == 2, "the later of two lines counts"


def test_another_question_begins_anew(tmp_path):
    path = tmp_path / "tuning.jsonl"
    TuningJournal(path, "q").once("step", int, lambda: 1)
    assert TuningJournal(path, "r").once("step", int, lambda: 2) == 2
    assert TuningJournal(path, "q").once("step", int, lambda: 3) == 1


def test_the_question_is_the_content_the_goals_and_the_queries():
    parts = split(40)
    asked = question("f", GOALS, QUERIES, parts)
    stays = question("f", replace(GOALS, budget_seconds=9.0, lists=(5,)), QUERIES, parts)
    assert stays == asked, "what was measured stays"
    others = [
        question("g", GOALS, QUERIES, parts),
        question("f", replace(GOALS, recall_target=0.9), QUERIES, parts),
        question("f", GOALS, replace(QUERIES, own_ids=("a", "b", "c", "d")), parts),
        question("f", GOALS, replace(QUERIES, vectors=2 * QUERIES.vectors), parts),
        question("f", GOALS, QUERIES, replace(parts, validate=parts.untested)),
    ]
    assert len({asked, *others}) == 6


def test_a_step_that_fails_is_not_remembered(tmp_path):
    journal = TuningJournal(tmp_path / "tuning.jsonl", "q")
    with pytest.raises(ZeroDivisionError):
        journal.once("step", float, lambda: 1 / 0)
    assert not journal.knows("step")


def test_a_line_that_was_cut_off_is_passed_over_and_one_that_is_wrong_is_refused(tmp_path):
    path = tmp_path / "tuning.jsonl"
    TuningJournal(path, "q").once("step", int, lambda: 1)
    with path.open("a") as file:
        file.write('{"question": "q", "st')
    assert TuningJournal(path, "q").knows("step")
    path.write_text("[]\n")
    with pytest.raises(RecordError, match="move the file away"):
        TuningJournal(path, "q")


def test_a_value_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "tuning.jsonl"
    TuningJournal(path, "q").once("step", str, lambda: "words")
    with pytest.raises(RecordError, match="is not as it was written"):
        TuningJournal(path, "q").once("step", Candidate, lambda: CANDIDATE)


def test_virtual_indexes_are_kept_beside_the_journal(tmp_path):
    path = tmp_path / "tuning.jsonl"
    order = np.arange(12, dtype=np.int32).reshape(3, 4)
    index = VirtualIndex(4, 1, order[:, :2], np.ones(4), order, 8, Storage.VECTOR)
    TuningJournal(path, "q").index(4, 1, lambda: index)
    kept = TuningJournal(path, "q").index(4, 1, lambda: pytest.fail("it was computed"))
    assert (kept.lists, kept.seed, kept.storage) == (4, 1, Storage.VECTOR)
    assert (kept.order == order).all()
    place = next(tmp_path.glob("tuning.q/*.npz"))
    place.write_bytes(b"damaged")
    with pytest.raises(RecordError, match="cannot be read"):
        TuningJournal(path, "q").index(4, 1, lambda: index)
