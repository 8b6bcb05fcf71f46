"""Histograms against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_lib.bench.histogram import histogram, merged

latencies = st.lists(st.floats(0, 3_600_000), min_size=1, max_size=200)
shares = st.floats(0.001, 1)


@given(latencies, shares)
def test_a_quantile_is_within_a_tenth_of_a_per_cent_of_numpys(values, share):
    exact = np.quantile(values, share, method="inverted_cdf")
    # What is counted are microseconds; an exact tie of rank and share may fall either way in floating point.
    neighbours = {np.quantile(values, min(1, max(0, share + off)), method="inverted_cdf") for off in (-1e-9, 1e-9)}
    found = histogram(values).quantile(share)
    assert any(abs(found - value) <= value * 1e-3 + 1.001e-3 for value in {exact, *neighbours})


@settings(max_examples=50)
@given(latencies, latencies, shares)
def test_merging_loses_nothing(some, others, share):
    together = merged([histogram(some), histogram([*others, np.inf])])
    assert together == histogram([*some, *others, np.inf])
    assert together.quantile(share) == histogram([*some, *others, np.inf]).quantile(share)


def test_the_quantiles_of_a_long_tail_are_numpys():
    values = np.random.default_rng(5).lognormal(1, 1.5, 100_000)
    shares = (0.5, 0.9, 0.95, 0.99, 0.999)
    assert np.allclose(
        histogram(values).quantiles(shares), np.quantile(values, shares, method="inverted_cdf"), rtol=1e-3
    )


def test_what_was_never_answered_is_longer_than_everything():
    found = histogram([1.0] * 94 + [np.inf] * 6)
    assert found.quantile(0.94) == pytest.approx(1, rel=1e-3)
    assert found.quantile(0.95) == np.inf
    assert histogram([np.inf]).quantile(0.5) == np.inf


def test_the_encoding_is_hdr_histograms_own():
    found = HdrHistogram.decode(histogram([1.0, 2.0, 3.0]).encoded)
    assert found.get_total_count() == 3
    assert found.get_value_at_percentile(50) == pytest.approx(2_000, rel=1e-3)


@pytest.mark.parametrize("value", [-1.0, np.nan, 3_700_000.0])
def test_what_is_no_latency_is_refused(value):
    with pytest.raises(ValueError, match="between 0 ms and an hour"):
        histogram([1.0, value])


def test_no_samples_have_no_quantile():
    with pytest.raises(ValueError, match="no samples"):
        histogram([]).quantile(0.5)
