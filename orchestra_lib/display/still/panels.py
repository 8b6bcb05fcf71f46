"""The panels of a figure: which axes belong together, what they have to show, where on the picture they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestra_lib.display.still.bars import Bar, bars_of, ends_of, is_horizontal
from orchestra_lib.display.still.scale import Scale, axis_kind, scale_of, values_of

_Axes = tuple[str, str]


@dataclass(frozen=True)
class Panel:
    """One pair of axes with its traces and bars; the edges are pixels of the picture."""

    names: _Axes
    x_axis: Mapping[str, Any]
    y_axis: Mapping[str, Any]
    x: Scale
    y: Scale
    traces: tuple[int, ...]
    bars: tuple[Bar, ...]
    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    @property
    def x_domain(self) -> tuple[float, float]:
        """The part of the picture's width that it takes."""
        return _domain(self.x_axis)

    @property
    def y_domain(self) -> tuple[float, float]:
        """The part of the picture's height that it takes, from below."""
        return _domain(self.y_axis)

    def within(self, left: float, top: float, right: float, bottom: float) -> Panel:
        """The same panel where it lies in a frame of these edges."""
        (x1, x2), (y1, y2) = self.x_domain, self.y_domain
        return replace(
            self,
            left=left + x1 * (right - left),
            right=left + x2 * (right - left),
            top=bottom - y2 * (bottom - top),
            bottom=bottom - y1 * (bottom - top),
        )

    def x_pixel(self, number: float) -> float:
        """Where a number of the x axis lies."""
        return self.left + self.x.place(number) * (self.right - self.left)

    def y_pixel(self, number: float) -> float:
        """Where a number of the y axis lies."""
        return self.bottom - self.y.place(number) * (self.bottom - self.top)

    def shows_labels(self, way: str) -> bool:
        """Whether the labels of its ticks are wanted: axes that are shared have them once."""
        return bool((self.x_axis if way == "x" else self.y_axis).get("showticklabels", True))

    def name(self, way: str) -> str:
        """The name of an axis, empty for none."""
        title = (self.x_axis if way == "x" else self.y_axis).get("title") or {}
        return str(title if isinstance(title, str) else title.get("text") or "")

    def holds(self, thing: Mapping[str, Any]) -> bool:
        """Whether a shape or an annotation refers to these axes."""
        references = [str(thing.get(f"{way}ref") or way).removesuffix(" domain") for way in ("x", "y")]
        return any(one != "paper" for one in references) and all(
            one in ("paper", name) for one, name in zip(references, self.names, strict=True)
        )


@dataclass(frozen=True)
class _Figure:
    """A figure's traces and layout, and what they say of an axis named as plotly does: ``x``, ``x2``, ``y``."""

    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]

    def root(self, name: str) -> str:
        """The axis that this one shares its scale with; itself for most."""
        return str((self.layout.get(_key(name)) or {}).get("matches") or name)

    def axis(self, name: str) -> Mapping[str, Any]:
        own, root = self.layout.get(_key(name)) or {}, self.root(name)
        return own if root == name else {**(self.layout.get(_key(root)) or {}), "title": None, **own}

    def on(self, name: str) -> list[Mapping[str, Any]]:
        """The traces on an axis, and on those that share its scale."""
        root, key = self.root(name), f"{name[0]}axis"
        return [trace for trace in self.data if self.root(str(trace.get(key) or name[0])) == root]

    def kind(self, name: str) -> str:
        values: list[Any] = []
        for trace in self.on(name):
            lies_along = trace.get("type") == "bar" and is_horizontal(trace) == (name[0] == "x")
            values += [*(values_of(trace.get("base")) if lies_along else []), *values_of(trace.get(name[0]))]
        return axis_kind(self.axis(name), values)

    def bars(self, pair: _Axes, members: Sequence[int]) -> list[Bar]:
        found = [(index, self.data[index]) for index in members if self.data[index].get("type") == "bar"]
        if not found:
            return []
        along, across = pair if is_horizontal(found[0][1]) else pair[::-1]
        values = [value for trace in self.on(across) for value in values_of(trace.get(across[0]))]
        stands_on = scale_of(self.axis(across), self.kind(across), values, bars=True, lengths_on_it=False)
        return bars_of(found, stands_on, Scale(self.kind(along), 0, 1), str(self.layout.get("barmode") or "group"))

    def scale(self, name: str, bars: Mapping[_Axes, Sequence[Bar]]) -> Scale:
        way, kind = name[0], self.kind(name)
        values: list[Any] = []
        for trace in self.on(name):
            if trace.get("type") != "bar" or is_horizontal(trace) == (way == "y"):
                values += values_of(trace.get(way))
            values += _whisker_ends(trace, way)
        here = [one for pair, one in bars.items() if one and self.root(pair["xy".index(way)]) == self.root(name)]
        reaching = [one for one in here if is_horizontal(self.data[one[0].trace]) == (way == "x")]
        for one in reaching:
            values += ends_of(one, Scale(kind, 0, 1))
        stands = len(here) > len(reaching)
        return scale_of(self.axis(name), kind, values, bars=stands, lengths_on_it=bool(reaching))


def panels_of(data: Sequence[Mapping[str, Any]], layout: Mapping[str, Any]) -> list[Panel]:
    """The panels of a figure, with scales that show everything that is on them; matched axes share one scale."""
    figure = _Figure(data, layout)
    pairs: dict[_Axes, list[int]] = {}
    for index, trace in enumerate(data):
        pairs.setdefault((str(trace.get("xaxis") or "x"), str(trace.get("yaxis") or "y")), []).append(index)
    bars = {pair: figure.bars(pair, members) for pair, members in pairs.items()}
    scales = {name: figure.scale(name, bars) for pair in pairs for name in pair}
    return [
        Panel((x, y), figure.axis(x), figure.axis(y), scales[x], scales[y], tuple(members), tuple(bars[x, y]))
        for (x, y), members in pairs.items()
    ]


def _key(name: str) -> str:
    return f"{name[0]}axis{name[1:]}"


def _domain(axis: Mapping[str, Any]) -> tuple[float, float]:
    low, high = axis.get("domain") or (0.0, 1.0)
    return float(low), float(high)


def _whisker_ends(trace: Mapping[str, Any], way: str) -> list[Any]:
    bars = trace.get(f"error_{way}") or {}
    values, above = values_of(trace.get(way)), values_of(bars.get("array"))
    below = values_of(bars.get("arrayminus")) or above
    ends = []
    for value, up, down in zip(values, above, below, strict=False):
        if isinstance(value, int | float):
            ends += [value + (up or 0), value - (down or 0)]
    return ends
