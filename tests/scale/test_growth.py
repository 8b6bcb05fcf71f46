"""Laws of growth: exact where the world follows them, honest about how far they were right where it does not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from orchestra_lib.errors import DataError
from orchestra_lib.scale.growth import (
    BUILD,
    Caches,
    IndexPoint,
    SearchPoint,
    fit,
    fit_builds,
    fit_searches,
    grown_indexes,
)

MB = 1e6
CACHES = Caches(processor_bytes=32 * MB, buffers_bytes=4_000 * MB)
ROW_BYTES = 2_700.0
SIZES = (10_000, 30_000, 100_000)


def index(rows: int, lists: int, noise: float = 1.0) -> IndexPoint:
    training = min(rows, max(50 * lists, 10_000))
    return IndexPoint(rows, lists, noise * (0.2 + 3e-8 * training * lists + 6e-8 * rows * lists + 2e-5 * rows))


def search(visited: float, lists: int, table_rows: int, caches: Caches = CACHES) -> SearchPoint:
    size = ROW_BYTES * table_rows
    memory, outside = (max(0.0, 1 - held / size) for held in (caches.processor_bytes, caches.buffers_bytes))
    row_ms = 3e-4 + 2e-4 * memory + 2e-3 * outside
    return SearchPoint(visited, lists, size, 0.25 + 2.6e-4 * lists + row_ms * visited)


def searches(caches: Caches = CACHES) -> list[SearchPoint]:
    draw = np.random.default_rng(1)
    return [
        search(probes * rows / lists * draw.lognormal(0, 0.3), lists, rows, caches)
        for rows in SIZES
        for lists in (math.isqrt(rows), 2 * math.isqrt(rows))
        for probes in (4, 8, 16)
        for _ in range(20)
    ]


MEASURED = [index(rows, factor * math.isqrt(rows)) for rows in SIZES for factor in (1, 4)]


def test_a_build_at_three_times_the_largest_size_follows_from_the_smaller_ones():
    draw = np.random.default_rng(1)
    noisy = [replace(one, build_seconds=one.build_seconds * draw.normal(1, 0.03)) for one in MEASURED]
    law = fit_builds(noisy).law
    wanted = index(300_000, 1_100)
    assert law.predict(wanted) == pytest.approx(wanted.build_seconds, rel=0.15)
    assert sum(law.parts(wanted).values()) == pytest.approx(law.predict(wanted))
    assert all(value >= 0 for value in law.coefficients.values())


def test_it_tells_how_well_each_size_was_predicted_from_smaller_ones():
    good = fit_builds(MEASURED)
    assert set(good.ratios) == {100_000}
    assert good.worst < 0.2
    # Something that no law knows: from 100,000 rows on nothing fits into memory any more.
    broken = [replace(one, build_seconds=one.build_seconds * (3 if one.rows == 100_000 else 1)) for one in MEASURED]
    assert fit_builds(broken).worst > 0.5


def test_two_points_are_no_law():
    with pytest.raises(DataError, match="from 2 points would be a guess"):
        fit(MEASURED[:2], BUILD, lambda one: one.build_seconds)


def test_what_was_too_short_to_be_measured_is_no_point():
    with pytest.raises(DataError, match=r"rows=10000, lists=100, .* measured nothing"):
        fit_builds([*MEASURED, IndexPoint(10_000, 100, 0.0)])


def test_nothing_was_predicted_from_a_single_size():
    assert fit_builds([index(10_000, lists) for lists in (50, 100, 200)]).worst == math.inf


def test_a_query_costs_what_it_did_and_its_rows_come_from_memory_once_no_cache_holds_the_index():
    draw = np.random.default_rng(2)
    noisy = [replace(one, milliseconds=one.milliseconds * draw.lognormal(0, 0.05)) for one in searches()]
    law = fit_searches(noisy, CACHES).law
    for wanted in (search(4_000, 547, 300_000), search(9_000, 1_094, 300_000)):
        assert law.predict(wanted) == pytest.approx(wanted.milliseconds, rel=0.05)
    assert law.coefficients["rows from memory"] > 0


def test_a_few_queries_that_met_something_else_do_not_move_the_law():
    disturbed = [
        replace(one, milliseconds=one.milliseconds * (5 if at % 20 == 0 else 1)) for at, one in enumerate(searches())
    ]
    wanted = search(4_000, 547, 300_000)
    assert fit_searches(disturbed, CACHES).law.predict(wanted) == pytest.approx(wanted.milliseconds, rel=0.05)


def test_what_slows_a_whole_index_is_no_scatter_of_its_queries():
    uneven = [replace(one, milliseconds=one.milliseconds * (1.3 if one.lists < 200 else 1)) for one in searches()]
    law = fit_searches(uneven, CACHES)
    assert np.quantile(law.ratios, 0.95) < 1.1


def clustered(rows: int, seed: int) -> np.ndarray:
    """Unit vectors in clusters of very different sizes, the same ones whatever the seed."""
    world, draw = np.random.default_rng(0), np.random.default_rng(seed)
    centres, share = world.standard_normal((600, 24)), world.lognormal(0, 1, 600)
    vectors = centres[draw.choice(600, size=rows, p=share / share.sum())] + 0.5 * draw.standard_normal((rows, 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("probes", [2, 8])
def test_the_p95_of_a_larger_table_is_that_of_its_long_lists(probes):
    """Against an index over all rows, whose lists are counted and not estimated."""
    table, queries = clustered(45_000, 1), clustered(400, 2)
    law = fit_searches(searches(), CACHES)
    expected = law.quantile_ms(grown_indexes(queries, table[:15_000], len(table), 120, "vector_cosine_ops"), probes)
    whole = grown_indexes(queries, table, len(table), 120, "vector_cosine_ops")
    assert expected == pytest.approx(law.quantile_ms(whole, probes), rel=0.1)
    # As if all lists were equal: far too little.
    long = np.quantile(np.concatenate([index.rows_visited(probes) for index in whole]), 0.95)
    assert probes * len(table) / 120 < 0.8 * long


def test_what_a_page_from_outside_the_buffers_takes_has_to_have_been_measured():
    grown = grown_indexes(clustered(20, 2), clustered(2_000, 1), 500_000, 40, "vector_cosine_ops")
    small = Caches(processor_bytes=1 * MB, buffers_bytes=40 * MB)
    with pytest.raises(DataError, match=r"larger than the server's buffers \(40 MB\), and none was that was measured"):
        fit_searches([one for one in searches(small) if one.index_bytes < 40 * MB], small).quantile_ms(grown, 4)
    law = fit_searches(searches(small), small)
    assert law.law.coefficients["rows from outside"] == pytest.approx(2e-3, rel=0.05)
    assert law.quantile_ms(grown, 4) > 0
