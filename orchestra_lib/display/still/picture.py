"""Putting a still picture together: the room for titles, panels and legend, and each trace in its panel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

from orchestra_lib.display.still import traces as drawn
from orchestra_lib.display.still.marks import (
    FONT,
    GREY,
    GRID,
    INK,
    line,
    mark,
    plain_lines,
    rectangle,
    text_at,
    width_of,
)
from orchestra_lib.display.still.panels import Panel, panels_of
from orchestra_lib.display.still.scale import ticks

_WIDTH = 900
_TICK, _NAME, _LEGEND, _TITLE = 12, 13, 12.5, 17  # sizes of letters
_ABOVE, _LEGEND_ROW, _RIGHT = 34, 21, 28
_WIDEST_LABELS = 330


@dataclass(frozen=True)
class _Frame:
    """The rectangle that plotly calls paper, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


def still_svg(figure: go.Figure | Mapping[str, Any]) -> str | None:
    """The figure, or what plotly's JSON says of it, as SVG; None when it has a kind of trace that is not drawn here."""
    stated = json.loads(pio.to_json(figure, validate=False))
    layout, data = stated.get("layout", {}), stated.get("data", [])
    if not data or any(trace.get("type", "scatter") not in ("scatter", "scattergl", "bar") for trace in data):
        return None
    panels = panels_of(data, layout)
    legend = _legend_rows(data, layout)
    title = str((layout.get("title") or {}).get("text") or "")
    height = float(layout.get("height") or 450)
    titles_of_panels = any(_is_above(one) for one in layout.get("annotations") or ())
    top = 14 + 24 * bool(title) + 18 * (len(plain_lines(title)) - 1) + (_ABOVE if titles_of_panels else 14)
    below = _below(panels)
    frame = _Frame(_left(panels), top, _WIDTH - _RIGHT, max(top + 120, height - below - _LEGEND_ROW * len(legend) - 8))
    parts = [_heading(title)]
    for panel in panels:
        placed = panel.within(frame.left, frame.top, frame.right, frame.bottom)
        parts += [_axes(placed), _shapes(placed, layout, frame), drawn.draw(placed, data)]
    parts.append(_paper_lines(layout, frame))
    parts += [_annotation(note, panels, frame) for note in layout.get("annotations") or ()]
    bottom = frame.bottom + below
    parts.append(_legend(legend, frame.left, bottom))
    whole = bottom + _LEGEND_ROW * len(legend) + 8
    told = " – ".join(plain_lines(title)) or "figure"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {whole:.0f}" role="img" '
        f'aria-label="{escape(told)}" style="width:100%;max-width:{_WIDTH}px;height:auto;background:#fff" '
        f'font-family="{FONT}">{"".join(parts)}</svg>'
    )


def _heading(title: str) -> str:
    if not title:
        return ""
    first, *rest = plain_lines(title)
    lines = [text_at(14, 28, escape(first), size=_TITLE, bold=True)]
    lines += [text_at(14, 28 + 19 * n, escape(words), size=_NAME, colour=GREY) for n, words in enumerate(rest, 1)]
    return "".join(lines)


def _left(panels: Sequence[Panel]) -> float:
    """Room for the labels and names of the axes at the left edge."""
    outer = [panel for panel in panels if panel.x_domain[0] < 0.02 and panel.shows_labels("y")]
    labels = [text for panel in outer for _, text in ticks(panel.y_axis, panel.y, 300, "y")]
    widest = max((width_of(text, _TICK) for text in labels), default=0.0)
    named = any(panel.name("y") for panel in outer)
    return 20 + min(widest, _WIDEST_LABELS) + (22 if named else 0)


def _below(panels: Sequence[Panel]) -> float:
    lowest = [panel for panel in panels if panel.y_domain[0] < 0.02]
    tall = max((_label_height(panel) for panel in lowest), default=16)
    return 10 + tall + (20 if any(panel.name("x") for panel in lowest) else 0)


def _label_height(panel: Panel) -> float:
    return 62 if _is_crowded(panel) else 16


def _is_crowded(panel: Panel) -> bool:
    pixels = (panel.x_domain[1] - panel.x_domain[0]) * (_WIDTH - 120)
    return sum(width_of(text, _TICK) + 8 for _, text in ticks(panel.x_axis, panel.x, pixels, "x")) > pixels


def _axes(panel: Panel) -> str:
    return _y_axis(panel) + _x_axis(panel) + line(panel.left, panel.bottom, panel.right, panel.bottom, "#9aa4b2")


def _y_axis(panel: Panel) -> str:
    left, top, bottom = panel.left, panel.top, panel.bottom
    parts = []
    for number, text in ticks(panel.y_axis, panel.y, bottom - top, "y"):
        y = panel.y_pixel(number)
        parts.append(line(left, y, panel.right, y) if panel.y.kind != "category" else "")
        if panel.shows_labels("y"):
            shown = escape(_shortened(text, _TICK))
            parts.append(text_at(left - 8, y + 4, shown, size=_TICK, colour=GREY, anchor="end"))
    if panel.name("y"):
        x = 16 if panel.x_domain[0] < 0.02 else left - 44
        parts.append(text_at(x, (top + bottom) / 2, panel.name("y"), size=_NAME, anchor="middle", turned=-90))
    return "".join(parts)


def _x_axis(panel: Panel) -> str:
    left, right, bottom = panel.left, panel.right, panel.bottom
    turned, anchor = (-35, "end") if _is_crowded(panel) else (0, "middle")
    parts = []
    for number, text in ticks(panel.x_axis, panel.x, right - left, "x"):
        x = panel.x_pixel(number)
        parts.append(line(x, panel.top, x, bottom) if panel.x.kind != "category" else "")
        if panel.shows_labels("x"):
            label = text_at(x, bottom + 16, escape(text), size=_TICK, colour=GREY, anchor=anchor, turned=turned)
            parts.append(label)
    if panel.name("x"):
        y = bottom + _label_height(panel) + 18
        parts.append(text_at((left + right) / 2, y, panel.name("x"), size=_NAME, anchor="middle"))
    return "".join(parts)


def _shortened(text: str, size: float) -> str:
    most = int(_WIDEST_LABELS / (size * 0.54))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _is_above(note: Mapping[str, Any]) -> bool:
    return note.get("yref") == "paper" and float(note.get("y") or 0) >= 0.98


def _shapes(panel: Panel, layout: Mapping[str, Any], frame: _Frame) -> str:
    parts = []
    for shape in layout.get("shapes") or ():
        if not panel.holds(shape):
            continue
        x1, x2 = (_place(panel, shape, end, "x", frame) for end in ("x0", "x1"))
        y1, y2 = (_place(panel, shape, end, "y", frame) for end in ("y0", "y1"))
        style = shape.get("line") or {}
        colour, width = str(style.get("color") or INK), float(style.get("width") or 1.5)
        if shape.get("type") == "line":
            parts.append(line(x1, y1, x2, y2, colour, width, str(style.get("dash") or "")))
        elif shape.get("type") == "rect":
            fill, opacity = str(shape.get("fillcolor") or GRID), shape.get("opacity")
            parts.append(rectangle(x1, y1, x2, y2, fill, float(0.3 if opacity is None else opacity)))
    return "".join(parts)


def _paper_lines(layout: Mapping[str, Any], frame: _Frame) -> str:
    return "".join(
        line(
            frame.left + float(shape["x0"]) * (frame.right - frame.left),
            frame.bottom - float(shape["y0"]) * (frame.bottom - frame.top),
            frame.left + float(shape["x1"]) * (frame.right - frame.left),
            frame.bottom - float(shape["y1"]) * (frame.bottom - frame.top),
            str((shape.get("line") or {}).get("color") or INK),
        )
        for shape in layout.get("shapes") or ()
        if shape.get("type") == "line" and shape.get("xref") == shape.get("yref") == "paper"
    )


def _place(panel: Panel | None, thing: Mapping[str, Any], key: str, way: str, frame: _Frame) -> float:
    """Where a shape's or annotation's coordinate lies, in pixels: on the paper, in a panel's frame, or on its axis."""
    reference, value = str(thing.get(f"{way}ref") or way), thing.get(key)
    start, end = (frame.left, frame.right) if way == "x" else (frame.bottom, frame.top)
    if panel is not None and reference != "paper":
        start, end = (panel.left, panel.right) if way == "x" else (panel.bottom, panel.top)
        if not reference.endswith(" domain"):
            scale = panel.x if way == "x" else panel.y
            # Annotations on a log axis stand at exponents, shapes at values.
            is_exponent = scale.kind == "log" and "text" in thing
            number = float(value) if is_exponent and value is not None else scale.number(value)
            return start + scale.place(number if number is not None else scale.low) * (end - start)
    return start + float(value or 0) * (end - start)


def _annotation(note: Mapping[str, Any], panels: Sequence[Panel], frame: _Frame) -> str:
    panel = next((panel for panel in panels if panel.holds(note)), None)
    placed = panel.within(frame.left, frame.top, frame.right, frame.bottom) if panel else None
    x, y = _place(placed, note, "x", "x", frame), _place(placed, note, "y", "y", frame)
    font = note.get("font") or {}
    size = min(float(font.get("size") or 12), 13)
    anchor = {"left": "start", "right": "end"}.get(str(note.get("xanchor")), "middle")
    if anchor == "middle" and x + width_of(str(note.get("text")), size) / 2 > _WIDTH:
        anchor = "end"
    lifted = {"bottom": -5.0, "top": size + 3}.get(str(note.get("yanchor")), size / 3)
    shifted_x, shifted_y = float(note.get("xshift") or 0), float(note.get("yshift") or 0)
    text = str(note.get("text") or "")
    place = (x + shifted_x + (4 if anchor == "start" else -4 if anchor == "end" else 0), y + lifted - shifted_y)
    return text_at(*place, text, size=size, colour=str(font.get("color") or INK), anchor=anchor)


def _legend_rows(data: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> list[list[tuple[int, Any]]]:
    """The traces of the legend, row by row, as many as fit beside each other."""
    shown = [(index, trace) for index, trace in enumerate(data) if trace.get("showlegend", True) and trace.get("name")]
    wanted = layout.get("showlegend")
    if wanted is False or (len(data) < 2 and not wanted and not any(trace.get("showlegend") for trace in data)):
        return []
    rows: list[list[tuple[int, Any]]] = []
    room = 0.0
    for entry in shown:
        wide = width_of(str(entry[1]["name"]), _LEGEND) + 44
        if not rows or room + wide > _WIDTH - 40:
            rows.append([])
            room = 0.0
        rows[-1].append(entry)
        room += wide
    return rows


def _legend(rows: Sequence[Sequence[tuple[int, Any]]], left: float, top: float) -> str:
    parts = []
    widest = max((sum(width_of(str(t["name"]), _LEGEND) + 44 for _, t in row) for row in rows), default=0.0)
    left = min(left, max(14.0, _WIDTH - 14 - widest))
    for number, row in enumerate(rows):
        x, y = left, top + 14 + _LEGEND_ROW * number
        for index, trace in row:
            look = drawn.look(trace, index)
            if trace.get("type") == "bar":
                parts.append(rectangle(x, y - 9, x + 16, y + 1, look.colour))
            else:
                if "lines" in look.mode:
                    parts.append(line(x, y - 4, x + 18, y - 4, look.colour, 2, look.dash))
                if "markers" in look.mode:
                    parts.append(mark(x + 9, y - 4, look.symbol, min(look.size, 11), look.colour, look.edge))
            parts.append(text_at(x + 24, y, str(trace["name"]), size=_LEGEND))
            x += width_of(str(trace["name"]), _LEGEND) + 44
    return "".join(parts)
