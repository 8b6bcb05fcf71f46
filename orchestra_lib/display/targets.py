"""Targets as they were re-measured: how much of what each allows is used up, with its interval; and their tables."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from orchestra_lib.display.tables import Table
from orchestra_lib.evidence import bound_text
from orchestra_lib.validation.criteria import Criterion
from orchestra_lib.validation.opportunities import Opportunity
from orchestra_lib.validation.targets import State, Target

_COLOURS = {State.REACHED: "#009E73", State.REHEARSED: "#0072B2", State.NOT_REACHED: "#D55E00"}
_ROW_PIXELS, _FRAME_PIXELS = 46, 190
_LEAST_SHARE = 1e-3  # of nothing at all a logarithmic axis has no place


def targets_table(targets: Sequence[Target]) -> Table:
    """Every target: what it is now with its interval, on which hardware and under which load, what it was before."""
    return Table(
        ("", "target", "wanted", "now", "before", "may be said", "how", "hardware", "load"),
        [
            (
                str(one.state),
                one.title,
                f"{bound_text(str(one.bound))} {one.unit}".rstrip(),
                one.now.text(one.unit) if one.now else f"MISSING: {one.missing}",
                f"{one.before.text(one.unit)}, {one.before.source.value}" if one.before else "–",
                one.improvement,
                "; ".join(filter(None, (one.now.how if one.now else "", one.unjudged))),
                one.hardware,
                one.load,
            )
            for one in targets
        ],
        "value [95 % interval]; what counts is the end that is against us",
        [one.state.verdict for one in targets],
    )


def criteria_table(found: Sequence[Criterion]) -> Table:
    """The success criteria, each with its evidence or MISSING."""
    return Table(
        ("", "the strategy's criterion", "state", "evidence"),
        [(one.state.verdict.value, one.words, str(one.state), one.evidence) for one in found],
        "Success criteria",
        [one.state.verdict for one in found],
    )


def opportunities_table(found: Sequence[Opportunity]) -> Table:
    """What is left to gain, the first is worth most."""
    rows = [(number, one.name, one.gain, one.step) for number, one in enumerate(found, start=1)]
    return Table(("", "what", "what it is worth", "step"), rows, "What is left to gain, in this order")


def targets_figure(targets: Sequence[Target], subject: str) -> go.Figure:
    """How much of each target is used up: left of the line is reached. What was not measured has no mark."""
    figure = go.Figure()
    for state, colour in _COLOURS.items():
        shown = [one for one in targets if one.state is state and one.used_share]
        if shown:
            figure.add_trace(_marks(str(state), shown, colour))
    figure.add_vline(x=1, line={"color": "#222222", "dash": "dot"}, annotation={"text": "target"})
    missing = [one.title for one in targets if one.state is State.MISSING]
    told = f"; not measured: {', '.join(missing)}" if missing else ""
    reached = sum(one.state in (State.REACHED, State.REHEARSED) for one in targets)
    figure.update_layout(
        title={"text": f"{reached} of {len(targets)} targets reached{told}<br><sub>{subject}</sub>"},
        xaxis={
            "type": "log",
            "title": {"text": "share of what the target allows that is used up"},
            "tickformat": ".0%",
        },
        yaxis={
            "autorange": "reversed",
            "categoryorder": "array",
            "categoryarray": [one.title for one in targets],
            "automargin": True,
        },
        template="plotly_white",
        height=_FRAME_PIXELS + _ROW_PIXELS * len(targets),
        legend={"orientation": "h", "y": -0.3},
        margin={"t": 80, "l": 10},
    )
    return figure


def _marks(name: str, shown: Sequence[Target], colour: str) -> go.Scatter:
    shares = [_shares(one) for one in shown]
    return go.Scatter(
        name=name,
        x=[middle for _, middle, _ in shares],
        y=[one.title for one in shown],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [high - middle for _, middle, high in shares],
            "arrayminus": [middle - low for low, middle, _ in shares],
            "color": colour,
        },
        mode="markers",
        marker={"size": 12, "color": colour},
        text=[one.now.text(one.unit) if one.now else "" for one in shown],
        hovertemplate="%{y}: %{text}<br>%{x:.1%} of the target<extra></extra>",
    )


def _shares(one: Target) -> tuple[float, float, float]:
    """Low, middle and high end of the interval as shares of the target; an end that does not exist is the middle."""
    assert one.now is not None  # noqa: S101 - only what was measured is drawn
    middle = one.share_of(one.now.value) or _LEAST_SHARE
    ends = [one.share_of(end) or _LEAST_SHARE for end in (one.now.low, one.now.high)]
    finite = [end if end < float("inf") else middle for end in ends]
    return min(*finite, middle), middle, max(*finite, middle)
