"""Still pictures of figures: they show what plotly shows, as well-formed SVG, without a script or a browser."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plotly.subplots import make_subplots

from orchestra_lib.display.still import still_svg
from orchestra_lib.display.still.scale import Scale, ticks

NAMESPACE = "{http://www.w3.org/2000/svg}"


def drawn(figure: go.Figure) -> ElementTree.Element:
    svg = still_svg(figure)
    assert svg is not None
    return ElementTree.fromstring(svg)  # noqa: S314 - our own


def all_of(picture: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return list(picture.iter(f"{NAMESPACE}{tag}"))


def texts(picture: ElementTree.Element) -> list[str]:
    return ["".join(one.itertext()) for one in all_of(picture, "text")]


def test_bars_are_as_long_as_their_values() -> None:
    picture = drawn(go.Figure(go.Bar(x=["a", "b", "c"], y=[1.0, 2.0, 4.0])))
    heights = [float(one.get("height", 0)) for one in all_of(picture, "rect")]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.01)
    assert heights[2] == pytest.approx(4 * heights[0], rel=0.01)


def test_stacked_bars_stand_on_each_other_and_beside_each_other_when_grouped() -> None:
    def rectangles(mode: str) -> list[tuple[float, float, float]]:
        figure = go.Figure([go.Bar(x=["a"], y=[2.0], name="low"), go.Bar(x=["a"], y=[1.0], name="high")])
        picture = drawn(figure.update_layout(barmode=mode, showlegend=False))
        return [tuple(float(one.get(name, 0)) for name in ("x", "y", "height")) for one in all_of(picture, "rect")]  # type: ignore[misc]

    (x1, y1, _), (x2, y2, height) = rectangles("stack")
    assert (x1, y2 + height) == pytest.approx((x2, y1), abs=0.2)
    (x1, *_), (x2, *_) = rectangles("group")
    assert x2 > x1


def test_a_gantt_of_dates_begins_where_it_says() -> None:
    hours = 3_600_000
    figure = go.Figure(
        go.Bar(y=["one", "two"], x=[hours, 2 * hours], base=["2026-11-25 00:00", "2026-11-25 01:00"], orientation="h")
    )
    picture = drawn(figure.update_xaxes(type="date"))
    first, second = all_of(picture, "rect")
    assert float(second.get("width", 0)) == pytest.approx(2 * float(first.get("width", 0)), rel=0.01)
    assert float(second.get("x", 0)) == pytest.approx(float(first.get("x", 0)) + float(first.get("width", 0)), abs=0.2)
    assert "01:00" in texts(picture)


def test_points_keep_their_order_on_a_log_axis_and_what_has_no_place_there_is_left_out() -> None:
    figure = go.Figure(go.Scatter(x=[1, 2, 3, 4], y=[1.0, 10.0, 100.0, 0.0], mode="markers"))
    heights = [float(one.get("cy", 0)) for one in all_of(drawn(figure.update_yaxes(type="log")), "circle")]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert len(heights) == 3


def test_a_gap_in_the_values_is_a_gap_in_the_line() -> None:
    picture = drawn(go.Figure(go.Scatter(y=[1.0, 2.0, None, 2.0, 1.0], mode="lines")))
    assert len(all_of(picture, "polyline")) == 2


def test_arrays_that_plotly_packs_are_unpacked() -> None:
    picture = drawn(go.Figure(go.Scatter(x=np.arange(3), y=np.array([1.5, 2.5, 3.5]), mode="markers")))
    assert len(all_of(picture, "circle")) == 3


def test_titles_targets_and_names_are_there_and_nothing_of_them_is_markup() -> None:
    figure = make_subplots(rows=1, cols=2, subplot_titles=("left & right", "b"))
    figure.add_trace(go.Bar(x=["<x>"], y=[1], name="series <1>", showlegend=True), row=1, col=1)
    figure.add_trace(go.Scatter(x=[1, 2], y=[3, 4]), row=1, col=2)
    figure.add_hline(y=3.5, row=1, col=2, annotation_text="the target")
    figure.update_layout(title={"text": "What<br><sub>where &lt;it&gt; was</sub>"})
    said = texts(drawn(figure))
    assert {"What", "where <it> was", "left & right", "the target"} <= set(said)
    assert any(text.startswith("series") for text in said)


def test_a_kind_of_trace_that_is_not_drawn_is_said_by_none() -> None:
    assert still_svg(go.Figure(go.Pie(values=[1, 2]))) is None


numbers = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(-10, 10))


@given(
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8),
    st.sampled_from(["linear", "log"]),
    st.sampled_from(["markers", "lines", "lines+markers", "bar"]),
)
def test_whatever_is_in_a_figure_the_picture_is_well_formed(points: Any, kind: str, mode: str) -> None:
    x, y = zip(*points, strict=True)
    trace = go.Bar(x=x, y=y) if mode == "bar" else go.Scatter(x=x, y=y, mode=mode)
    picture = drawn(go.Figure(trace).update_yaxes(type=kind))
    placed = [value for one in picture.iter() for name, value in one.attrib.items() if name in ("x", "y", "cx", "cy")]
    assert all(math.isfinite(float(value)) for value in placed)
    assert not re.search("nan|inf", " ".join(str(one.get("points")) for one in all_of(picture, "polyline")))


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_lie_on_their_axis_and_are_few(low: float, width: float) -> None:
    found = ticks({}, Scale("linear", low, low + width), 400, "x")
    slack = 1e-6 * max(abs(low), width)
    assert all(low - slack <= number <= low + width + slack for number, _ in found)
    assert len(found) <= 8
