"""Forecasts of both ways, and what bounds them."""

from __future__ import annotations

import pytest

from orchestra_lib.scale.estimate import Machines, one_process, pipeline

HERE = Machines(source_cpus=2, target_cpus=2, log_bytes_per_second=1e9, shared_cpus=2)
CLOUD = Machines(source_cpus=16, target_cpus=16, log_bytes_per_second=400e6)


def test_on_this_machine_it_says_what_was_measured():
    """300,000 rows of 6.5 kB: 65 us of two cores each, so 9.75 s; measured were 39 us by the clock, 11.7 s."""
    way = one_process(300_000, 6_500, HERE)
    assert way.seconds == pytest.approx(9.75)
    assert way.bound_by == "the processors that all parts share"
    assert pipeline(300_000, 6_500, HERE, 2, "here").seconds > way.seconds


def test_more_workers_do_not_help_where_the_log_is_what_is_scarce():
    few, many = (pipeline(10**8, 6_500, CLOUD, cpus, "dataflow") for cpus in (8, 64))
    assert few.bound_by == many.bound_by == "the target's log"
    assert few.seconds == many.seconds
    assert many.usd == pytest.approx(8 * few.usd)
    assert one_process(10**8, 6_500, CLOUD).bound_by == "the target's log"


def test_an_index_on_the_target_decides_where_there_is_one():
    """4,000 lists: 960 us an insert (facts of the measured inserts), so sixteen cores take 16,000 rows a second."""
    way = pipeline(10**8, 6_500, CLOUD, 8, "dataflow", index_us=960)
    assert way.bound_by == "the target's processors"
    assert 10**8 / way.seconds < 17_000
