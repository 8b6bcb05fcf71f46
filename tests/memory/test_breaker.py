"""The breaker opens on failures in a row and on slowness, half-opens by itself, and never sticks."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from orchestra_lib.memory import breaker as module
from orchestra_lib.memory.breaker import Breaker, BreakerOpen


def fails(error: type[BaseException] = OSError):
    def work():
        raise error

    return work


def open_after(breaker, failures):
    for _ in range(failures):
        with pytest.raises(OSError):  # noqa: PT011 - any of them
            breaker.call(fails())


def test_it_opens_after_so_many_failures_in_a_row_and_then_calls_nothing():
    breaker, called = Breaker(3, 60, 5), []
    open_after(breaker, 2)
    breaker.call(lambda: None)
    open_after(breaker, 2)
    assert breaker.state == "closed", "a success in between starts the count anew"
    open_after(breaker, 1)
    assert breaker.state == "open"
    with pytest.raises(BreakerOpen) as refused:
        breaker.call(lambda: called.append(1))
    assert not called
    assert 59 < refused.value.seconds <= 60


def test_it_half_opens_by_itself_and_one_success_closes_it():
    states = []
    breaker = Breaker(1, 0.05, 5, states.append)
    open_after(breaker, 1)
    time.sleep(0.06)
    assert breaker.call(lambda: "done") == "done"
    assert states == ["open", "half-open", "closed"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, ValueError])
def test_a_failing_trial_opens_it_again_whatever_is_raised(error):
    breaker = Breaker(1, 0.05, 5)
    open_after(breaker, 1)
    time.sleep(0.06)
    with pytest.raises(error):
        breaker.call(fails(error))
    assert breaker.state == "open"
    time.sleep(0.06)
    breaker.call(lambda: None)
    assert breaker.state == "closed"


def test_slow_calls_open_it_and_their_results_are_kept():
    breaker = Breaker(2, 60, 0.01)
    for _ in range(2):
        assert breaker.call(lambda: time.sleep(0.02) or "kept") == "kept"
    assert breaker.state == "open"


def test_a_clock_set_back_does_not_keep_it_open(monkeypatch):
    breaker = Breaker(1, 0.05, 5)
    open_after(breaker, 1)

    class SetBack(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(hours=3)

    monkeypatch.setattr(module, "datetime", SetBack)
    monkeypatch.setattr("pybreaker.datetime", SetBack)
    time.sleep(0.06)
    assert breaker.call(lambda: "done") == "done"
    assert datetime.now(UTC) > SetBack.now(UTC)
