"""A progress line replaces itself, has a bar, and comes back where its output was cleared."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from orchestra_lib.display import progress
from orchestra_lib.display.progress import Progress
from orchestra_lib.record import RUN_CONTEXT_VARIABLE


class Screen:
    """What is on display, place by place."""

    def __init__(self) -> None:
        self.places: dict[int, str] = {}
        self._numbers = count()

    def display(self, box: progress.Box, display_id: bool) -> Screen.Handle:
        assert display_id
        number = next(self._numbers)
        self.places[number] = box.html
        return Screen.Handle(self, number)

    class Handle:
        def __init__(self, screen: Screen, number: int) -> None:
            self.screen, self.number = screen, number

        def update(self, box: progress.Box) -> None:
            if self.number in self.screen.places:  # as in a browser: what was cleared takes no updates
                self.screen.places[self.number] = box.html


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    shown = Screen()
    monkeypatch.delenv(RUN_CONTEXT_VARIABLE, raising=False)
    monkeypatch.setattr(progress, "get_ipython", lambda: object())
    monkeypatch.setattr(progress, "display", shown.display)
    return shown


def run(step: Progress, clock: list[float], seconds: range) -> None:
    for second in seconds:
        clock[0] = 100.0 + second
        step(second, 100)


def test_one_line_with_a_bar_stands_for_the_step(screen: Screen, clock: list[float]) -> None:
    run(Progress("copy", "rows"), clock, range(1, 11))
    ((place, shown),) = screen.places.items()
    assert (place, "copy: 10 of 100 rows" in shown, "width:10.0%" in shown) == (0, True, True)


def test_a_line_that_was_cleared_comes_back_and_one_that_was_not_stands_once(
    screen: Screen, clock: list[float]
) -> None:
    step = Progress("copy", "rows")
    run(step, clock, range(1, 5))
    screen.places.clear()
    run(step, clock, range(5, 60))
    visible = [shown for shown in screen.places.values() if shown]
    assert len(visible) == 1
    assert "copy: 59 of 100 rows" in visible[0]


def test_headless_the_line_stays_in_its_place(
    screen: Screen, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_CONTEXT_VARIABLE, "/a/record")
    step = Progress("copy", "rows")
    run(step, clock, range(1, 101))
    ((place, shown),) = screen.places.items()
    assert (place, "100 of 100" in shown, "width:" in shown) == (0, True, False)
