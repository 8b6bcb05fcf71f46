"""The least effort that suffices, found by few measurements, and the notch above it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.vectors.forms import EXACT, Effort, hnsw, ivfflat
from orchestra_lib.vectors.measured import clears, largest_effort, least_effort, one_notch_up


@given(st.integers(1, 5_000), st.integers(1, 5_000), st.integers(1, 5_000))
def test_the_least_effort_is_found_to_one_part_in_32(needed, guess, most):
    asked = []

    def sufficient(value):
        asked.append(value)
        return value >= needed

    found = least_effort(sufficient, guess, 1, most)
    if needed > most:
        assert found is None
        return
    assert needed <= found <= needed + max(1, found // 32)
    assert all(1 <= value <= most for value in asked)


@given(st.integers(10, 2_000))
def test_a_good_guess_takes_few_measurements(needed):
    asked = []
    least_effort(lambda value: bool(asked.append(value)) or value >= needed, round(needed * 1.1), 1, 4_000)
    assert len(asked) <= 7
    asked.clear()
    least_effort(lambda value: bool(asked.append(value)) or value >= needed, needed, 1, 4_000)
    assert len(asked) <= 2, "a guess that is right is only looked past"


@given(st.integers(1, 4_000), st.integers(1, 4_000))
def test_a_bad_guess_takes_no_more_than_a_dozen_or_so(needed, guess):
    asked = []
    least_effort(lambda value: bool(asked.append(value)) or value >= needed, guess, 1, 4_000)
    assert len(asked) <= 18


def test_all_found_clears_however_few_the_queries_are():
    assert clears(np.ones(3), 0.999)
    assert not clears(np.array([1.0, 1.0, 0.9]), 0.99)


def test_the_notch_is_half_more_and_never_more_than_there_is():
    assert one_notch_up(ivfflat(100), Effort(8)) == Effort(12)
    assert one_notch_up(ivfflat(100), Effort(99)) == Effort(99), "with all lists the planner leaves the index"
    assert one_notch_up(hnsw(), Effort(900, 20)) == Effort(1_000, 20)
    assert largest_effort(EXACT) == 1
