"""Lists worth a look: within what memory and inserts allow, in steps that leave nothing out, and what was asked for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_lib.errors import GateFailed
from orchestra_lib.vectors.cost import CostModel
from orchestra_lib.vectors.forecast import feasible_lists, most_lists_for_memory, outlook
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.ivf import VirtualIndex
from orchestra_lib.vectors.memory import ivfflat_build_memory


@settings(max_examples=60)
@given(
    rows=st.integers(1, 10**8), memory=st.one_of(st.none(), st.integers(70, 100_000)), storage=st.sampled_from(Storage)
)
def test_lists_ascend_in_steps_of_about_two_at_most_and_fit_the_memory(rows, memory, storage):
    lists = feasible_lists(rows, 1536, storage, memory, None)
    assert 1 <= len(lists) <= 6
    assert all(first < second <= 2.1 * first + 1 for first, second in pairwise(lists))
    assert lists[-1] <= max(1, min(rows // 2, 32_768))
    if memory is not None:
        assert ivfflat_build_memory(lists[-1], rows, 1536, rows, storage).required_mib <= memory


@pytest.mark.parametrize(
    ("rows", "lists"),
    [(8_600, (46, 92, 185, 370, 740, 1483)), (10**6, (500, 1000, 2000, 4000, 8000, 16000)), (3, (1,))],
)
def test_known_ladders(rows, lists):
    assert feasible_lists(rows, 1536, Storage.VECTOR, None, None) == pytest.approx(lists, abs=1)


def test_what_was_asked_for_is_in_whatever_it_costs():
    assert 4_000 in feasible_lists(2_000, 1536, Storage.VECTOR, 200, None, asked=(4_000,))


def test_inserts_bound_the_lists_because_each_reads_every_centroid():
    lists = feasible_lists(10**6, 1536, Storage.VECTOR, None, inserts_per_second=1_500)
    assert 2_000 < lists[-1] < 3_000, "240 us an insert at 1,000 centroids"
    assert feasible_lists(10**6, 1536, Storage.HALFVEC, None, 1_500)[-1] > 1.9 * lists[-1], "two centroids a page"


def test_memory_that_allows_no_index_is_refused_with_the_number():
    with pytest.raises(GateFailed, match=r"one list needs \d+ MiB of maintenance_work_mem, 10 are allowed"):
        feasible_lists(10**6, 1536, Storage.VECTOR, 10, None)


@given(memory=st.integers(1, 20_000), rows=st.integers(1, 10**7))
def test_the_most_lists_fit_and_one_more_would_not(memory, rows):
    most = most_lists_for_memory(rows, 1536, Storage.VECTOR, memory)

    def needs(lists):
        return ivfflat_build_memory(lists, rows, 1536, rows).required_mib

    assert most == 0 or needs(most) <= memory
    assert most == 32_768 or needs(most + 1) > memory


def test_an_outlook_grows_with_the_table():
    rng = np.random.default_rng(0)
    order = np.argsort(rng.random((9, 50)), axis=1).astype(np.int32)
    index = VirtualIndex(50, 0, np.zeros((9, 1), np.int32), rng.uniform(50, 150, 50), order, 1536, Storage.VECTOR)
    model = CostModel(0.1, 0.001, 0.001, 0.0, (1.0,))
    now, later = (outlook(index, model, 5, rows) for rows in (5_000, 50_000))
    assert (now.centroid_pages, later.centroid_pages) == (50, 50)
    assert later.list_pages == pytest.approx(10 * now.list_pages, rel=0.01)
    assert now.index_mib == pytest.approx((1 + 50 + 5_000) * 8_192 / 2**20, rel=0.01)
    assert later.p95_ms - 0.15 == pytest.approx(10 * (now.p95_ms - 0.15), rel=0.01)
    assert later.build_memory_mib >= now.build_memory_mib
