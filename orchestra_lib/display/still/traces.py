"""The traces of one panel, as SVG: bars, lines, marks, whiskers and the texts beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from orchestra_lib.display.still.bars import Bar, is_horizontal
from orchestra_lib.display.still.marks import INK, line, mark, polyline, rectangle, text_at, width_of
from orchestra_lib.display.still.panels import Panel
from orchestra_lib.display.still.scale import Scale, formatted, values_of

# What plotly gives traces that state no colour.
_COLOURS = ("#636efa", "#EF553B", "#00cc96", "#ab63fa", "#FFA15A", "#19d3f3", "#FF6692", "#B6E880")
_TEXT = 11.5


@dataclass(frozen=True)
class Look:
    """How a trace looks where its points do not differ."""

    colour: str
    edge: str
    mode: str
    dash: str
    width: float
    symbol: str
    size: float


def look(trace: Mapping[str, Any], index: int) -> Look:
    """The look of a trace, that of its first point where they differ."""
    marker, stroke = trace.get("marker") or {}, trace.get("line") or {}
    colour = next(
        (one for one in (_first(marker.get("color")), _first(stroke.get("color"))) if isinstance(one, str)),
        _COLOURS[index % len(_COLOURS)],
    )
    mode = str(trace.get("mode") or ("lines+markers" if len(values_of(trace.get("y"))) < 20 else "lines"))
    return Look(
        colour,
        str(_first((marker.get("line") or {}).get("color")) or colour),
        mode,
        str(stroke.get("dash") or ""),
        float(stroke.get("width") or 2),
        str(_first(marker.get("symbol")) or "circle"),
        float(_first(marker.get("size")) or 7),
    )


def draw(panel: Panel, data: Sequence[Mapping[str, Any]]) -> str:
    """Everything on a panel, in the order of the traces: bars, then what is drawn over them."""
    parts = [_bar(panel, bar, data[bar.trace]) for bar in panel.bars]
    for index in panel.traces:
        trace = data[index]
        parts.append(_whiskers(panel, trace, index) if trace.get("type") == "bar" else _scatter(panel, trace, index))
    return "".join(parts)


def _bar(panel: Panel, bar: Bar, trace: Mapping[str, Any]) -> str:
    lies = is_horizontal(trace)
    along, across = (panel.x, panel.y) if lies else (panel.y, panel.x)
    start, end = _number(along, bar.start), _number(along, bar.end)
    if end is None:
        return ""
    foot = start if start is not None else 0.0 if along.kind == "linear" else along.low
    marker = trace.get("marker") or {}
    colour = _at(marker.get("color"), bar.point, look(trace, bar.trace).colour)
    opacity = float(_at(marker.get("opacity"), bar.point, trace.get("opacity") or 1))
    named = across.categories[round(sum(bar.across) / 2)] if across.categories else ""
    told = " ".join(part for part in (str(trace.get("name") or ""), named) if part)
    if lies:
        corners = (panel.x_pixel(foot), panel.y_pixel(bar.across[0]), panel.x_pixel(end), panel.y_pixel(bar.across[1]))
    else:
        corners = (panel.x_pixel(bar.across[0]), panel.y_pixel(foot), panel.x_pixel(bar.across[1]), panel.y_pixel(end))
    shape = rectangle(*corners, str(colour), opacity, told)
    return shape + _bar_text(corners, _bar_words(trace, bar), trace, bar.point, lies=lies)


def _bar_words(trace: Mapping[str, Any], bar: Bar) -> str:
    if trace.get("text") is not None:
        return str(_at(trace.get("text"), bar.point, ""))
    template = str(trace.get("texttemplate") or "")
    before, brace, after = template.partition("%{value:")
    if not brace:
        return ""
    how, _, rest = after.partition("}")
    return f"{before}{formatted(bar.end - (bar.start or 0.0), how)}{rest}"


def _bar_text(
    corners: tuple[float, float, float, float], words: str, trace: Mapping[str, Any], point: int, *, lies: bool
) -> str:
    if not words or trace.get("textposition") == "none":
        return ""
    x1, y1, x2, y2 = corners
    inside = str(_at((trace.get("insidetextfont") or {}).get("color"), point, "#ffffff"))
    if lies:
        y = (y1 + y2) / 2 + 4
        if abs(x2 - x1) > width_of(words, _TEXT) + 14 and trace.get("textposition") != "outside":
            at_start = trace.get("insidetextanchor") == "start"
            x, anchor = (x1 + 7, "start") if at_start else (x2 - 7, "end")
            return text_at(x, y, escape(words), size=_TEXT, colour=inside, anchor=anchor)
        return text_at(x2 + 6, y, escape(words), size=_TEXT)
    x = (x1 + x2) / 2
    if abs(y2 - y1) > 20 and abs(x2 - x1) > width_of(words, _TEXT) and trace.get("textposition") != "outside":
        return text_at(x, min(y1, y2) + 15, escape(words), size=_TEXT, colour=inside, anchor="middle")
    return text_at(x, min(y1, y2) - 5, escape(words), size=_TEXT, anchor="middle")


def _scatter(panel: Panel, trace: Mapping[str, Any], index: int) -> str:
    seen = look(trace, index)
    places = _points(panel, trace)
    parts = []
    if "lines" in seen.mode:
        for stretch in _stretches(places):
            stepped = _stepped(stretch) if (trace.get("line") or {}).get("shape") == "hv" else stretch
            if trace.get("fill") == "tozeroy" and stepped:
                foot = panel.y_pixel(max(0.0, panel.y.low) if panel.y.kind == "linear" else panel.y.low)
                area = [(stepped[0][0], foot), *stepped, (stepped[-1][0], foot)]
                parts.append(polyline(area, seen.colour, 0, fill=seen.colour))
            parts.append(polyline(stepped, seen.colour, seen.width, seen.dash))
    parts.append(_whiskers(panel, trace, index))
    marker = trace.get("marker") or {}
    for number, place in enumerate(places):
        if place is None:
            continue
        if "markers" in seen.mode:
            colour = _at(marker.get("color"), number, seen.colour)
            symbol, size = _at(marker.get("symbol"), number, seen.symbol), _at(marker.get("size"), number, seen.size)
            told = str(_at(trace.get("text"), number, "") or trace.get("name") or "").replace("<br>", ", ")
            drawn_as = colour if isinstance(colour, str) else seen.colour
            parts.append(mark(*place, str(symbol), float(size), drawn_as, seen.edge, told))
        if "text" in seen.mode:
            parts.append(_beside(place, str(_at(trace.get("text"), number, "") or ""), trace, seen))
    return "".join(parts)


def _beside(place: tuple[float, float], words: str, trace: Mapping[str, Any], seen: Look) -> str:
    position, font = str(trace.get("textposition") or "middle center"), trace.get("textfont") or {}
    size = float(font.get("size") or 12)
    vertical, _, horizontal = position.partition(" ")
    away = seen.size / 2 + 3 if "markers" in seen.mode else 3
    x = place[0] + {"right": away, "left": -away}.get(horizontal, 0.0)
    y = place[1] + {"top": -away - 2, "bottom": away + size * 0.8}.get(vertical, size / 3)
    anchor = {"right": "start", "left": "end"}.get(horizontal, "middle")
    return text_at(x, y, words.strip(), size=size, colour=str(font.get("color") or INK), anchor=anchor)


def _whiskers(panel: Panel, trace: Mapping[str, Any], index: int) -> str:
    colour = INK if trace.get("type") == "bar" else look(trace, index).colour
    x, y = values_of(trace.get("x")), values_of(trace.get("y"))
    parts = []
    for way, values, others in (("y", y, x), ("x", x, y)):
        bars = trace.get(f"error_{way}") or {}
        above = values_of(bars.get("array"))
        below = values_of(bars.get("arrayminus")) or above
        width = float(bars.get("thickness") or 1.5)
        scale, other_scale = (panel.y, panel.x) if way == "y" else (panel.x, panel.y)
        for value, other, up, down in zip(values, others, above, below, strict=False):
            if not isinstance(value, int | float) or up is None:
                continue
            ends = [_number(scale, value + up), _number(scale, value - (down or 0))]
            middle = other_scale.number(other)
            if middle is None or ends[0] is None:
                continue
            low = ends[1] if ends[1] is not None else scale.low
            parts.append(_whisker(panel, way, middle, (ends[0], low), colour, width))
    return "".join(parts)


def _whisker(panel: Panel, way: str, middle: float, ends: tuple[float, float], colour: str, width: float) -> str:
    if way == "y":
        x = panel.x_pixel(middle)
        first, last = (_held(panel.y_pixel(end), panel.top, panel.bottom) for end in ends)
        caps = [line(x - 4, at, x + 4, at, colour, width) for at in (first, last)]
        return line(x, first, x, last, colour, width) + "".join(caps)
    y = panel.y_pixel(middle)
    first, last = (_held(panel.x_pixel(end), panel.left, panel.right) for end in ends)
    caps = [line(at, y - 4, at, y + 4, colour, width) for at in (first, last)]
    return line(first, y, last, y, colour, width) + "".join(caps)


def _held(pixel: float, one: float, other: float) -> float:
    """Within the panel: a whisker may be longer than its axis."""
    return min(max(pixel, min(one, other)), max(one, other))


def _points(panel: Panel, trace: Mapping[str, Any]) -> list[tuple[float, float] | None]:
    y = values_of(trace.get("y"))
    x = values_of(trace.get("x")) or list(range(len(y)))
    places: list[tuple[float, float] | None] = []
    for one, other in zip(x, y, strict=False):
        across, up = panel.x.number(one), panel.y.number(other)
        places.append(None if across is None or up is None else (panel.x_pixel(across), panel.y_pixel(up)))
    return places


def _stretches(places: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """The stretches of a line between its gaps."""
    stretches: list[list[tuple[float, float]]] = [[]]
    for place in places:
        if place is None:
            stretches.append([])
        else:
            stretches[-1].append(place)
    return [stretch for stretch in stretches if len(stretch) > 1]


def _stepped(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    stepped = [points[0]]
    for before, after in pairwise(points):
        stepped += [(after[0], before[1]), after]
    return stepped


def _number(scale: Scale, value: float | None) -> float | None:
    """A value along a bar as a number of its axis: seconds of a date are numbers already."""
    return value if scale.kind == "date" or value is None else scale.number(value)


def _first(listed: Any) -> Any:
    return (listed[0] if listed else None) if isinstance(listed, list | tuple) else listed


def _at(listed: Any, number: int, otherwise: Any) -> Any:
    found = (listed[number] if number < len(listed) else None) if isinstance(listed, list | tuple) else listed
    return otherwise if found is None else found
