"""Intervals that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from orchestra_lib.bench.statistics import AMOUNTS, mean, proportion, quantile, quantile_of_series, slope


def test_the_interval_of_a_quantile_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(7)
    truth = -np.log(0.05)  # p95 of a unit exponential
    intervals = [quantile(rng.exponential(size=300), 0.95) for _ in range(300)]
    covered = np.mean([found.low <= truth <= found.high for found in intervals])
    assert covered >= 0.93


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    covered = np.mean(
        [(found := mean(rng.binomial(10, 0.96, size=150) / 10, seed=n)).low <= 0.96 <= found.high for n in range(200)]
    )
    assert covered >= 0.90


def test_too_few_samples_leave_the_end_of_an_interval_open():
    assert quantile([1.0, 2.0, 3.0], 0.99).high == np.inf
    assert str(quantile([1.0, 2.0, 3.0], 0.99)).endswith(", ∞]")


def test_equal_samples_still_have_a_lower_end():
    found = mean([1.0] * 100)
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(0.97, abs=0.001)


def test_equal_rates_have_no_upper_end_because_nothing_bounds_what_was_not_seen():
    found = mean([50.0] * 10, bounds=AMOUNTS)
    assert (found.value, found.high) == (50.0, np.inf)
    assert found.low == pytest.approx(50 * (1 - 0.2996), rel=1e-3)
    assert mean([7.0], bounds=AMOUNTS).low == 0


def test_equal_shares_stay_shares_at_either_end():
    assert (mean([0.0] * 100).low, mean([1.0]).high, mean([1.0]).low) == (0, 1, 0)
    assert mean([0.5] * 100).high == pytest.approx(0.515, abs=0.001)


def test_a_rate_is_not_taken_for_a_share():
    with pytest.raises(ValueError, match="samples from 50 to 50 do not lie between 0 and 1"):
        mean([50.0] * 10)


def test_the_interval_of_a_few_losses_is_exact_where_a_bootstrap_stops_too_early():
    assert proportion(1, 100).high == pytest.approx(0.0545, abs=1e-4)
    assert proportion(0, 100).high == pytest.approx(1 - 0.025 ** (1 / 100))
    rng = np.random.default_rng(7)
    covered = np.mean(
        [(found := proportion(rng.binomial(100, 0.02), 100)).low <= 0.02 <= found.high for _ in range(1_000)]
    )
    assert covered >= 0.95
    with pytest.raises(ValueError, match="no samples"):
        proportion(0, 0)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        quantile([], 0.5)
    with pytest.raises(ValueError, match="no samples"):
        quantile_of_series([], 0.5)
    with pytest.raises(ValueError, match="no samples"):
        mean([])


def waits_of_a_queue(rng, count, load=0.7):
    """Times in the system of a queue with one server, Poisson arrivals and exponential service of mean 1 (M/M/1).

    They are exponential with mean 1 / (1 - load), and each is much like the one before.
    """
    between, service = rng.exponential(1 / load, count), rng.exponential(1.0, count)
    steps = service[:-1] - between[1:]
    walk = np.concatenate([[0.0], np.cumsum(steps)])
    return walk - np.minimum.accumulate(walk) + service


def test_the_interval_of_a_queues_quantile_covers_the_truth_where_that_of_independent_samples_does_not():
    rng = np.random.default_rng(7)
    truth = -np.log(0.05) / 0.3
    runs = [waits_of_a_queue(rng, 5_000)[1_000:] for _ in range(150)]
    covered = {
        of.__name__: np.mean([(found := of(run, 0.95)).low <= truth <= found.high for run in runs])
        for of in (quantile, quantile_of_series)
    }
    assert covered["quantile"] < 0.6
    assert covered["quantile_of_series"] >= 0.88


def test_independent_samples_have_the_same_interval_in_any_order():
    sample = np.random.default_rng(3).exponential(size=2_000)
    series, set_ = quantile_of_series(sample, 0.9), quantile(sample, 0.9)
    assert series.value == set_.value
    assert (series.high - series.low) == pytest.approx(set_.high - set_.low, rel=0.15)


def test_the_interval_of_a_quantile_is_that_of_the_order_statistics():
    sample = np.random.default_rng(3).exponential(size=300)
    for share in (0.5, 0.9, 0.95):
        expected = stats.quantile_test(sample, p=share).confidence_interval()
        found = quantile(sample, share)
        assert (found.low, found.high) == (expected.low, expected.high)
        assert found.value == pytest.approx(np.quantile(sample, share))


def test_what_never_came_makes_the_quantiles_beyond_it_infinite():
    sample = [1.0] * 90 + [np.inf] * 10
    assert quantile(sample, 0.5).high == 1.0
    assert quantile(sample, 0.95).value == np.inf
    assert quantile_of_series([np.inf] * 10, 0.5).low in (np.inf, -np.inf)
    assert quantile([1.0, np.inf], 0.5).value == np.inf, "between a number and none lies no number"


def test_the_interval_of_a_slope_covers_the_truth_though_neighbours_are_alike():
    rng = np.random.default_rng(7)
    at = np.arange(600) / 2
    noises = [np.convolve(rng.standard_normal(609), np.ones(10) / 10, "valid") for _ in range(200)]
    covered = np.mean([(found := slope(at, 0.01 * at + noise)).low <= 0.01 <= found.high for noise in noises])
    assert covered >= 0.90


def test_a_series_that_stands_still_has_no_slope_and_one_spike_makes_none():
    still = slope(range(100), [7.0] * 100)
    assert (still.value, still.low, still.high) == (0, 0, 0)
    assert slope(range(100), [7.0] * 99 + [900.0]).value == 0
    with pytest.raises(ValueError, match="19 values have no 20 parts"):
        slope(range(19), [1.0] * 19)
