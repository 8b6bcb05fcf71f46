"""The stream over time: how far it is behind, and how much it applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

_BEHIND, _RATE, _TARGET = "#D55E00", "#0072B2", "#666666"


@dataclass(frozen=True)
class LagPoint:
    """A moment: seconds since the first one, bytes of log and seconds that the stream is behind, rows a second."""

    seconds: float
    lag_bytes: int
    lag_seconds: float
    rows_per_second: float


def lag_figure(points: Sequence[LagPoint], target_rows_per_second: float, subject: str) -> go.Figure:
    """Two panels over time: MiB of log behind, and rows applied a second beside the rate that has to be reached."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.1)
    seconds = [point.seconds for point in points]
    figure.add_trace(
        go.Scatter(
            x=seconds,
            y=[point.lag_bytes / 2**20 for point in points],
            mode="lines+markers",
            name="behind",
            line={"color": _BEHIND},
            customdata=[point.lag_seconds for point in points],
            hovertemplate="%{x:.1f} s: %{y:.2f} MiB, %{customdata:.2f} s behind<extra></extra>",
        ),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Scatter(
            x=seconds,
            y=[point.rows_per_second for point in points],
            mode="lines+markers",
            name="applied",
            line={"color": _RATE},
            hovertemplate="%{x:.1f} s: %{y:,.0f} rows/s<extra></extra>",
        ),
        row=2,
        col=1,
    )
    figure.add_hline(
        y=target_rows_per_second,
        line={"color": _TARGET, "dash": "dot"},
        annotation={"text": f"target {target_rows_per_second:,.0f} rows/s, while there is a backlog"},
        annotation_position="top left",  # where the rate has only begun to rise
        row=2,
        col=1,
    )
    figure.update_yaxes(title_text="MiB behind", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="rows/s", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text="seconds since the stream began", row=2, col=1)
    figure.update_layout(
        title={"text": f"The stream catches up and keeps up<br><sub>{subject}</sub>"},
        template="plotly_white",
        height=460,
        showlegend=False,
        margin={"t": 80, "l": 70},
    )
    return figure
