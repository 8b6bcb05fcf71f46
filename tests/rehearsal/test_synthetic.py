"""Grown rows are new unit vectors, each near a real one, and spread as the real ones are."""

from __future__ import annotations

import numpy as np
import pytest
from stores import unit_vectors

from orchestra_lib.rehearsal.synthetic import Growth, Matrix

DIMENSION = 48
REAL = 600
DRAWN = 4_000


@pytest.fixture(scope="module")
def real() -> Matrix:
    return unit_vectors(REAL, seed=1, dimension=DIMENSION)


@pytest.fixture(scope="module")
def drawn(real: Matrix) -> tuple[np.ndarray, Matrix]:
    return Growth(real).draw(DRAWN, np.random.default_rng(5))


def test_drawn_rows_are_unit_vectors_near_rows_that_there_are(drawn: tuple[np.ndarray, Matrix]) -> None:
    near, rows = drawn
    assert (rows.shape, rows.dtype) == ((DRAWN, DIMENSION), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert (near.shape, near.dtype) == ((DRAWN,), np.int64)
    assert near.min() >= 0
    assert near.max() < REAL
    assert len(np.unique(near)) > REAL * 0.95, "every real row is drawn from"


def test_a_drawn_row_is_far_closer_to_its_real_row_than_to_any_other(
    real: Matrix, drawn: tuple[np.ndarray, Matrix]
) -> None:
    near, rows = drawn
    to_near = np.sum(rows * real[near], axis=1)
    to_random = np.sum(rows * real[np.random.default_rng(6).permutation(near)], axis=1)
    assert to_near.mean() > to_random.mean() + 0.5
    assert to_near.max() < 0.9999, "none is a copy"
    assert len(np.unique(rows, axis=0)) == DRAWN


def test_drawn_rows_have_the_mean_and_the_covariance_of_the_real_ones() -> None:
    # Close around one direction, scaling to unit length moves hardly anything, so that both can still be seen.
    rng = np.random.default_rng(2)
    scattered = rng.standard_normal((REAL, 8)) * np.linspace(0.05, 0.02, 8)
    scattered[:, 0] += 1
    real = (scattered / np.linalg.norm(scattered, axis=1, keepdims=True)).astype(np.float32)
    _, rows = Growth(real).draw(40_000, rng)
    np.testing.assert_allclose(rows.mean(axis=0), real.mean(axis=0), atol=0.003)
    wanted, found = np.cov(real.T)[1:, 1:], np.cov(rows.T)[1:, 1:]
    np.testing.assert_allclose(np.diag(found), np.diag(wanted), rtol=0.08)
    np.testing.assert_allclose(found, wanted, atol=0.08 * wanted.max())


def test_the_same_seed_draws_the_same_rows_and_the_next_draw_others(real: Matrix) -> None:
    rng, again = np.random.default_rng(9), np.random.default_rng(9)
    growth = Growth(real)
    first, second = growth.draw(50, rng), growth.draw(50, rng)
    np.testing.assert_array_equal(first[0], Growth(real).draw(50, again)[0])
    np.testing.assert_array_equal(second[1], growth.draw(50, again)[1])
    assert not np.array_equal(first[1], second[1])


def test_rows_fewer_than_dimensions_still_grow(real: Matrix) -> None:
    near, rows = Growth(real[:5]).draw(20, np.random.default_rng(0))
    assert near.max() < 5
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
