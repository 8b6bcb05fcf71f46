"""Intervals that hold what they say."""

from __future__ import annotations

import numpy as np
import pytest

from orchestra_lib.bench.statistics import mean, quantile


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


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        quantile([], 0.5)
    with pytest.raises(ValueError, match="no samples"):
        mean([])
