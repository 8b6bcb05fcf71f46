"""Goals that make no sense are refused; queries are shared out once and for all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.vectors.goals import FEWEST_QUERIES, Goals, Queries, split

GOALS = {
    "recall_target": 0.95,
    "p95_ms": 30.0,
    "k": 10,
    "opclass": "vector_cosine_ops",
    "offered_per_second": None,
    "budget_seconds": 60.0,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [("recall_target", 1.0), ("recall_target", 0.0), ("p95_ms", 0), ("k", 0), ("budget_seconds", -1), ("opclass", "x")],
)
def test_a_goal_that_makes_no_sense_is_refused_with_its_value(name, value):
    with pytest.raises(ParameterError, match=f"{name} {value}"):
        Goals(**{**GOALS, name: value})


@given(st.integers(FEWEST_QUERIES, 2_000), st.integers(0, 5))
def test_every_query_is_in_exactly_one_part_and_always_in_the_same(count, seed):
    parts = split(count, seed)
    assert sorted(np.concatenate([parts.tune, parts.validate, parts.test]).tolist()) == list(range(count))
    assert len(parts.test) >= len(parts.validate) > 0
    assert (split(count, seed).test == parts.test).all()


def test_too_few_queries_are_refused():
    with pytest.raises(DataError, match="39 queries cannot be split"):
        split(39)


def test_queries_that_are_rows_keep_their_ids():
    queries = Queries(np.eye(3, dtype=np.float32), ("a", "b", "c"), "rows of the table")
    some = queries.take(np.array([2, 0]))
    assert some.own_ids == ("c", "a")
    assert some.vectors.tolist() == [[0, 0, 1], [1, 0, 0]]
