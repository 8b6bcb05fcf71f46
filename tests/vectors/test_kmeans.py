"""Centroids as pgvector trains them: the same first choice, the same fixed point, and no shortcut that changes it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import unit_vectors

from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.vectors import kmeans
from orchestra_lib.vectors.kmeans import assign, directions, train, training_rows, training_work
from orchestra_lib.vectors.projection import principal_axes

CONVERGED = 500


def until_nothing_moves(*given, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kmeans, "_SETTLED", 0)
        return train(*given, **options, iterations=CONVERGED)


def blobs(count, dimension, seed, clusters=8):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((clusters, dimension))
    return (centres[rng.integers(clusters, size=count)] + rng.standard_normal((count, dimension))).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(30, 300), lists=st.integers(1, 25), spherical=st.booleans(),
)  # fmt: skip
def test_a_converged_training_is_a_fixed_point_of_lloyds_iteration(seed, count, lists, spherical):
    rows = blobs(count, 12, seed)
    rows = directions(rows) if spherical else rows
    trained = until_nothing_moves(rows, lists, spherical=spherical, seed=seed)
    distances = np.linalg.norm(rows[:, None].astype(np.float64) - trained.centroids[None], axis=2)
    assert (distances[np.arange(count), trained.labels] <= distances.min(axis=1) + 1e-5).all(), (
        "each row is in its nearest"
    )
    for label in np.unique(trained.labels):
        mean = rows[trained.labels == label].mean(axis=0, dtype=np.float64)
        mean = mean / np.linalg.norm(mean) if spherical else mean
        assert np.allclose(trained.centroids[label], mean, atol=1e-5)


@pytest.mark.parametrize("spherical", [True, False])
def test_looking_near_a_rows_centre_ends_at_a_fixed_point_as_well(spherical):
    rows = blobs(4_000, 12, 3, clusters=60)
    rows = directions(rows) if spherical else rows
    trained = until_nothing_moves(rows, kmeans._FEW_LISTS + 44, spherical=spherical, seed=1)
    assert (assign(rows, trained.centroids, spherical=spherical) == trained.labels).all()


def test_looking_near_a_rows_centre_makes_lists_as_close_as_looking_at_all(monkeypatch):
    rows = directions(blobs(8_000, 16, 3, clusters=400))

    def closeness():
        found = [until_nothing_moves(rows, 500, spherical=True, seed=seed) for seed in range(3)]
        return np.mean([np.vecdot(rows, one.centroids[one.labels]) for one in found])

    near = closeness()
    monkeypatch.setattr(kmeans, "_FEW_LISTS", 500)
    assert 1 - near == pytest.approx(1 - closeness(), rel=0.01)


def test_it_ends_when_hardly_a_row_moves_and_is_as_good_as_if_it_had_gone_on(monkeypatch):
    rows = directions(blobs(8_000, 16, 3, clusters=400))
    moves = []
    monkeypatch.setattr(
        kmeans._Training, "_move", lambda self, move=kmeans._Training._move: (moves.append(1), move(self))
    )

    def distance(train_):
        moves.clear()
        found = [train_(rows, 1_000, spherical=True, seed=seed) for seed in range(3)]
        return np.mean([1 - np.vecdot(rows, one.centroids[one.labels]) for one in found])

    early = distance(train)
    assert len(moves) < 3 * kmeans.ITERATIONS / 2
    assert early == pytest.approx(distance(until_nothing_moves), rel=0.01)
    assert len(moves) > 3 * kmeans.ITERATIONS / 2


def test_first_centres_are_drawn_by_the_square_of_their_distance():
    """Three of five points on a line, against the exact probabilities of every order of draws."""
    points = np.array([0.0, 1.0, 3.0, 7.0, 8.0])
    squares = (points[:, None] - points[None]) ** 2
    expected = np.zeros(32)
    for first in range(5):
        for second in range(5):
            chance = squares[first, second] / squares[first].sum() / 5
            left = np.minimum(squares[first], squares[second])
            for third in range(5):
                expected[1 << first | 1 << second | 1 << third] += chance * left[third] / left.sum()
    counts = np.zeros(32)
    for seed in range(1_500):
        training = kmeans._Training(points[:, None].astype(np.float32), 3, False, lambda count: np.zeros((count, 1)))
        training._choose(np.random.default_rng(seed))
        counts[sum({1 << int(np.flatnonzero(points == centre)[0]) for centre in training.centres[:, 0]})] += 1
    assert np.abs(counts / 1_500 - expected).max() < 0.05, "four standard deviations of the commonest set"


def test_many_first_centres_spread_as_far_as_those_drawn_one_by_one(monkeypatch):
    rows = directions(blobs(2_000, 16, 5, clusters=100))

    def spread(seed):
        trained = train(rows, 150, spherical=True, seed=seed, iterations=0)
        return float(1 - np.vecdot(rows, trained.centroids[trained.labels]).mean())

    together = [spread(seed) for seed in range(6)]
    monkeypatch.setattr(kmeans, "_CANDIDATES_AT_ONCE", 1)
    singly = [spread(seed) for seed in range(6)]
    assert abs(np.mean(together) - np.mean(singly)) < 3 * max(np.std(singly), np.std(together))


@pytest.mark.parametrize("spherical", [True, False])
def test_more_lists_than_rows_give_as_many_centroids_all_the_same(spherical):
    rows = unit_vectors(7, dimension=8)
    trained = train(np.vstack([rows, rows]), 20, spherical=spherical, seed=0)
    assert trained.centroids.shape == (20, 8)
    assert len(np.unique(trained.labels)) == 7, "each row that is there is a centroid, repetitions share one"
    assert np.isfinite(trained.centroids).all()


def test_the_same_seed_gives_the_same_centroids_and_another_one_others():
    rows = unit_vectors(400, dimension=16)
    first, again, other = (train(rows, 12, spherical=True, seed=seed).centroids for seed in (4, 4, 5))
    assert (first == again).all()
    assert not np.allclose(first, other)


def test_training_along_few_axes_groups_rows_as_well_as_along_all():
    rows = unit_vectors(3_000, dimension=256, clusters=60)
    axes = principal_axes(rows, seed=0)
    assert axes is not None
    assert axes.shape[1] <= 128, "half of the dimensions"

    def closeness(**along):
        found = [train(rows, 200, spherical=True, seed=seed, **along) for seed in range(3)]
        return np.mean([np.vecdot(rows, one.centroids[assign(rows, one.centroids, spherical=True)]) for one in found])

    assert closeness(axes=axes, projected=rows @ axes) == pytest.approx(closeness(), rel=0.01)


def test_rows_without_few_main_directions_are_not_projected():
    rng = np.random.default_rng(0)
    assert principal_axes(rng.standard_normal((4_000, 200)).astype(np.float32), seed=0) is None


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ParameterError, match="0 lists cannot be trained"):
        train(unit_vectors(3, dimension=4), 0, spherical=True, seed=0)
    with pytest.raises(DataError, match="no row"):
        train(directions(np.zeros((3, 4), dtype=np.float32)), 2, spherical=True, seed=0)


def test_more_lists_and_more_rows_are_more_to_train():
    assert training_work(20, 5_000) == 5_000 * 20 * 13, "few lists are all looked at each time"
    assert training_work(2_000, 10**6) == 100_000 * (3 * 2_000 + 8 * 600), "ten iterations, of 50 rows a list"
    assert training_work(2_000, 10_000) < training_work(2_000, 20_000) == 20_000 * (2 * 2_000 + 5 * 600)


def test_pgvector_samples_fifty_rows_a_list_and_never_fewer_than_ten_thousand():
    assert [training_rows(lists) for lists in (1, 200, 201, 4_000)] == [10_000, 10_000, 10_050, 200_000]
