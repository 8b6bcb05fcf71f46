"""The figure of a rollout: how much of the traffic the new revision had when, and what each gate saw of its latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

_GREEN, _BLUE, _LIMIT = "#009E73", "#0072B2", "#D55E00"
_HEIGHT_PIXELS = 460


@dataclass(frozen=True)
class ShownStep:
    """One step: green's share, seconds of the shift before it and of its gate, the ratio that the gate judged."""

    percent: int
    shift_seconds: float
    gate_seconds: float
    latency_ratio: float | None


def rollout_figure(steps: Sequence[ShownStep], deploy_seconds: float, limit: float, subject: str) -> go.Figure:
    """Shares over seconds above, ratios with their limit below; ``subject`` says where this was."""
    figure = make_subplots(rows=2, cols=1, row_heights=[0.58, 0.42], vertical_spacing=0.2)
    seconds, shares, now = [0.0, deploy_seconds], [0, 0], deploy_seconds
    for step in steps:
        now += step.shift_seconds
        seconds += [now, now + step.gate_seconds]
        shares += [step.percent, step.percent]
        now += step.gate_seconds
    for name, values, colour in (("new revision", shares, _GREEN), ("old", [100 - one for one in shares], _BLUE)):
        line = {"color": colour, "shape": "hv", "width": 2}
        figure.add_trace(go.Scatter(x=seconds, y=values, mode="lines", name=name, line=line), row=1, col=1)
    labels = [f"{step.percent} %" for step in steps]
    bars = go.Bar(
        x=labels,
        y=[step.latency_ratio for step in steps],
        marker={"color": _GREEN},
        width=0.35,
        showlegend=False,
        hovertemplate="at %{x}: %{y:.2f}<extra></extra>",
    )
    figure.add_trace(bars, row=2, col=1)
    edge = go.Scatter(
        x=labels, y=[limit] * len(labels), mode="lines", name=f"the gate closes above {limit:g}", line={"color": _LIMIT}
    )
    figure.add_trace(edge, row=2, col=1)
    figure.update_xaxes(title_text="seconds since the deployment began", row=1, col=1)
    figure.update_yaxes(title_text="% of the traffic", range=[-4, 104], row=1, col=1)
    figure.update_xaxes(title_text="the new revision's share", row=2, col=1)
    figure.update_yaxes(title_text="latency, new / old", rangemode="tozero", row=2, col=1)
    figure.update_layout(
        title={"text": f"From nothing to everything in {now:.1f} s<br><sub>{subject}</sub>"},
        template="plotly_white",
        height=_HEIGHT_PIXELS,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1.0, "xanchor": "right"},
        margin={"t": 90},
    )
    return figure
