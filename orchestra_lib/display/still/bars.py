"""Where the bars of a panel stand: beside each other, on top of each other, or from a start of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from orchestra_lib.display.still.scale import Scale, finite, values_of

_GAP = 0.2  # of the distance between two bars, as plotly leaves it


@dataclass(frozen=True)
class Bar:
    """One bar: the trace and the point that it is, its ends across (numbers of the axis) and along (values).

    ``start`` is None where the bar begins at the foot of the axis.
    """

    trace: int
    point: int
    across: tuple[float, float]
    start: float | None
    end: float


def is_horizontal(trace: Mapping[str, Any]) -> bool:
    """Whether a bar trace lies on its side."""
    return trace.get("orientation") == "h"


def bars_of(traces: Sequence[tuple[int, Mapping[str, Any]]], across: Scale, along: Scale, mode: str) -> list[Bar]:
    """The bars of one panel's traces; ``across`` is the axis that they stand on, ``mode`` plotly's ``barmode``."""
    beside = len(traces) if mode == "group" else 1
    slot = _slot(traces, across)
    tops: dict[float, float] = defaultdict(float)
    bars: list[Bar] = []
    for number, (index, trace) in enumerate(traces):
        places, lengths = _places_and_lengths(trace)
        starts, widths = values_of(trace.get("base")), values_of(trace.get("width"))
        for point, (place, length) in enumerate(zip(places, lengths, strict=False)):
            middle, value = across.number(place), _length(length, along)
            if middle is None or value is None:
                continue
            width = float(widths[point % len(widths)]) if widths else slot / beside
            low = middle - (slot / 2 if beside > 1 else width / 2) + (number * slot / beside if beside > 1 else 0.0)
            start = _start(starts, point, along) if starts else tops[middle] if mode in ("stack", "relative") else None
            bars.append(Bar(index, point, (low, low + width), start, (start or 0.0) + value))
            tops[middle] += value
    return bars


def ends_of(bars: Sequence[Bar], along: Scale) -> list[Any]:
    """The values that the axis along the bars has to show; zero too where bars begin at its foot."""
    shown = [value for bar in bars for value in (bar.start, bar.end) if value is not None]
    if along.kind == "linear" and any(bar.start is None for bar in bars):
        shown.append(0.0)
    # A date's numbers here are seconds, and plotly's are milliseconds.
    return [value * 1000 for value in shown] if along.kind == "date" else shown


def _places_and_lengths(trace: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    x, y = values_of(trace.get("x")), values_of(trace.get("y"))
    places, lengths = (y, x) if is_horizontal(trace) else (x, y)
    return places or list(range(len(lengths))), lengths


def _slot(traces: Sequence[tuple[int, Mapping[str, Any]]], across: Scale) -> float:
    numbers = sorted(
        {n for _, trace in traces for one in _places_and_lengths(trace)[0] if (n := across.number(one)) is not None}
    )
    nearest = min((b - a for a, b in pairwise(numbers)), default=1.0)
    return (1.0 if across.kind == "category" else nearest) * (1 - _GAP)


def _start(starts: Sequence[Any], point: int, along: Scale) -> float | None:
    start = starts[point % len(starts)]
    return along.number(start) if along.kind == "date" else finite(start)


def _length(length: Any, along: Scale) -> float | None:
    if length is None:
        return None
    if along.kind == "date":
        return along.number(length) if isinstance(length, str) else float(length) / 1000
    return finite(length)
