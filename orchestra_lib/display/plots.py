"""Figures. Every figure names what was measured, on how many rows and with which embedding model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from orchestra_lib.vectors.evaluate import Evaluation

# Okabe and Ito's palette: told apart by people who do not see all colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def recall_latency_figure(
    evaluations: Sequence[Evaluation], recall_target: float, latency_target_ms: float, subject: str
) -> go.Figure:
    """Recall@k against p95 latency for each index: its curve over probes, and where it is run (the large marker).

    Whiskers are the intervals of the measured point. ``subject`` says which rows, model and machine these are.
    """
    figure = go.Figure()
    for evaluation, colour in zip(evaluations, COLOURS, strict=False):
        if evaluation.curve:
            figure.add_trace(_curve(evaluation, colour))
        figure.add_trace(_operating_point(evaluation, colour))
    figure.add_vline(x=recall_target, line={"dash": "dot", "color": "#555555"})
    figure.add_annotation(
        x=recall_target,
        y=1.0,
        yref="paper",
        text=f"recall target {recall_target:g}",
        showarrow=False,
        xanchor="right",
        yanchor="bottom",
    )
    figure.add_hline(y=latency_target_ms, line={"dash": "dot", "color": "#555555"})
    figure.add_annotation(
        x=0.0,
        xref="paper",
        y=math.log10(
            latency_target_ms
        ),  # plotly takes an annotation's place on a log axis as an exponent, a line's not
        text=f"latency target {latency_target_ms:g} ms",
        showarrow=False,
        xanchor="left",
        yanchor="bottom",
    )
    figure.update_layout(
        title={"text": f"Recall and latency by probes<br><sub>{subject}</sub>"},
        xaxis={"title": {"text": "recall@k (share of the exact nearest found)"}, "range": [0, 1.03]},
        yaxis={"title": {"text": "p95 latency at the client, ms (log)"}, "type": "log"},
        template="plotly_white",
        height=520,
        legend={"orientation": "h", "y": -0.22},
        margin={"t": 90},
    )
    return figure


def _curve(evaluation: Evaluation, colour: str) -> go.Scatter:
    return go.Scatter(
        x=[point.recall.value for point in evaluation.curve],
        y=[point.p95_ms for point in evaluation.curve],
        text=[f"{point.probes} probes" for point in evaluation.curve],
        mode="lines+markers",
        line={"color": colour},
        marker={"size": 6},
        name=f"{evaluation.label}: choosing queries",
        hovertemplate="%{text}<br>recall %{x:.3f}<br>p95 %{y:.2f} ms<extra></extra>",
    )


def _operating_point(evaluation: Evaluation, colour: str) -> go.Scatter:
    recall, p95 = evaluation.recall, evaluation.p95_ms
    return go.Scatter(
        x=[recall.value],
        y=[p95.value],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [recall.high - recall.value],
            "arrayminus": [recall.value - recall.low],
            "color": colour,
        },
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [min(p95.high, 10 * p95.value) - p95.value],
            "arrayminus": [p95.value - max(p95.low, 0.0)],
            "color": colour,
        },
        mode="markers",
        marker={"size": 15, "color": colour, "symbol": "star", "line": {"width": 1, "color": "#222222"}},
        name=f"{evaluation.label}: run with {evaluation.probes} probes",
        hovertemplate=f"{evaluation.probes} probes<br>recall %{{x:.3f}}<br>p95 %{{y:.2f}} ms<extra></extra>",
    )
