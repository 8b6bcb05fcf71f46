"""The figure of a rollout: the shares that both revisions had, and what the gates saw."""

from __future__ import annotations

from orchestra_lib.display.rollout import ShownStep, rollout_figure


def test_both_shares_are_the_whole_at_each_moment_and_a_gate_without_a_ratio_has_no_bar() -> None:
    steps = [ShownStep(0, 0.5, 1.0, 1.1), ShownStep(5, 0.25, 1.0, None), ShownStep(100, 0.25, 2.0, 1.3)]
    figure = rollout_figure(steps, 2.0, 1.25, "here")
    new, old, bars, limit = figure.data
    assert [a + b for a, b in zip(new.y, old.y, strict=True)] == [100] * len(new.y)
    assert list(new.x) == sorted(new.x)
    assert (new.y[0], new.y[-1], new.x[-1]) == (0, 100, 7.0)
    assert list(bars.y) == [1.1, None, 1.3]
    assert set(limit.y) == {1.25}
    assert "7.0 s" in figure.layout.title.text
