"""The timeline of an apply: what ran when, and what everything waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

_COLOURS = {"create": "#009E73", "update": "#0072B2", "delete": "#D55E00"}
_ROW_PIXELS, _FRAME_PIXELS = 18, 150


@dataclass(frozen=True)
class Bar:
    """One change: its name, what was done, when it began and how long it took (seconds)."""

    name: str
    verb: str
    started_seconds: float
    seconds: float


def timeline_figure(bars: Sequence[Bar], subject: str) -> go.Figure:
    """Horizontal bars over seconds, first at the top; ``subject`` says where this was."""
    ordered = sorted(bars, key=lambda bar: (bar.started_seconds, bar.name))
    figure = go.Figure()
    for verb, colour in _COLOURS.items():
        rows = [bar for bar in ordered if bar.verb == verb]
        if rows:
            figure.add_trace(
                go.Bar(
                    y=[bar.name for bar in rows],
                    x=[bar.seconds for bar in rows],
                    base=[bar.started_seconds for bar in rows],
                    orientation="h",
                    name=verb,
                    marker={"color": colour},
                    hovertemplate="%{y}<br>%{x:.2f} s from %{base:.2f} s<extra></extra>",
                )
            )
    together = sum(bar.seconds for bar in bars)
    ended = max((bar.started_seconds + bar.seconds for bar in bars), default=0.0)
    counted = f"{len(bars)} changes in {ended:.1f} s, {together:.1f} s one after the other"
    figure.update_layout(
        title={"text": f"{counted}<br><sub>{subject}</sub>"},
        xaxis={"title": {"text": "seconds from the start of the apply"}, "side": "bottom"},
        yaxis={
            "autorange": "reversed",
            "categoryorder": "array",
            "categoryarray": [bar.name for bar in ordered],
            "dtick": 1,
            "automargin": True,
            "tickfont": {"size": 10},
        },
        barmode="overlay",
        template="plotly_white",
        height=_FRAME_PIXELS + _ROW_PIXELS * len(bars),
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1.0, "xanchor": "right"},
        margin={"t": 90, "l": 10},
    )
    return figure
