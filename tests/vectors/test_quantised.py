"""What halfvec and bits lose, counted beforehand, against the orders themselves."""

from __future__ import annotations

import numpy as np
import pytest
from bench.families import topics

from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.geometry import Geometry
from orchestra_lib.vectors.nearest import nearest
from orchestra_lib.vectors.quantised import StoredOrder, stored_order

K = 5


def geometry_of(rows, queries, opclass):
    ids = [str(number) for number in range(len(rows))]
    found = nearest(queries, [(ids, rows)], K, opclass)
    accepted = np.array([[int(key) for key in keys[:K]] for keys in found.ids])
    numbers, places = np.unique(accepted, return_inverse=True)
    places = places.reshape(accepted.shape)
    return accepted, Geometry(queries, rows[numbers], tuple(places), K, rows[:10], len(rows), opclass)


def blocks(rows, size=700):
    for start in range(0, len(rows), size):
        yield [], rows[start : start + size]


@pytest.mark.parametrize("opclass", ["vector_cosine_ops", "vector_ip_ops", "vector_l2_ops"])
def test_without_rounding_the_neighbours_come_first(opclass):
    rows, queries = topics(2_000, 20, 32, 0)
    rows = rows * np.random.default_rng(0).uniform(0.5, 2, (len(rows), 1)).astype(np.float32)
    _, geometry = geometry_of(rows, queries, opclass)
    found = stored_order(geometry, Storage.VECTOR, blocks(rows))
    assert sorted(found.ranks[0].tolist()) == list(range(K))
    assert found.recall(K).value == 1.0


def test_ranks_among_bits_are_those_of_the_hamming_distance():
    rows, queries = topics(1_500, 12, 64, 1)
    accepted, geometry = geometry_of(rows, queries, "vector_cosine_ops")
    found = stored_order(geometry, Storage.BIT, blocks(rows))
    for query, numbers in enumerate(accepted):
        distances = ((rows > 0) != (queries[query] > 0)).sum(axis=1)
        for place, number in enumerate(numbers):
            nearer = int((distances < distances[number]).sum())
            level = int((distances == distances[number]).sum())
            assert nearer <= found.ranks[query, place] <= nearer + level


def test_bits_lose_more_than_halfvec_and_re_ranking_brings_it_back():
    rows, queries = topics(3_000, 40, 64, 2)
    _, geometry = geometry_of(rows, queries, "vector_cosine_ops")
    half, bit = (stored_order(geometry, storage, blocks(rows)) for storage in (Storage.HALFVEC, Storage.BIT))
    assert half.recall(K).value > 0.99
    assert bit.recall(K).value < 0.8
    enough = bit.smallest_rerank(0.9, 3_000)
    assert bit.recall(enough).low >= 0.9 > bit.recall(enough - 1).low


def test_what_no_re_ranking_brings_back_is_told():
    far = StoredOrder(Storage.BIT, np.full((10, K), 500))
    assert far.smallest_rerank(0.9, 400) is None
    assert far.smallest_rerank(0.9, 600) == 501
