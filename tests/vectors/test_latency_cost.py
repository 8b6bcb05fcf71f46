"""The cost model: it recovers what a search costs, says how far it is off, and refuses to guess."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_lib.errors import DataError
from orchestra_lib.vectors.cost import CostModel, Observation, centroid_over_row, fit, rows_of_centroid_page
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.ivf import VirtualIndex


def observations(a, b, c, centroid_pages, count=90, noise=0.0, seed=0, spikes=0):
    rng = np.random.default_rng(seed)
    rows = rng.uniform(20, 4_000, size=count)
    pages = rng.choice(centroid_pages, size=count)
    times = (a + b * pages + c * rows) * rng.lognormal(0, noise, size=count)
    times[:spikes] *= 8
    return [Observation(int(p), float(r), float(t)) for p, r, t in zip(pages, rows, times, strict=True)]


@settings(max_examples=30, deadline=None)
@given(a=st.floats(0, 2), ratio=st.floats(0.5, 2), c=st.floats(1e-4, 1e-2), seed=st.integers(0, 10**6))
def test_coefficients_are_recovered_from_indexes_with_different_lists(a, ratio, c, seed):
    b = ratio * c
    model = fit(observations(a, b, c, [100, 1_000], seed=seed), 1)
    assert model.a_ms == pytest.approx(a, abs=1e-6)
    assert model.b_ms_per_centroid_page == pytest.approx(b, rel=1e-4)
    assert model.c_ms_per_row == pytest.approx(c, rel=1e-4)
    assert model.error_relative < 1e-6


def test_noise_and_spikes_move_the_coefficients_little_and_show_in_the_scatter():
    model = fit(observations(0.2, 1e-3, 1e-3, [100, 1_000], count=300, noise=0.05, spikes=15), 1)
    assert model.c_ms_per_row == pytest.approx(1e-3, rel=0.03)
    assert model.b_ms_per_centroid_page == pytest.approx(1e-3, rel=0.1)
    assert 0.01 < model.error_relative < 0.06
    assert model.ratios[-10] > 5, "the spikes are not explained away"
    assert list(model.ratios) == sorted(model.ratios)


def test_with_one_index_a_centroid_costs_a_known_part_of_a_row():
    model = fit(observations(0.3, 0.8e-3, 1e-3, [500], count=60), rows_per_centroid_page=0.8)
    assert model.b_ms_per_centroid_page == pytest.approx(0.8 * model.c_ms_per_row)
    assert model.a_ms == pytest.approx(0.3, abs=1e-6)


def test_a_centroid_costs_what_was_measured_where_it_was():
    assert [round(centroid_over_row(dimension), 2) for dimension in (256, 1_536)] == [0.20, 0.37]
    assert rows_of_centroid_page(1_536) == centroid_over_row(1_536), "one lies on a page"


def test_a_slow_minute_between_two_indexes_is_not_taken_for_the_price_of_centroids():
    seen = observations(0.3, 0.4e-3, 1e-3, [158, 632], count=300, noise=0.02)
    drifted = [replace(one, server_ms=one.server_ms * (1.15 if one.centroid_pages == 158 else 1.0)) for one in seen]
    model = fit(drifted, rows_per_centroid_page=0.4)
    assert 0.2 <= model.b_ms_per_centroid_page / model.c_ms_per_row <= 0.8


def test_coefficients_are_never_negative():
    falling = [Observation(10, float(rows), 5.0 - rows / 1_000) for rows in range(0, 4_000, 100)]
    model = fit(falling, 1)
    assert min(model.a_ms, model.b_ms_per_centroid_page, model.c_ms_per_row) >= 0


def test_too_few_or_equal_observations_are_refused():
    with pytest.raises(DataError, match="19 observations would be chance"):
        fit(observations(1, 1e-3, 1e-3, [10], count=19), 1)
    with pytest.raises(DataError, match="same number of rows"):
        fit([Observation(10, 50.0, 1.0)] * 30, 1)


def test_a_prediction_is_made_of_the_pages_and_rows_of_a_virtual_index():
    order = np.array([[0, 1], [1, 0]], dtype=np.int32)
    index = VirtualIndex(2, 0, np.zeros((2, 1), np.int32), np.array([100.0, 300.0]), order, 1536, Storage.VECTOR)
    model = CostModel(0.5, 0.01, 0.001, 0.0, (1.0,))
    assert model.predict(index, 1).tolist() == [0.5 + 0.02 + 0.1, 0.5 + 0.02 + 0.3]
    assert model.predict(index.at_rows(4_000), 2).tolist() == [pytest.approx(4.52)] * 2
    assert model.quantile_ms(index, 2, 0.95) == pytest.approx(0.92)
    scattered = CostModel(0.5, 0.01, 0.001, 0.1, (0.9, 1.0, 1.5))
    assert scattered.quantile_ms(index, 2, 0.99) > 1.3, "the scatter of single queries is part of a quantile"
