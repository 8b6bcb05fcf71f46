"""Plain words about lists and rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.vectors.suit import suitability


@pytest.mark.parametrize(
    ("lists", "rows", "suits"),
    [(100, 10_000, True), (4000, 10_000, False), (4000, 1_000_000, True), (10, 10_000, False)],
)
def test_known_cases(lists, rows, suits):
    assert suitability(lists, rows).suits is suits


def test_the_sentence_says_what_too_many_lists_cost():
    sentence = suitability(4000, 10_103).sentence
    assert "2.5 rows a list" in sentence
    assert "4,000 centroid pages" in sentence
    assert "200,000 rows" in sentence


@given(st.integers(1, 32768), st.integers(1, 10**9))
def test_the_sensible_number_always_suits(lists, rows):
    sensible = suitability(lists, rows).sensible_lists
    assert 1 <= sensible <= 32768
    assert suitability(sensible, rows).suits
