"""The pieces of a still picture as SVG: texts, marks, lines, and how wide a text is, about."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape, unescape

INK, GREY, GRID = "#222222", "#555555", "#e4e8ee"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_TAG = re.compile(r"<[^>]+>")
_DASHES = {"dot": "2,4", "dash": "8,5", "dashdot": "8,4,2,4", "longdash": "12,6", "longdashdot": "12,5,2,5"}


def width_of(text: str, size: float) -> float:
    """About how many pixels a line of text takes."""
    return len(text) * size * 0.54


def plain_lines(text: str) -> list[str]:
    """The lines of one of plotly's texts, without its tags."""
    return [unescape(_TAG.sub("", line)) for line in re.split(r"<br\s*/?>", text)]


def text_at(
    x: float,
    y: float,
    text: str,
    *,
    size: float = 12,
    colour: str = INK,
    anchor: str = "start",
    turned: float = 0,
    bold: bool = False,
) -> str:
    """A text of one or more lines; ``y`` is the base of the first, ``turned`` degrees, ``anchor`` as in SVG."""
    turn = f' transform="rotate({turned:g} {x:.1f} {y:.1f})"' if turned else ""
    weight = ' font-weight="600"' if bold or "<b>" in text else ""
    lines = plain_lines(text)
    head = f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{escape(colour)}" text-anchor="{anchor}"'
    if len(lines) == 1:
        return f"{head}{weight}{turn}>{escape(lines[0])}</text>"
    spans = "".join(
        f'<tspan x="{x:.1f}" dy="{0 if number == 0 else size * 1.25:g}">{escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )
    return f"{head}{weight}{turn}>{spans}</text>"


def line(x1: float, y1: float, x2: float, y2: float, colour: str = GRID, width: float = 1, dash: str = "") -> str:
    """A straight line; ``dash`` is one of plotly's names."""
    dashes = f' stroke-dasharray="{_DASHES[dash]}"' if dash in _DASHES else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{escape(colour)}" stroke-width="{width:g}"{dashes}/>'
    )


def rectangle(x1: float, y1: float, x2: float, y2: float, fill: str, opacity: float = 1, told: str = "") -> str:
    """A filled rectangle between two corners, with what it says when it is pointed at."""
    left, top, width, height = min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)
    pale = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(width, 0.8):.1f}" height="{max(height, 0.8):.1f}" '
        f'fill="{escape(fill)}"{pale}>{_title(told)}</rect>'
    )


def polyline(points: Sequence[tuple[float, float]], colour: str, width: float, dash: str = "", fill: str = "") -> str:
    """A line through points, or with ``fill`` the area that they enclose."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    if fill:
        return f'<polygon points="{path}" fill="{escape(fill)}" fill-opacity="0.2"/>'
    dashes = f' stroke-dasharray="{_DASHES[dash]}"' if dash in _DASHES else ""
    return f'<polyline points="{path}" fill="none" stroke="{escape(colour)}" stroke-width="{width:g}"{dashes}/>'


def mark(x: float, y: float, symbol: str, size: float, colour: str, edge: str, told: str = "") -> str:
    """One of plotly's symbols around a point; those it does not know are circles."""
    name, half = symbol.removesuffix("-open"), size / 2
    hollow = symbol.endswith("-open")
    look = (
        f'fill="{"none" if hollow else escape(colour)}" stroke="{escape(colour if hollow else edge)}" '
        f'stroke-width="{1.5 if hollow or edge != colour else 0.5}"'
    )
    corners = _CORNERS.get(name)
    if corners is None:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{half:.1f}" {look}>{_title(told)}</circle>'
    path = " ".join(f"{x + dx * half:.1f},{y + dy * half:.1f}" for dx, dy in corners)
    return f'<polygon points="{path}" {look}>{_title(told)}</polygon>'


def _title(told: str) -> str:
    return f"<title>{escape(told)}</title>" if told else ""


def _star() -> tuple[tuple[float, float], ...]:
    radii = (1.25, 0.5) * 5
    return tuple(
        (radius * math.sin(n * math.pi / 5), -radius * math.cos(n * math.pi / 5)) for n, radius in enumerate(radii)
    )


_CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "diamond": ((0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)),
    "triangle-up": ((0, -1.1), (1.1, 0.8), (-1.1, 0.8)),
    "triangle-down": ((0, 1.1), (1.1, -0.8), (-1.1, -0.8)),
    "star": _star(),
    "x": (
        (-1, -0.6), (-0.6, -1), (0, -0.4), (0.6, -1), (1, -0.6), (0.4, 0),
        (1, 0.6), (0.6, 1), (0, 0.4), (-0.6, 1), (-1, 0.6), (-0.4, 0),
    ),
}  # fmt: skip
