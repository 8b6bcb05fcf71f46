"""The migration's weeks as a chart: planned bars, and every run that the ledger knows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import plotly.graph_objects as go

from orchestra_lib.validation.schedule import Closed, Run, Schedule

_PLANNED, _ACTUAL, _FREEZE = "#BBD4E6", "#0072B2", "#E9D8C0"
_VERDICTS = {
    "PASS": "#009E73",
    "REHEARSED": "#009E73",
    "PLANNED": "#999999",
    "FAIL": "#D55E00",
    "MISSING": "#D55E00",
    "INTERRUPTED": "#D55E00",
}
_ROW_PIXELS, _FRAME_PIXELS = 40, 190


def schedule_figure(found: Schedule, subject: str) -> go.Figure:
    """A row a phase: the planned weeks, from the first to the last run, and each run in the colour of its verdict."""
    names = [stretch.name for stretch in found.stretches]
    figure = go.Figure()
    figure.add_trace(_bars("planned", [(s.name, s.begins, s.ends, s.people) for s in found.stretches], _PLANNED, 0.62))
    if found.windows:
        figure.add_trace(_bars("windows", [_window(one) for one in found.windows], _FREEZE, 0.62))
        names += [_window(one)[0] for one in found.windows]
    actual = [(s.name, *s.actual, f"{len(s.runs)} runs") for s in found.stretches if s.actual]
    if actual:
        figure.add_trace(_bars("from the first to the last run", actual, _ACTUAL, 0.2))
    for verdict, colour in _VERDICTS.items():
        marks = [(s.name, run) for s in found.stretches for run in s.runs if run.verdict == verdict]
        if marks:
            figure.add_trace(_marks(verdict, marks, colour))
    weeks = max((s.ends for s in found.stretches), default=None)
    runs = sum(len(s.runs) for s in found.stretches)
    planned = f"{(weeks.date() - found.first_day).days // 7} weeks planned" if weeks else "nothing planned"
    figure.update_layout(
        title={"text": f"{planned}, {runs} runs in the ledger<br><sub>{subject}</sub>"},
        xaxis={"type": "date", "title": {"text": f"week 1 begins on {found.first_day}"}},
        yaxis={"autorange": "reversed", "categoryorder": "array", "categoryarray": names, "automargin": True},
        barmode="overlay",
        template="plotly_white",
        height=_FRAME_PIXELS + _ROW_PIXELS * len(names),
        legend={"orientation": "h", "y": -0.25},
        margin={"t": 80, "l": 10},
    )
    return figure


def _window(one: Closed) -> tuple[str, datetime, datetime, str]:
    return (f"{one.purpose.replace('_', ' ')}: {one.name}", one.begins, one.ends, "")


def _bars(name: str, rows: Sequence[tuple[str, datetime, datetime, str]], colour: str, width: float) -> go.Bar:
    return go.Bar(
        name=name,
        y=[row[0] for row in rows],
        base=[row[1] for row in rows],
        x=[(row[2] - row[1]).total_seconds() * 1e3 for row in rows],
        orientation="h",
        width=width,
        marker={"color": colour},
        customdata=[[row[3], f"{row[1]:%Y-%m-%d %H:%M}", f"{row[2]:%Y-%m-%d %H:%M}"] for row in rows],
        hovertemplate="%{y}<br>%{customdata[1]} to %{customdata[2]}<br>%{customdata[0]}<extra></extra>",
    )


def _marks(verdict: str, marks: Sequence[tuple[str, Run]], colour: str) -> go.Scatter:
    return go.Scatter(
        name=verdict,
        x=[run.began for _, run in marks],
        y=[name for name, _ in marks],
        mode="markers",
        marker={"symbol": "diamond", "size": 9, "color": colour, "line": {"width": 1, "color": "#ffffff"}},
        customdata=[[run.runbook, (run.ended - run.began).total_seconds()] for _, run in marks],
        hovertemplate="%{customdata[0]}, %{x}<br>%{customdata[1]:,.0f} s<extra></extra>",
    )
