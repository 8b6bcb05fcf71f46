"""What a tuning found, drawn: every way to search that was looked at, why one was chosen, what it costs to build."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.display.palette import COLOURS
from orchestra_lib.vectors.candidate import Candidate
from orchestra_lib.vectors.certificate import Certificate, Loaded
from orchestra_lib.vectors.forms import Form, Method, Storage
from orchestra_lib.vectors.tuning import PagePoint

_GREY, _INK = "#666666", "#222222"
_METHODS = {Method.EXACT: _GREY, Method.IVFFLAT: COLOURS[0], Method.HNSW: COLOURS[1], Method.SCANN: COLOURS[3]}
_NAMES = {Method.EXACT: "exact scan", Method.IVFFLAT: "IVFFlat", Method.HNSW: "HNSW", Method.SCANN: "ScaNN"}
_SYMBOLS = {Storage.VECTOR: "circle", Storage.HALFVEC: "square", Storage.BIT: "diamond"}
_CENTROIDS, _LISTS = COLOURS[1], COLOURS[0]
_STATES = {"warm": COLOURS[1], "cold": COLOURS[0], "after restart": COLOURS[2]}
_MOST_OF_AN_INTERVAL = 10  # times the value: a longer whisker, or an infinite one, would flatten everything else
_FAR_OFF = 3  # times the largest value: a target beyond that would flatten the bars, and stands in the title alone
_CROWDED = 8  # bars in a panel, from which on their labels would touch
_MIB = 1 << 20
_ABOVE, _BELOW, _BELOW_AXIS = 110, 110, 60  # pixels around the axes: title, legend, names of the axes


@dataclass(frozen=True)
class Delivered:
    """What a search delivers at one time, such as before and after: recall, and p95 in milliseconds."""

    label: str
    recall: Estimate
    p95_ms: Estimate


def plane_figure(
    candidates: Sequence[Candidate],
    chosen: Candidate | None,
    before: Candidate | None,
    recall_target: float,
    p95_budget_ms: float,
    subject: str,
) -> go.Figure:
    """Recall against p95 for everything that was looked at: filled is measured, open is predicted.

    The chosen one has a star, the one that served before a triangle. The lower right corner is where one wants to be.
    """
    figure = go.Figure()
    for method in Method:
        for source in ("measured", "predicted"):
            group = [one for one in candidates if one.form.method is method and one.source == source]
            if group:
                figure.add_trace(_points(group, f"{_NAMES[method]}, {source}", _METHODS[method]))
    for candidate, name, symbol in ((before, "before", "triangle-up"), (chosen, "chosen", "star")):
        if candidate is not None:
            figure.add_trace(_marked(candidate, f"{name}: {_named(candidate)}", symbol))
    shown = [*candidates, *(one for one in (before, chosen) if one is not None)]
    worst = min((one.recall.value for one in shown), default=0.0)
    low = max(0.0, min(worst, recall_target) - 0.03)
    _target_line(figure, recall_target, f"recall target {recall_target:g}", vertical=True)
    _target_line(figure, p95_budget_ms, f"p95 target {p95_budget_ms:g} ms", vertical=False)
    figure.update_xaxes(title="recall@k (share of the exact nearest found)", range=[low, 1.005])
    figure.update_yaxes(title="p95, ms (log)", type="log", dtick="D2")
    return _laid_out(figure, "Recall and latency of everything that was looked at", subject, height=540)


def pages_figure(points: Sequence[PagePoint], chosen_lists: int | None, subject: str) -> go.Figure:
    """Why: pages that a search reads, of centroids and of lists, over the number of lists, each at equal recall.

    One panel for each number of rows. Above each bar stands the p95 that it comes to; the least is in bold, and lists
    that cannot reach the recall target are pale.
    """
    sizes = sorted({point.rows for point in points})
    titles = [f"{rows:,} rows" for rows in sizes]
    figure = make_subplots(rows=1, cols=max(1, len(sizes)), subplot_titles=titles, horizontal_spacing=0.09)
    for column, rows in enumerate(sizes, start=1):
        panel = sorted((point for point in points if point.rows == rows), key=lambda point: point.lists)
        ticks = [f"{point.lists:,}" + (" ★" if point.lists == chosen_lists else "") for point in panel]
        best = min((point.p95_ms for point in panel if point.reaches), default=None)
        for name, colour, heights in (
            ("pages of centroids", _CENTROIDS, [point.centroid_pages for point in panel]),
            ("pages of lists", _LISTS, [point.list_pages for point in panel]),
        ):
            figure.add_trace(
                go.Bar(
                    x=ticks,
                    y=heights,
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                    marker={"color": colour, "opacity": [1.0 if point.reaches else 0.35 for point in panel]},
                    customdata=[[point.probes, point.p95_ms] for point in panel],
                    hovertemplate="%{x} lists, %{customdata[0]} probes<br>%{y:,.0f} "
                    + name
                    + "<br>p95 %{customdata[1]:.2f} ms<extra></extra>",
                ),
                row=1,
                col=column,
            )
        tops = [point.centroid_pages + point.list_pages for point in panel]
        figure.add_trace(
            go.Scatter(
                x=ticks,
                y=tops,
                text=[_milliseconds(point, best) for point in panel],
                mode="text",
                textposition="top center",
                textfont={"size": 12 if len(panel) < _CROWDED else 9},
                cliponaxis=False,
                showlegend=False,
                hoverinfo="skip",
            ),
            row=1,
            col=column,
        )
        figure.update_yaxes(range=[0, 1.15 * max(tops)], row=1, col=column)
        title = "lists (★ chosen)" if chosen_lists in {point.lists for point in panel} else "lists"
        figure.update_xaxes(title=title, type="category", row=1, col=column)
    figure.update_yaxes(title="pages of 8 kB that a search reads", row=1, col=1)
    figure.update_layout(barmode="stack")
    return _laid_out(figure, "Why: what a search reads over the number of lists, at equal recall", subject, height=480)


def load_figure(certificate: Certificate, subject: str) -> go.Figure:
    """p50, p95 and p99 with their intervals in every state of the caches that was measured, and the p95 target."""
    figure = go.Figure()
    for loaded in (certificate.warm, *certificate.others):
        figure.add_trace(_quantiles(loaded))
    _target_line(figure, certificate.p95_budget_ms, f"p95 target {certificate.p95_budget_ms:g} ms", vertical=False)
    figure.update_layout(scattermode="group", scattergap=0.6, showlegend=True)
    figure.update_yaxes(title="ms from the moment it was due (log)", type="log", dtick="D2")
    offered = certificate.warm.offered_per_second
    title = f"Latency at {offered:g} searches a second" if offered else "Latency of one search after another"
    return _laid_out(figure, title, subject, height=440)


def build_figure(candidates: Sequence[Candidate], memory_limit_mib: int | None, subject: str) -> go.Figure:
    """What each index takes: seconds of CREATE INDEX, memory of the build, and its size. Pale bars are forecasts."""
    forms = _one_a_form(candidates)
    built = sorted((one for one in forms if one.form.method is not Method.EXACT), key=lambda one: _order(one.form))
    labels = [one.form.label for one in built]
    panels = (
        ("seconds of CREATE INDEX", [_to_create(one) for one in built]),
        ("MiB of memory for the build", [_amount(one.build_memory_mib, "MiB", one) for one in built]),
        ("MiB on disk", [_amount(_mib(one.index_bytes), "MiB", one) for one in built]),
    )
    figure = make_subplots(
        rows=1, cols=3, shared_yaxes=True, subplot_titles=[name for name, _ in panels], horizontal_spacing=0.04
    )
    for column, (_, amounts) in enumerate(panels, start=1):
        figure.add_trace(
            go.Bar(
                x=[amount.value for amount in amounts],
                y=labels,
                orientation="h",
                marker={
                    "color": [_METHODS[one.form.method] for one in built],
                    "opacity": [0.4 if amount.is_forecast else 1.0 for amount in amounts],
                },
                text=[amount.text for amount in amounts],
                textposition="auto",
                insidetextfont={"color": [_INK if amount.is_forecast else "white" for amount in amounts]},
                showlegend=False,
                hovertemplate="%{y}: %{text}<extra></extra>",
            ),
            row=1,
            col=column,
        )
    if memory_limit_mib is not None:
        figure.add_vline(
            x=memory_limit_mib, line={"dash": "dot", "color": _GREY}, row=1, col=2, annotation_text="allowed"
        )
    figure.update_yaxes(autorange="reversed", automargin=True)
    height = _ABOVE + _BELOW_AXIS + 30 * max(2, len(built))
    return _laid_out(figure, "What each index takes (pale: forecast)", subject, height, legend=False)


@dataclass(frozen=True)
class _Amount:
    """The length of a bar and what is written on it."""

    value: float | None
    text: str
    is_forecast: bool


def _amount(value: float | None, unit: str, one: Candidate) -> _Amount:
    return _Amount(value, "" if value is None else f"{value:,.0f} {unit}", one.source == "predicted")


def _to_create(one: Candidate) -> _Amount:
    if one.build_seconds is not None or one.create_seconds is None:
        return _Amount(one.build_seconds, one.create_text, one.build_seconds is None)
    least, most = one.create_seconds
    return _Amount(math.sqrt(least * most), one.create_text, True)


def before_after_figure(
    times: Sequence[Delivered], recall_target: float, p95_budget_ms: float, subject: str
) -> go.Figure:
    """Recall and p95 with their intervals, one row each, such as before and after."""
    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        subplot_titles=(f"recall@k, target {recall_target:g}", f"p95 in ms, target {p95_budget_ms:g}"),
        horizontal_spacing=0.06,
    )
    labels = [one.label for one in times]
    colours = [_GREY, *COLOURS][: len(times)]
    for column, estimates, digits in (
        (1, [one.recall for one in times], ".3f"),
        (2, [one.p95_ms for one in times], ",.2f"),
    ):
        figure.add_trace(
            go.Bar(
                x=[estimate.value for estimate in estimates],
                y=labels,
                orientation="h",
                marker={"color": colours},
                error_x=_whiskers(estimates),
                text=[f"{estimate.value:{digits}}" for estimate in estimates],
                textposition="auto",
                textangle=0,
                insidetextanchor="start",
                showlegend=False,
                hovertemplate=f"%{{y}}: %{{x:{digits}}}<extra></extra>",
            ),
            row=1,
            col=column,
        )
    figure.add_vline(x=recall_target, line={"dash": "dot", "color": _INK}, row=1, col=1)
    if p95_budget_ms < _FAR_OFF * max((one.p95_ms.value for one in times), default=0.0):
        figure.add_vline(x=p95_budget_ms, line={"dash": "dot", "color": _INK}, row=1, col=2)
    figure.update_xaxes(range=[0, 1.05], row=1, col=1)
    figure.update_yaxes(autorange="reversed", automargin=True)
    height = _ABOVE + _BELOW_AXIS + 50 * max(2, len(times))
    return _laid_out(figure, "Before and after (dotted: the targets)", subject, height, legend=False)


def _points(group: Sequence[Candidate], name: str, colour: str) -> go.Scatter:
    measured = [one.p95_ms for one in group if one.p95_ms is not None]
    has_whiskers = len(measured) == len(group)
    return go.Scatter(
        x=[one.recall.value for one in group],
        y=[one.best_p95_ms for one in group],
        # An exact scan misses nothing; how many queries were timed says nothing about that.
        error_x=None if group[0].form.method is Method.EXACT else _whiskers([one.recall for one in group], thickness=1),
        error_y=_whiskers(measured, thickness=1) if has_whiskers else None,
        mode="markers",
        marker={
            "symbol": [_SYMBOLS[one.form.storage] + ("" if has_whiskers else "-open") for one in group],
            "size": 9,
            "color": colour,
            "line": {"width": 1.5, "color": colour},
        },
        name=name,
        text=[_told(one) for one in group],
        hovertemplate="%{text}<br>recall %{x:.3f}<br>p95 %{y:.2f} ms<extra></extra>",
    )


def _marked(candidate: Candidate, name: str, symbol: str) -> go.Scatter:
    return go.Scatter(
        x=[candidate.recall.value],
        y=[candidate.best_p95_ms],
        mode="markers",
        marker={"symbol": symbol, "size": 17, "color": "#F0E442", "line": {"width": 1.5, "color": _INK}},
        name=name,
        hovertemplate=f"{name}<br>recall %{{x:.3f}}<br>p95 %{{y:.2f}} ms<extra></extra>",
    )


def _quantiles(loaded: Loaded) -> go.Scatter:
    estimates = (loaded.p50_ms, loaded.p95_ms, loaded.p99_ms)
    failed = f", {loaded.failures} without an answer" if loaded.failures else ""
    return go.Scatter(
        x=["p50", "p95", "p99"],
        y=[estimate.value for estimate in estimates],
        error_y=_whiskers(estimates),
        mode="markers+text",
        text=[f"  {estimate.value:,.2f}" for estimate in estimates],
        textposition="middle right",
        marker={"size": 12, "color": _STATES.get(loaded.state, _GREY)},
        name=f"{loaded.state}: {loaded.achieved_per_second:,.1f} a second achieved{failed}",
        hovertemplate=f"{loaded.state} %{{x}}: %{{y:.2f}} ms<extra></extra>",
    )


def _target_line(figure: go.Figure, value: float, text: str, *, vertical: bool) -> None:
    line = {"dash": "dot", "color": _GREY}
    if vertical:
        figure.add_vline(x=value, line=line)
        place: dict[str, Any] = {"x": value, "y": 1.0, "yref": "paper", "xanchor": "right", "yanchor": "bottom"}
    else:
        figure.add_hline(y=value, line=line)
        # On a log axis plotly takes an annotation's place as an exponent, a line's not.
        place = {"x": 0.0, "xref": "paper", "y": math.log10(value), "xanchor": "left", "yanchor": "bottom"}
    figure.add_annotation(text=text, showarrow=False, font={"color": _GREY}, **place)


def _laid_out(figure: go.Figure, title: str, subject: str, height: int, *, legend: bool = True) -> go.Figure:
    figure.update_layout(
        title={"text": f"{title}<br><sub>{subject}</sub>"},
        template="plotly_white",
        height=height,
        legend={"orientation": "h", "yanchor": "top", "y": -_BELOW_AXIS / (height - _ABOVE - _BELOW)},
        margin={"t": _ABOVE, "b": _BELOW if legend else _BELOW_AXIS, "l": 70, "r": 30},
    )
    figure.update_annotations(selector={"font": {"size": 16}}, font={"size": 13})  # the titles of panels
    return figure


def _whiskers(estimates: Sequence[Estimate], thickness: float = 2) -> dict[str, object]:
    most = _MOST_OF_AN_INTERVAL
    return {
        "type": "data",
        "symmetric": False,
        "array": [min(one.high, most * one.value) - one.value for one in estimates],
        "arrayminus": [one.value - max(one.low, 0.0, one.value / most) for one in estimates],
        "thickness": thickness,
    }


def _one_a_form(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One candidate for each form, a measured one where there is one, in the order in which they were first seen."""
    kept: dict[Form, Candidate] = {}
    for one in candidates:
        if one.form not in kept or (one.source == "measured" and kept[one.form].source == "predicted"):
            kept[one.form] = one
    return list(kept.values())


def _order(form: Form) -> tuple[int, int, int]:
    return (list(Method).index(form.method), list(Storage).index(form.storage), form.lists or form.m or 0)


def _milliseconds(point: PagePoint, best: float | None) -> str:
    told = f"{point.p95_ms:,.2f} ms" if point.p95_ms < 10 else f"{point.p95_ms:,.0f} ms"
    return f"<b>{told}</b>" if point.p95_ms == best else told


def _named(candidate: Candidate) -> str:
    return f"{candidate.form.label}, effort {candidate.effort}" if candidate.form.effort_setting else "exact scan"


def _told(candidate: Candidate) -> str:
    return f"{_named(candidate)}<br>{candidate.note}" if candidate.note else _named(candidate)


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / _MIB
