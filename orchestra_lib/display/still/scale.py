"""Axes of a still picture: from a value to a place between 0 and 1, and the ticks that are worth a label."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np

_PIXELS_A_TICK = {"x": 90, "y": 45}
_DAY = 86_400.0
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_LEAST, _MOST = 1e-100, 1e100  # beyond these a number is nothing that was measured, and reckoning with it overflows
_STEPS_OF_TIME = (1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY)


@dataclass(frozen=True)
class Scale:
    """One axis: ``kind`` is linear, log, date or category; ``low`` and ``high`` are its ends as numbers of that kind.

    Numbers are the values themselves, exponents of ten, seconds since 1970, or places in ``categories``.
    """

    kind: str
    low: float
    high: float
    categories: tuple[str, ...] = ()

    def number(self, value: Any) -> float | None:
        """A value of the figure's as a number of this axis; None for what has no place on it."""
        if value is None:
            return None
        if self.kind == "category":
            return float(self.categories.index(str(value))) if str(value) in self.categories else None
        if self.kind == "date":
            return _seconds(value)
        found = finite(value)
        if self.kind == "log":
            return math.log10(found) if found is not None and found > 0 else None
        return found

    def place(self, number: float) -> float:
        """Where a number of this axis lies: 0 at its low end, 1 at its high one."""
        return (number - self.low) / (self.high - self.low or 1.0)


def axis_kind(axis: Mapping[str, Any], values: Iterable[Any]) -> str:
    """What kind of axis it is: as the figure says, or as its first value says."""
    stated = axis.get("type")
    if stated in ("linear", "log", "date", "category"):
        return str(stated)
    first = next((value for value in values if value is not None), 0)
    if isinstance(first, str):
        return "date" if _DATE.match(first) else "category"
    return "linear"


def scale_of(axis: Mapping[str, Any], kind: str, values: Sequence[Any], *, bars: bool, lengths_on_it: bool) -> Scale:
    """The scale of an axis that has to show ``values``; ``bars`` stand on it, or reach along it (``lengths_on_it``)."""
    if kind == "category":
        stated = [str(one) for one in axis.get("categoryarray") or ()]
        names = tuple(dict.fromkeys([*stated, *(str(value) for value in values if value is not None)]))
        return _turned(axis, Scale(kind, -0.5, len(names) - 0.5, names))
    plain = Scale(kind, 0.0, 1.0)
    if axis.get("range"):
        low, high = (end if kind == "log" else plain.number(end) for end in axis["range"])
        return Scale(kind, float(low or 0.0), float(high if high is not None else 1.0))
    numbers = [number for value in values if (number := plain.number(value)) is not None]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    from_zero = kind == "linear" and (lengths_on_it or axis.get("rangemode") == "tozero") and low >= 0
    margin = (high - low or abs(high) or 1.0) * (0.0 if kind == "date" else 0.06)
    if bars and not lengths_on_it:
        margin += 0.5 * _smallest_gap(numbers)
    return _turned(axis, Scale(kind, 0.0 if from_zero else low - margin, high + margin))


def _turned(axis: Mapping[str, Any], scale: Scale) -> Scale:
    if axis.get("autorange") != "reversed":
        return scale
    return Scale(scale.kind, scale.high, scale.low, scale.categories)


def ticks(axis: Mapping[str, Any], scale: Scale, pixels: float, way: str) -> list[tuple[float, str]]:
    """Numbers of the axis and their labels; ``way`` is x or y."""
    low, high = sorted((scale.low, scale.high))
    most = max(2.0, pixels / _PIXELS_A_TICK[way])
    if axis.get("tickvals"):
        found = [(scale.number(value), value) for value in axis["tickvals"]]
        texts = axis.get("ticktext") or [_told(axis, value) for _, value in found]
        named = [(number, str(text)) for (number, _), text in zip(found, texts, strict=False) if number is not None]
    elif scale.kind == "category":
        every = 1 if way == "x" or axis.get("dtick") else max(1, math.ceil(len(scale.categories) * 13 / pixels))
        named = [(float(n), text) for n, text in enumerate(scale.categories) if n % every == 0]
    elif scale.kind == "log":
        named = _log_ticks(axis, low, high, most)
    elif scale.kind == "date":
        named = _date_ticks(low, high, most)
    else:
        step = _stated_step(axis) or _nice((high - low) / most)
        first = math.ceil(low / step - 1e-9)
        numbers = [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]
        named = [(number, _told(axis, number, step)) for number in numbers]
    return [(number, text) for number, text in named if low - 1e-9 <= number <= high + 1e-9]


def values_of(listed: Any) -> list[Any]:
    """The values of a trace's list, which plotly may have packed as base64; a lone value counts as a list of one."""
    if isinstance(listed, Mapping) and "bdata" in listed:
        packed = np.frombuffer(base64.b64decode(listed["bdata"]), dtype=np.dtype(str(listed["dtype"])))
        return [None if value != value else value for value in packed.tolist()]
    if listed is None:
        return []
    return list(listed) if isinstance(listed, list | tuple) else [listed]


def finite(value: Any) -> float | None:
    """A value as a number that can be drawn; None for what is none."""
    if not isinstance(value, int | float) or not abs(value) < _MOST:
        return None
    return float(value) if abs(value) > _LEAST else 0.0


def _seconds(value: Any) -> float | None:
    if isinstance(value, int | float):
        return float(value) / 1000  # plotly counts milliseconds
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _smallest_gap(numbers: Sequence[float]) -> float:
    ordered = sorted(set(numbers))
    return min((after - before for before, after in pairwise(ordered)), default=1.0)


def _nice(step: float) -> float:
    if step <= 0 or not math.isfinite(step):
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)


def _stated_step(axis: Mapping[str, Any]) -> float | None:
    step = axis.get("dtick")
    return float(step) if isinstance(step, int | float) and step > 0 else None


def _log_ticks(axis: Mapping[str, Any], low: float, high: float, most: float) -> list[tuple[float, str]]:
    stated = {"D1": range(1, 10), "D2": (1, 2, 5)}.get(str(axis.get("dtick")))
    within = range(1, 10) if high - low < 0.8 else stated or ((1, 2, 5) if high - low < 2 else (1,))
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [factor * 10.0**power for power in powers for factor in within]
    found = [value for value in found if low <= math.log10(value) <= high]
    if len(found) > 2 * most:
        found = [10.0**power for power in powers]
    return [(math.log10(value), _told(axis, value)) for value in found]


def _date_ticks(low: float, high: float, most: float) -> list[tuple[float, str]]:
    step = next((step for step in _STEPS_OF_TIME if (high - low) / step <= most), 28 * _DAY)
    shown = "%b %-d" if step >= _DAY else "%H:%M" if step >= 60 else "%H:%M:%S"
    first = math.ceil(low / step)
    numbers = [n * step for n in range(first, math.floor(high / step) + 1)]
    return [(number, datetime.fromtimestamp(number, UTC).strftime(shown)) for number in numbers]


def _told(axis: Mapping[str, Any], value: Any, step: float | None = None) -> str:
    if isinstance(value, str):
        return value
    text = formatted(value, str(axis["tickformat"])) if axis.get("tickformat") else _plain(float(value), step)
    return f"{axis.get('tickprefix') or ''}{text}{axis.get('ticksuffix') or ''}"


def _plain(value: float, step: float | None) -> str:
    if step is None:
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value + 0.0:,.{min(digits, 6)}f}"


def formatted(value: float, how: str) -> str:
    """A number in one of d3's formats that Python knows too, such as ``,.1f`` or ``.0%``; else as it is."""
    try:
        return format(value, how)
    except ValueError:
        return f"{value:,g}"
