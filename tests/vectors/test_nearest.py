"""The nearest vectors of many queries: what a float64 computation of every distance gives, whatever the tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import unit_vectors

from orchestra_lib.vectors import nearest as module
from orchestra_lib.vectors.nearest import TIE, nearest

pytestmark = pytest.mark.slow

OPCLASSES = ("vector_cosine_ops", "vector_ip_ops", "vector_l2_ops")


def true_distances(queries, rows, opclass):
    queries, rows = queries.astype(np.float64), rows.astype(np.float64)
    if opclass == "vector_l2_ops":
        return np.linalg.norm(queries[:, None] - rows[None], axis=2)
    if opclass == "vector_ip_ops":
        return -queries @ rows.T
    lengths = [np.linalg.norm(vectors, axis=1) for vectors in (queries, rows)]
    return 1 - (queries / lengths[0][:, None]) @ (rows / lengths[1][:, None]).T


def in_blocks(rows, size):
    ids = [str(number) for number in range(len(rows))]
    return [(ids[start : start + size], rows[start : start + size]) for start in range(0, len(rows), size)]


def assert_exact(queries, rows, k, opclass, block=10_000):
    found = nearest(queries, in_blocks(rows, block), k, opclass)
    distances = true_distances(queries, rows, opclass)
    assert found.rows == len(rows)
    for number, (ids, told) in enumerate(zip(found.ids, found.distances, strict=True)):
        wanted = np.sort(distances[number])[: min(k, len(rows))]
        scale = max(1, np.abs(distances[number]).max())
        assert len(ids) == len(set(ids)) >= len(wanted)
        assert list(told) == sorted(told)
        assert np.allclose(told[: len(wanted)], wanted, rtol=0, atol=1e-9 * scale)
        assert np.allclose(told, distances[number][[int(key) for key in ids]], rtol=0, atol=1e-9 * scale)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    opclass=st.sampled_from(OPCLASSES),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 400), st.integers(1, 40)),
    k=st.integers(1, 12),
    tile=st.integers(1, 200),
    block=st.integers(1, 150),
    scale=st.sampled_from([1e-3, 1, 1e3]),
)
def test_neighbours_are_those_of_a_float64_computation(seed, opclass, shape, k, tile, block, scale):
    count, rows, dimension = shape
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((count, dimension)).astype(np.float32)
    vectors = (scale * rng.standard_normal((rows, dimension))).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_TILE_ROWS", tile)
        assert_exact(queries, vectors, k, opclass, block)


@pytest.mark.parametrize("opclass", OPCLASSES)
def test_near_duplicates_that_float32_cannot_tell_apart_come_in_their_true_order(opclass):
    rng = np.random.default_rng(5)
    centre = unit_vectors(1, seed=5)
    rows = np.repeat(centre, 200, axis=0)
    rows[np.arange(200), rng.integers(1536, size=200)] *= np.float32(1 + 2e-5)
    far = unit_vectors(9_000, seed=6)
    queries = centre + np.float32(0.01) * unit_vectors(3, seed=7)
    everything = np.vstack([far[:8_100], rows, far[8_100:]])
    assert_exact(queries, everything, 10, opclass)
    product = queries @ rows.T
    exact = true_distances(queries, rows, "vector_ip_ops")
    assert any(
        set(np.argsort(-product[n], kind="stable")[:10]) != set(np.argsort(exact[n], kind="stable")[:10])
        for n in range(3)
    ), "the rows were to be too near for float32"


def test_rows_as_near_as_the_kth_are_kept_across_tiles():
    rows = unit_vectors(20_000, seed=1, dimension=64)
    rows[[3, 9_000, 9_001, 19_999]] = rows[0]
    found = nearest(rows[:1], in_blocks(rows, 9_500), 2, "vector_cosine_ops")
    assert found.ids[0] == ("0", "3", "9000", "9001", "19999")
    assert max(found.distances[0]) < TIE


def test_no_rows_have_no_neighbours():
    found = nearest(unit_vectors(3), [], 10, "vector_l2_ops")
    assert (found.rows, found.ids) == (0, ((), (), ()))
