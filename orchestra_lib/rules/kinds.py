"""How the value of a setting is read for a rule: its type, in words and as a function that refuses everything else."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_UNITS = {
    "": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KB": 10**3, "MB": 10**6, "GB": 10**9,
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """``read`` returns the value, or None for one of another type."""

    words: str
    read: Callable[[Any], Any]


@dataclass(frozen=True)
class Quantity:
    """An amount of memory as it was written, and in bytes."""

    text: str
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.text} ({self.size_bytes:,} bytes)"


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return None


def _mappings(value: Any) -> tuple[Mapping[str, Any], ...] | None:
    if isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
        return tuple(value)
    return None


def _quantity(value: Any) -> Quantity | None:
    match = re.fullmatch(r"([1-9][0-9]{0,11}) ?([KMG]i?|[KMG]B|)", value) if isinstance(value, str) else None
    return Quantity(value, int(match[1]) * _UNITS[match[2]]) if match else None


def _network(value: Any) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _anything(value: Any) -> Any:
    return value


WHOLE = Kind("a whole number", _whole)
NUMBER = Kind("a number", _number)
TEXT = Kind("a text", _text)
TEXTS = Kind("a list of texts", _texts)
FLAG = Kind("true or false", lambda value: value if isinstance(value, bool) else None)
MAPPING = Kind("a mapping", lambda value: value if isinstance(value, Mapping) else None)
MAPPINGS = Kind("a list of mappings", _mappings)
QUANTITY = Kind("an amount of memory, such as 2Gi", _quantity)
NETWORK = Kind("a range of addresses, such as 10.10.0.0/24", _network)
ANYTHING = Kind("anything", _anything)
