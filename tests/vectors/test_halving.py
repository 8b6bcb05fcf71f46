"""Successive halving of HNSW's numbers, on trials that were made up so that the winner is known."""

from __future__ import annotations

import pytest

from orchestra_lib.vectors.forms import Storage, hnsw
from orchestra_lib.vectors.halving import OPTIONS, Trial, expected_build_seconds, expected_ef_search, halve


def trials_with(milliseconds, asked, ef_search=lambda form, rows: round(rows**0.5)):
    def trial(form, rows):
        asked.append((form.m, form.ef_construction, rows))
        return Trial(form, rows, ef_search(form, rows), milliseconds[form.m, form.ef_construction], rows / 1_000)

    return trial


def test_the_better_half_goes_on_with_twice_the_rows():
    asked = []
    speeds = dict(zip(OPTIONS, (4.0, 3.0, 1.0, 2.0), strict=True))
    found = halve(trials_with(speeds, asked), 100_000, 5_000, 10, Storage.VECTOR, lambda: True)
    assert [rows for *_, rows in asked] == [5_000] * 4 + [10_000] * 2 + [20_000]
    assert asked[-1][:2] == (24, 128)
    assert found.form == hnsw(24, 128)
    assert found.ef_search == pytest.approx(1.1 * 100_000**0.5, rel=0.02), "carried over along the square root"


def test_of_graphs_that_are_as_fast_the_one_that_is_built_soonest_wins():
    def trial(form, rows):
        return Trial(form, rows, 40, 1.0 + form.m / 1_000, form.m)

    assert halve(trial, 100_000, 5_000, 10, Storage.HALFVEC, lambda: True).form == hnsw(16, 64, Storage.HALFVEC)


def test_without_time_what_was_learnt_decides():
    asked = []
    speeds = dict.fromkeys(OPTIONS, 1.0)
    found = halve(trials_with(speeds, asked), 100_000, 5_000, 10, Storage.VECTOR, lambda: len(asked) < 2)
    assert len(asked) == 2
    assert found.form == hnsw(16, 64)


def test_no_graph_that_suffices_is_no_winner():
    asked = []
    speeds = dict.fromkeys(OPTIONS, 1.0)
    assert halve(trials_with(speeds, asked, lambda *_: None), 9_000, 2_000, 10, Storage.VECTOR, lambda: True) is None


def test_nothing_is_tried_on_all_rows_since_that_is_the_full_build():
    asked = []
    halve(trials_with(dict.fromkeys(OPTIONS, 1.0), asked), 7_000, 2_000, 10, Storage.VECTOR, lambda: True)
    assert max(rows for *_, rows in asked) == 4_000


def test_a_sample_that_needs_less_by_chance_does_not_make_the_full_table_easier():
    form = hnsw()
    falling = [Trial(form, 1_000, 60, 1.0, 1.0), Trial(form, 2_000, 50, 1.0, 2.0)]
    assert expected_ef_search(falling, 100_000, 10) == 66
    assert expected_ef_search(falling[:1], 100_000, 100) == 100, "never fewer than the rows that are asked for"
    assert expected_build_seconds(falling, 4_000) > 4.0
