"""The governor: halved when the target suffers, slowly back when it does not, never above the limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.database import connect
from orchestra_lib.scale.health import Governor, Health, health
from orchestra_lib.scale.spec import Pace

WELL, ILL = Health(1.0, 0), Health(5_000.0, 0)


def test_workers_share_the_limit():
    assert Governor(Pace(rows_per_second=1_000), workers=4).rows_per_second == 250


def test_without_a_limit_a_healthy_target_is_written_to_as_fast_as_it_goes():
    governor = Governor(Pace(), workers=2)
    governor.learn(WELL, 9_000)
    assert governor.rows_per_second is None
    assert not governor.slowed


def test_a_target_that_suffers_halves_what_was_reached_and_gets_it_back_slowly():
    governor = Governor(Pace(), workers=2)
    governor.learn(WELL, 8_000)
    governor.learn(ILL, 8_000)
    assert governor.rows_per_second == 4_000
    governor.learn(ILL, 4_000)
    assert governor.rows_per_second == 2_000
    governor.learn(WELL, 2_000)
    assert governor.rows_per_second == 2_500
    for _ in range(20):
        governor.learn(WELL, 2_000)
    assert governor.rows_per_second == 8_000
    assert not governor.slowed


def test_a_replica_that_is_far_behind_slows_it_too():
    governor = Governor(Pace(rows_per_second=1_000, replica_lag_bytes=1_000), workers=1)
    governor.learn(Health(1.0, 1_001))
    assert governor.rows_per_second == 500


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 100_000), st.integers(1, 50))
def test_the_rate_stays_between_the_least_and_the_limit(states, limit, workers):
    governor = Governor(Pace(rows_per_second=limit), workers)
    for well in states:
        governor.learn(WELL if well else ILL, 10.0)
        assert 1 <= governor.rows_per_second <= max(1, limit / workers)


def test_a_server_tells_how_it_is(pair):
    with connect(pair.target) as target:
        found = health(target)
    assert 0 < found.commit_ms < 5_000
    assert found.replica_lag_bytes == 0
