"""Tuning from a sample: at the matched radius it says what the whole table would say, without it too many probes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import unit_vectors

from orchestra_lib.errors import DataError
from orchestra_lib.scale.matched_radius import matched_neighbours, sampled_geometry, smallest_sample
from orchestra_lib.vectors.ivf import virtual_index

ROWS, QUERIES, LISTS, K = 100_000, 300, 200, 20
TRAINED = 12_000
OPCLASS = "vector_cosine_ops"


@pytest.fixture(scope="module")
def vectors():
    return unit_vectors(ROWS + QUERIES, seed=5, dimension=32, clusters=40)


def samples(vectors, share):
    """Queries, a share of the rows to search, and other rows to train on."""
    queries, rows = vectors[:QUERIES], vectors[QUERIES:]
    order = np.random.default_rng(3).permutation(ROWS)
    return queries, rows[order[: round(share * ROWS)]], rows[order[-TRAINED:]]


def recall_curve(vectors, share, k=K):
    """Mean recall by probes, from a share of the rows."""
    geometry, matched = sampled_geometry(*samples(vectors, share), k, ROWS, OPCLASS)
    return virtual_index(geometry, LISTS, 0).recall_curve(), matched


def test_at_the_matched_radius_a_quarter_of_the_rows_says_what_all_of_them_do(vectors):
    whole, _ = recall_curve(vectors, 1.0)
    sampled, matched = recall_curve(vectors, 0.25)
    assert (matched.count, matched.is_pessimistic) == (5, False)
    # 1,500 neighbours: three sigma of their mean is 0.04 at worst.
    assert np.abs(whole[:40] - sampled[:40]).max() < 0.04


def test_without_it_more_probes_seem_to_be_needed(vectors):
    whole, _ = recall_curve(vectors, 1.0)
    sampled, _ = recall_curve(vectors, 0.25)
    # Twenty neighbours of the sample, as if a quarter of the table were all of it.
    unmatched, matched = recall_curve(vectors, 0.25, k=4 * K)
    assert matched.count == K
    missed, error = ((whole - curve)[:4].mean() for curve in (unmatched, sampled))
    assert missed > 0.01
    assert abs(error) < missed


def test_lists_have_the_size_of_the_whole_table(vectors):
    geometry, _ = sampled_geometry(*samples(vectors, 0.05), K, ROWS, OPCLASS)
    assert virtual_index(geometry, LISTS, 0).rows == pytest.approx(ROWS)


@given(st.integers(1, 100), st.floats(1e-6, 1))
def test_never_fewer_neighbours_than_the_radius_has(k, share):
    matched = matched_neighbours(k, share)
    assert 1 <= matched.count <= k
    assert matched.count >= k * share - 1e-6
    assert matched.radius_ratio >= 1 - 1e-9


def test_a_sample_that_is_too_small_says_so():
    assert matched_neighbours(10, 0.01).is_pessimistic
    assert not matched_neighbours(10, 0.1).is_pessimistic


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(DataError, match="of a table is none"):
        matched_neighbours(10, share)


def test_the_sample_that_is_needed_reaches_the_radius():
    rows = smallest_sample(10, 10**8, 1_000)
    assert matched_neighbours(10, rows / 10**8).radius_ratio == pytest.approx(1, abs=0.2)
    assert smallest_sample(10, 1_000, 10) == 1_000
