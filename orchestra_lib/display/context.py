"""What a context costs and what it supports: items as they are against items packed into a budget."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from orchestra_lib.assistant.support import Point, Support

_WHOLE, _PACKED, _CHOSEN = "#D55E00", "#0072B2", "#222222"


def context_figure(support: Support, subject: str) -> go.Figure:
    """The share of questions whose answer is in the context over the tokens that it has, both ways, and the choice."""
    figure = go.Figure()
    figure.add_trace(_curve("items as they are, the nearest 1, 2, …", support.whole_curve, _WHOLE))
    figure.add_trace(_curve("items packed into a budget", support.packed_curve, _PACKED))
    chosen = next(
        (point for point in support.packed_curve if point.label == f"budget {support.choice.budget_tokens:,}"), None
    )
    if chosen is not None:
        figure.add_trace(
            go.Scatter(
                x=[chosen.tokens],
                y=[chosen.supported],
                mode="markers",
                marker={"size": 15, "color": _PACKED, "symbol": "star", "line": {"width": 1, "color": _CHOSEN}},
                name=f"chosen: {chosen.label} tokens, {support.choice.order}",
                hovertemplate="%{x:,.0f} tokens, %{y:.1%}<extra></extra>",
            )
        )
    figure.update_layout(
        title={"text": f"What a context holds for its tokens<br><sub>{subject}</sub>"},
        xaxis={"title": {"text": "tokens of context in a request, about"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "questions whose answer is in it"}, "tickformat": ".0%", "rangemode": "tozero"},
        template="plotly_white",
        height=460,
        legend={"orientation": "h", "y": -0.22},
        margin={"t": 80},
    )
    return figure


def _curve(name: str, points: Sequence[Point], colour: str) -> go.Scatter:
    return go.Scatter(
        x=[point.tokens for point in points],
        y=[point.supported for point in points],
        text=[point.label for point in points],
        mode="lines+markers",
        line={"color": colour},
        marker={"size": 6},
        name=name,
        hovertemplate="%{text}<br>%{x:,.0f} tokens, %{y:.1%}<extra></extra>",
    )
