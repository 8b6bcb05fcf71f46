"""What follows from a load, on a service whose behaviour is computed."""

from __future__ import annotations

from dataclasses import replace

from api_load.simulated import Simulated
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_lib.api_load.forms import SHORT
from orchestra_lib.api_load.in_flight import concurrency_for, sweep
from orchestra_lib.api_load.report import saturation_evidence, sweep_evidence
from orchestra_lib.api_load.saturation import find_saturation
from orchestra_lib.api_load.tables import saturation_table, sweep_table
from orchestra_lib.api_load.workload import Kind
from orchestra_lib.blueprint.api import in_flight_limit
from orchestra_lib.evidence import Source, Verdict

KINDS = (Kind("search", ({},), 60.0), Kind("retrieval", ({},), 50.0))
FORM = replace(SHORT, first_rate=40.0, levels=(1, 4, 8, 60))


def service(**changes: object) -> Simulated:
    """One at a time, each for five milliseconds: 200 a second."""
    return Simulated("", KINDS, dict, **changes)  # type: ignore[arg-type]


# A goal of fifty milliseconds is five times the longest service here: one that works for twenty has to let the queue
# grow to two to miss it, which a Poisson process does at less than half of the capacity.
@settings(max_examples=8)
@given(st.integers(1, 8), st.floats(0.002, 0.01), st.floats(5.0, 2_000.0))
def test_the_saturation_point_is_below_the_capacity_and_not_far(at_once, seconds, first_rate):
    capacity = at_once / seconds
    found = find_saturation(service(at_once=at_once, service_seconds=seconds), replace(FORM, first_rate=first_rate))
    assert found.is_close
    assert 0.5 * capacity < found.holds_per_second < 1.1 * capacity
    assert found.holds_per_second < found.breaks_per_second <= 1.15 * found.holds_per_second
    assert found.best.holds
    assert found.why


def test_a_stall_is_not_taken_for_the_saturation_point_and_one_that_stays_is():
    stalled, again = find_saturation(service(stalls=1), FORM).steps[:2]
    assert [(one.stated_per_second, one.holds) for one in (stalled, again)] == [(40, False), (40, True)]
    broken = find_saturation(service(stalls=2), FORM)
    assert [(one.stated_per_second, one.holds) for one in broken.steps[:3]] == [(40, False), (40, False), (20, True)]


def test_what_held_in_a_quick_moment_is_not_taken_for_what_it_bears():
    found = find_saturation(service(quick=(3,)), FORM)
    offered = [(step.stated_per_second, step.holds) for step in found.steps]
    assert (320, True) in offered, "three doublings of 40: one of them was quick"
    assert offered[-1] == (found.holds_per_second, True), "the last that is offered is what it bears"
    assert found.holds_per_second < 210
    assert found.breaks_per_second <= 320


def test_what_could_never_be_borne_is_zero_and_says_why():
    found = find_saturation(service(service_seconds=0.3), FORM)
    assert found.holds_per_second == 0
    assert not found.is_close
    assert "p95 of search is" in found.why
    assert found.best is None
    rows = saturation_evidence(found, Source.REHEARSED)
    assert {row.verdict for row in rows} == {Verdict.NOTED, Verdict.REHEARSED}
    assert "p95 of search" in repr(saturation_table(found))


def test_a_far_too_high_rate_leaves_no_more_in_flight_than_the_goal_speaks_of():
    asked = service(service_seconds=0.02)
    find_saturation(asked, replace(FORM, first_rate=640.0))
    assert all(load.workers <= max(32, 4 * 0.06 * load.offered_per_second + 1) for load in asked.offered)


def test_the_sweep_finds_the_knee_and_the_most_in_flight_that_keep_the_goals():
    swept = sweep(service(at_once=4, service_seconds=0.015), FORM)
    assert [level.in_flight for level in swept.levels if level.holds] == [1, 4, 8]
    assert swept.knee.in_flight == 4
    assert 250 < swept.best.per_second.value < 280
    assert (swept.earned.concurrency, swept.earned.max_in_flight) == (8, 7)
    assert "at 60 p95 of search is 225" in swept.earned.why
    rows = sweep_evidence(swept, 60, Source.REHEARSED)
    assert [row.value for row in rows] == [8, 7, "breaks them", 0]
    assert "60" in repr(sweep_table(swept))


def test_where_no_level_keeps_the_goals_the_lowest_is_taken_and_said_to_break_them():
    swept = sweep(service(service_seconds=0.2), FORM)
    assert swept.earned.concurrency == 1
    assert swept.earned.why.startswith("no level keeps the goals")


def test_a_level_that_breaks_is_held_once_more():
    asked = service(at_once=4, service_seconds=0.015, stalls=1)
    assert sweep(asked, FORM).levels[0].holds
    assert [load.workers for load in asked.offered] == [1, 1, 4, 8, 60, 60]


def test_the_services_own_limit_is_below_what_an_instance_gets():
    assert [in_flight_limit(n) for n in (1, 2, 10, 80, 1_000)] == [1, 1, 9, 72, 900]
    assert [concurrency_for(n) for n in (1, 9, 72, 120)] == [1, 10, 80, 134]
