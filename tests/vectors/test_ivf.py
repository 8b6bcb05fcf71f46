"""Virtual indexes: what they say of every probes is what a search of such an index finds and reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_lib.bench.statistics import mean
from orchestra_lib.errors import ParameterError
from orchestra_lib.vectors import ivf
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.geometry import Geometry, is_spherical
from orchestra_lib.vectors.ivf import VirtualIndex, sufficient_probes, virtual_index, virtual_indexes
from orchestra_lib.vectors.kmeans import Trained, assign, directions, train
from orchestra_lib.vectors.nearest import nearest
from orchestra_lib.vectors.pages import list_pages
from orchestra_lib.vectors.truth import Truth

K = 5


def geometry(opclass="vector_cosine_ops", count=400, dimension=12, queries=15, seed=0, copies=0):
    """A table that lies in the sample as a whole; ``copies`` rows are repetitions of others."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.standard_normal((10, dimension))
    rows = (centres[rng.integers(10, size=count)] + rng.standard_normal((count, dimension))).astype(np.float32)
    rows[count - copies :] = rows[:copies]
    asked = (rows[rng.integers(count, size=queries)] + rng.standard_normal((queries, dimension))).astype(np.float32)
    found = nearest(asked, [([str(number) for number in range(count)], rows)], K, opclass)
    truth = Truth(found.ids, found.distances, K, count)
    accepted = tuple(np.array(sorted(map(int, truth.accepted(query)))) for query in range(queries))
    sample = directions(rows) if is_spherical(opclass) else rows
    return Geometry(asked, rows, accepted, K, sample, count, opclass), truth


def searched(found, index, probes):
    """Each query's rows among its nearest lists, by distance, as an IVFFlat scan goes about it."""
    spherical = found.spherical
    centroids = train(found.sample, index.lists, spherical=spherical, seed=index.seed).centroids
    labels = assign(found.neighbours, centroids, spherical=spherical)
    for query in found.queries.astype(np.float64):
        away = -centroids @ query if spherical else np.linalg.norm(centroids - query, axis=1)
        visited = np.flatnonzero(np.isin(labels, np.argsort(away, kind="stable")[:probes]))
        rows = found.neighbours[visited].astype(np.float64)
        if found.opclass == "vector_cosine_ops":
            distances = 1 - rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        else:
            distances = -rows @ query if spherical else np.linalg.norm(rows - query, axis=1)
        yield visited, visited[np.argsort(distances, kind="stable")[:K]]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lists=st.integers(1, 40),
    probes=st.integers(1, 40),
    opclass=st.sampled_from(["vector_cosine_ops", "vector_ip_ops", "vector_l2_ops"]),
    copies=st.sampled_from([0, 100]),
)
def test_recall_and_rows_are_those_of_a_search(seed, lists, probes, opclass, copies):
    probes = min(probes, lists)
    found, truth = geometry(opclass, seed=seed, copies=copies)
    index = virtual_index(found, lists, seed)
    recall, rows = index.recall(probes), index.rows_visited(probes)
    for query, (visited, answer) in enumerate(searched(found, index, probes)):
        right = len(truth.accepted(query).intersection(map(str, answer.tolist())))
        assert recall[query] == min(right, K) / K
        assert rows[query] == len(visited)


def test_the_curve_is_the_mean_recall_of_every_probes_and_ends_with_everything():
    index = virtual_index(geometry()[0], 30, 1)
    curve = index.recall_curve()
    assert np.allclose(curve, [index.recall(probes).mean() for probes in range(1, 31)])
    assert (np.diff(curve) >= 0).all()
    assert curve[-1] == 1
    assert (index.rows_visited(30) == 400).all()


def test_pages_are_the_centroids_and_those_of_each_list_that_is_visited():
    index = virtual_index(geometry()[0], 20, 0)
    pages = list_pages(index.list_rows, 12, Storage.VECTOR)
    assert np.allclose(index.pages(3) - index.centroid_pages, [pages[lists[:3]].sum() for lists in index.order])


def test_the_smallest_probes_clear_the_target_and_one_fewer_do_not():
    index = virtual_index(geometry(queries=200)[0], 30, 0)
    probes = index.smallest_probes(0.8)
    assert mean(index.recall(probes)).low >= 0.8 > mean(index.recall(probes - 1)).low


def test_what_no_number_of_probes_reaches_is_told_so():
    ranks, order = np.full((9, 2), 7, np.int32), np.tile(np.arange(5, dtype=np.int32), (9, 1))
    index = VirtualIndex(50, 0, ranks, np.ones(50), order, 12, Storage.VECTOR)
    assert index.smallest_probes(0.9) is None
    with pytest.raises(ParameterError, match="probes 6 must lie between 1 and 5"):
        index.recall(6)


def test_everything_found_counts_as_cleared_however_few_the_queries():
    index = virtual_index(geometry(queries=3)[0], 10, 0)
    probes = index.smallest_probes(0.999)
    assert index.recall(probes).min() == 1
    assert index.recall(probes - 1).min() < 1


def test_probes_suffice_for_every_seed():
    indexes = list(virtual_indexes(geometry(queries=60)[0], [25], [0, 1, 2]))
    assert [index.seed for index in indexes] == [0, 1, 2]
    assert sufficient_probes(indexes, 0.8) == max(index.smallest_probes(0.8) for index in indexes)


def test_growth_keeps_recall_and_multiplies_rows():
    index = virtual_index(geometry()[0], 20, 0)
    grown = index.at_rows(4_000)
    assert (grown.recall(4) == index.recall(4)).all()
    assert np.allclose(grown.rows_visited(4), 10 * index.rows_visited(4))
    assert grown.rows == pytest.approx(4_000)
    assert grown.skew == pytest.approx(index.skew)


def test_skew_is_the_rows_that_a_rows_own_list_has_over_those_of_a_list():
    even = VirtualIndex(
        4, 0, np.zeros((1, 1), np.int32), np.full(4, 5.0), np.zeros((1, 1), np.int32), 8, Storage.VECTOR
    )
    assert even.skew == 1
    assert virtual_index(geometry()[0], 20, 0).skew > 1


def test_a_part_has_the_figures_of_its_own_queries():
    index, some = virtual_index(geometry()[0], 20, 0), np.array([7, 2])
    assert (index.part(some).recall(3) == index.recall(3)[some]).all()
    assert (index.part(some).rows_visited(3) == index.rows_visited(3)[some]).all()


def test_lists_of_a_table_that_is_larger_than_the_sample_are_estimated_without_bias(monkeypatch):
    """Rows that were trained on are nearer to their centroids than others: only they are counted as they are."""
    found, _ = geometry(count=6_000)
    monkeypatch.setattr(ivf, "training_rows", lambda lists: 600)
    whole, sampled = virtual_index(found, 12, 0), None
    part = Geometry(found.queries, found.neighbours, found.accepted, K, found.sample[:3_000], 6_000, found.opclass)
    sampled = virtual_index(part, 12, 0)
    assert sampled.rows == pytest.approx(6_000)
    assert whole.rows == pytest.approx(6_000)
    labels = np.random.default_rng(0).permutation(3_000)
    centroids = train(part.sample[labels[:600]], 12, spherical=True, seed=0).centroids
    truly = np.bincount(assign(found.sample, centroids, spherical=True), minlength=12)
    assert np.abs(sampled.list_rows - truly).max() < 5 * np.sqrt(truly.max())


def test_only_so_many_probes_are_kept_and_further_neighbours_count_as_not_found(monkeypatch):
    found, _ = geometry()
    whole = virtual_index(found, 40, 0)
    monkeypatch.setattr(ivf, "_MOST_PROBES", 6)
    few = virtual_index(found, 40, 0)
    assert few.most_probes == 6
    assert all((few.recall(probes) == whole.recall(probes)).all() for probes in range(1, 7))


def test_bits_are_left_to_the_loss_of_their_distances():
    found, _ = geometry()
    with pytest.raises(ParameterError, match="bit indexes are not computed"):
        virtual_index(found.in_storage(Storage.BIT), 10, 0)


def test_training_is_given_what_it_needs():
    trained = Trained(np.ones((2, 3), np.float32), np.zeros(4, np.int64), np.ones((2, 3), np.float32))
    assert ivf._list_rows(geometry()[0], trained, np.empty(0, np.int64)).tolist() == [400.0, 0.0]
