"""Laws of growth: exact where the world follows them, honest about how far they were right where it does not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from orchestra_lib.errors import DataError
from orchestra_lib.scale.growth import BUILD, LATENCY, IndexPoint, checked_fit, fit


def point(rows: int, lists: int, probes: int = 10, noise: float = 1.0) -> IndexPoint:
    visited = probes * rows / lists * 1.3
    training = min(rows, max(50 * lists, 10_000))
    build = 0.2 + 3e-8 * training * lists + 6e-8 * rows * lists + 2e-5 * rows
    latency = 0.25 + 2.6e-4 * lists + 7e-4 * visited
    return IndexPoint(rows, lists, probes, visited, build * noise, latency * noise)


SIZES = (10_000, 30_000, 100_000)
MEASURED = [point(rows, factor * math.isqrt(rows)) for rows in SIZES for factor in (1, 4)]


@pytest.mark.parametrize(("terms", "name"), [(BUILD, "build_seconds"), (LATENCY, "latency_ms")])
def test_three_times_the_largest_size_follows_from_the_smaller_ones(terms, name):
    draw = np.random.default_rng(1)
    noisy = [
        replace(one, build_seconds=one.build_seconds * factor, latency_ms=one.latency_ms * factor)
        for one, factor in zip(MEASURED, draw.normal(1, 0.03, len(MEASURED)), strict=True)
    ]
    law = fit(noisy, terms, lambda one: getattr(one, name))
    wanted = point(300_000, 1_100)
    assert law.predict(wanted) == pytest.approx(getattr(wanted, name), rel=0.15)
    assert sum(law.parts(wanted).values()) == pytest.approx(law.predict(wanted))
    assert all(value >= 0 for value in law.coefficients.values())


def test_it_tells_how_well_each_size_was_predicted_from_smaller_ones():
    good = checked_fit(MEASURED, BUILD, lambda one: one.build_seconds)
    assert set(good.ratios) == {100_000}
    assert good.worst < 0.2
    # Something that no law knows: from 100,000 rows on nothing fits into memory any more.
    broken = [replace(one, latency_ms=one.latency_ms * (3 if one.rows == 100_000 else 1)) for one in MEASURED]
    assert checked_fit(broken, LATENCY, lambda one: one.latency_ms).worst > 0.5


def test_two_points_are_no_law():
    with pytest.raises(DataError, match="from 2 points would be a guess"):
        fit(MEASURED[:2], BUILD, lambda one: one.build_seconds)


def test_nothing_was_predicted_from_a_single_size():
    assert checked_fit([point(10_000, lists) for lists in (50, 100, 200)], BUILD, lambda one: 1.0).worst == math.inf
