"""A stream's figures: asked for by one thread while another makes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from orchestra_lib.memory.stream_status import Freshness, Rate, SourceClock


def while_it_is_written(write: Callable[[], object], read: Callable[[], object], seconds: float = 0.3) -> None:
    """Both all the time, in two threads; an error of either is raised."""
    errors: list[Exception] = []
    stop = time.monotonic() + seconds

    def again(work: Callable[[], object]) -> None:
        try:
            while time.monotonic() < stop:
                work()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=again, args=[work]) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_freshness_is_asked_for_while_transactions_land() -> None:
    freshness = Freshness()
    while_it_is_written(lambda: freshness.add([0.1] * 10), lambda: freshness.quantiles((0.5, 0.95)))
    assert freshness.quantiles((0.5,)) == [pytest.approx(0.1)]


def test_the_rate_is_asked_for_while_rows_are_counted() -> None:
    rate = Rate()
    while_it_is_written(lambda: rate.add(1), rate.now)
    assert rate.now() > 0


def test_the_source_clock_is_asked_for_while_it_is_heard() -> None:
    clock = SourceClock()
    while_it_is_written(lambda: clock.hear(time.time()), clock.now)
    assert clock.now() == pytest.approx(time.time(), abs=0.05)
