"""When requests are due."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestra_lib.bench.arrivals import evenly, poisson

rates = st.floats(0.5, 2_000)
durations = st.floats(0.01, 20)


@given(rates, durations, st.integers(0, 2**32))
def test_arrivals_ascend_within_the_time_and_are_about_as_many_as_the_rate_says(rate, seconds, seed):
    found = poisson(rate, seconds, seed)
    assert (np.diff(found) >= 0).all()
    assert not found.size or (found[0] >= 0 and found[-1] < seconds)
    # A number outside of this comes once in 10^9 times: it would be another distribution.
    assert stats.poisson.ppf(1e-9, rate * seconds) <= found.size <= stats.poisson.isf(1e-9, rate * seconds)
    assert np.array_equal(found, poisson(rate, seconds, seed)), "the same seed gives the same arrivals"


def test_the_gaps_are_those_of_independent_users():
    gaps = np.diff(poisson(200, 60, seed=3))
    assert stats.kstest(gaps, stats.expon(scale=1 / 200).cdf).pvalue > 0.01
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.03, "a gap says nothing about the next one"


def test_other_seeds_give_other_arrivals():
    assert not np.array_equal(poisson(100, 5, seed=1)[:50], poisson(100, 5, seed=2)[:50])


@given(rates, st.integers(1, 500))
def test_even_arrivals_are_at_equal_distances_and_as_many_as_asked_for(rate, count):
    found = evenly(rate, count / rate)
    assert found.size == count
    assert found[0] == 0
    assert np.allclose(np.diff(found), 1 / rate)


@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0), (np.inf, 1), (1, np.nan)])
def test_a_rate_or_a_duration_that_makes_no_sense_is_refused(rate, seconds):
    with pytest.raises(ValueError, match="positive and finite"):
        poisson(rate, seconds, seed=0)
    with pytest.raises(ValueError, match="positive and finite"):
        evenly(rate, seconds)
