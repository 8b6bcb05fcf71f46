"""Which number of lists is best on paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.bench.statistics import Estimate, mean
from orchestra_lib.vectors.cost import CostModel, usual
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.ivf import VirtualIndex
from orchestra_lib.vectors.pages import centroid_pages, centroids_per_page
from orchestra_lib.vectors.selection import (
    WORTH_IT,
    Forecast,
    best,
    forecast,
    need,
    next_lists,
    page_points,
    rivals,
)

USUAL = usual(1_536)
SURE = Estimate(0.97, 0.96, 0.98, 100)


def forecast_of(lists, p95, *, error=0.0, reaches=True):
    return Forecast(lists, 5, reaches, SURE, p95, error, p95, lists, 100.0)


def index_of(lists, *, seed=0, needs=3, rows=10_000, queries=50):
    """Every query finds all its neighbours with so many probes, and nothing with fewer."""
    order = np.stack([np.random.default_rng(number).permutation(lists) for number in range(queries)]).astype(np.int32)
    ranks = np.full((queries, 10), needs - 1, dtype=np.int32)
    return VirtualIndex(lists, seed, ranks, np.full(lists, rows / lists), order, 1_536, Storage.VECTOR)


def test_within_one_standard_error_the_fewest_lists_win():
    found = [forecast_of(100, 5.6), forecast_of(200, 5.0, error=0.7), forecast_of(400, 5.1), forecast_of(50, 6.0)]
    assert best(found).lists == 100
    assert best([replace(one, p95_error=0.0) for one in found]).lists == 200


def test_a_difference_that_is_not_worth_it_is_none():
    assert best([forecast_of(100, 5.24), forecast_of(200, 5.0)]).lists == 100
    assert best([forecast_of(100, 5.26), forecast_of(200, 5.0)]).lists == 200


@given(st.floats(0.1, 2.0), st.floats(-1.2, -0.4), st.floats(1e-4, 1e-2), st.floats(0.0, 1.0), st.integers(400, 30_000))
def test_a_curve_that_is_a_power_leads_to_its_minimum(rows_ms, power, centroid_ms, fixed_ms, most):
    model = CostModel(fixed_ms, centroid_ms * centroids_per_page(1_536, Storage.VECTOR), 1.0, 0.0, (1.0,))

    def truth(lists):
        pages = centroid_pages(lists, 1_536, Storage.VECTOR)
        p95 = fixed_ms + model.b_ms_per_centroid_page * pages + 100 * rows_ms * lists**power
        return forecast_of(lists, p95)

    known = [truth(lists) for lists in (100, 200, 400)]
    for _ in range(8):
        found = next_lists(known, model, 1_536, most)
        if found is None:
            break
        assert found <= most
        assert found not in [one.lists for one in known]
        known = sorted([*known, truth(found)], key=lambda one: one.lists)
    assert found is None, "it comes to an end"
    least = min(truth(lists).p95 for lists in np.unique(np.geomspace(100, most, 400).round().astype(int)))
    assert best(known).p95 <= (1 + WORTH_IT) ** 2 * least, "no gain by the choice, and none by the curve"


def test_without_two_that_suffice_there_is_no_curve():
    assert next_lists([forecast_of(100, 9.0, reaches=False), forecast_of(200, 8.0)], USUAL, 1_536, 10_000) is None


def test_below_the_fewest_lists_there_is_no_curve():
    found = [forecast_of(100, 5.0), forecast_of(200, 5.0)]
    assert next_lists(found, USUAL, 1_536, 50) is None
    assert next_lists(found, USUAL, 1_536, 1) is None


def test_what_does_not_reach_the_target_is_never_the_best():
    assert best([forecast_of(100, 1.0, reaches=False), forecast_of(200, 9.0)]).lists == 200
    assert best([forecast_of(100, 1.0, reaches=False)]) is None


def test_rivals_are_those_that_the_model_cannot_tell_from_the_chosen():
    found = [forecast_of(100, 5.0), forecast_of(200, 5.2), forecast_of(400, 6.0), forecast_of(800, 5.1)]
    assert [one.lists for one in rivals(found, found[0], 0.05)] == [800, 200]


def test_probes_have_to_suffice_for_every_seed():
    both = [index_of(100, needs=3), index_of(100, seed=1, needs=7)]
    assert need(both, 0.9).probes == 7
    assert need(both[:1], 0.9).probes == 3
    assert forecast(both, USUAL, need(both, 0.9)).list_pages == 700


def test_of_the_last_probe_that_part_counts_that_the_recall_needs():
    """Three probes find 0.9 of every query's neighbours and four find all."""
    index = index_of(100, needs=4)
    ranks = index.ranks.copy()
    ranks[:, :9] = 2
    some = replace(index, ranks=ranks, list_rows=np.full(100, 100.0))
    fewer, enough = (mean(some.recall(probes)).low for probes in (3, 4))
    found = need([some], 0.92)
    assert found.probes == 4
    assert found.share == pytest.approx((0.92 - fewer) / (enough - fewer))
    told = forecast([some], USUAL, found)
    assert told.p95_of_share == pytest.approx(told.p95 - (1 - found.share) * USUAL.c_ms_per_row * 100)


def test_what_does_not_suffice_is_told_with_all_that_there_is():
    found = need([index_of(100, needs=101)], 0.9)
    assert (found.probes, found.reaches, found.recall.value) == (100, False, 0.0)


def test_pages_are_of_centroids_and_of_lists_and_only_these_grow_with_the_table():
    indexes = {lists: [index_of(lists)] for lists in (100, 2_000)}
    points = page_points(indexes, {lists: need(found, 0.9) for lists, found in indexes.items()}, USUAL, 10_000)
    read = [(point.rows, point.lists, point.centroid_pages, point.list_pages) for point in points]
    assert read == [
        (10_000, 100, 100, 300),
        (10_000, 2_000, 2_000, 15),
        (100_000, 100, 100, 3_000),
        (100_000, 2_000, 2_000, 150),
    ]
    assert points[0].p95_ms < points[1].p95_ms
    assert points[2].p95_ms > points[3].p95_ms, "a larger table wants more lists"
