"""Which number of lists is best on paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.ivf import VirtualIndex
from orchestra_lib.vectors.selection import Forecast, best, forecast, need, page_points, rivals, unmeasured

BY_ROWS = unmeasured(1_536)
SURE = Estimate(0.97, 0.96, 0.98, 100)


def forecast_of(lists, p95, *, error=0.0, reaches=True):
    return Forecast(lists, 5, reaches, SURE, p95, error, lists, 100.0)


def index_of(lists, *, seed=0, needs=3, rows=10_000, queries=50):
    """Every query finds all its neighbours with so many probes, and nothing with fewer."""
    order = np.stack([np.random.default_rng(number).permutation(lists) for number in range(queries)]).astype(np.int32)
    ranks = np.full((queries, 10), needs - 1, dtype=np.int32)
    return VirtualIndex(lists, seed, ranks, np.full(lists, rows / lists), order, 1_536, Storage.VECTOR)


def test_within_one_standard_error_the_fewest_lists_win():
    found = [forecast_of(100, 5.2), forecast_of(200, 5.0, error=0.3), forecast_of(400, 5.1), forecast_of(50, 6.0)]
    assert best(found).lists == 100
    assert best([replace(one, p95_error=0.0) for one in found]).lists == 200


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
    assert forecast(both, BY_ROWS, need(both, 0.9)).list_pages == 700


def test_what_does_not_suffice_is_told_with_all_that_there_is():
    found = need([index_of(100, needs=101)], 0.9)
    assert (found.probes, found.reaches, found.recall.value) == (100, False, 0.0)


def test_pages_are_of_centroids_and_of_lists_and_only_these_grow_with_the_table():
    indexes = {lists: [index_of(lists)] for lists in (100, 2_000)}
    points = page_points(indexes, {lists: need(found, 0.9) for lists, found in indexes.items()}, BY_ROWS, 10_000)
    read = [(point.rows, point.lists, point.centroid_pages, point.list_pages) for point in points]
    assert read == [
        (10_000, 100, 100, 300),
        (10_000, 2_000, 2_000, 15),
        (100_000, 100, 100, 3_000),
        (100_000, 2_000, 2_000, 150),
    ]
    assert points[0].p95_ms < points[1].p95_ms
    assert points[2].p95_ms > points[3].p95_ms, "a larger table wants more lists"
