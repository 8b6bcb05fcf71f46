"""What differs between a wanted body and a live one, field by field. Pure.

Only fields that somebody asked for count: what a service fills in by itself is not a difference. A field that was
applied before and is wanted no more is one, as in a three-way merge.
https://kubernetes.io/docs/reference/using-api/server-side-apply
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_COMPUTE_HOST = re.compile(r"^https://(www|compute)\.googleapis\.com/compute/(v1|beta)/")
_DURATION = re.compile(r"^-?\d+(\.\d+)?s$")


@dataclass(frozen=True)
class FieldDiff:
    """One field: its path with dots, what it is and what it is to be (JSON values; None for not set)."""

    path: str
    before: Any
    after: Any

    @property
    def field(self) -> str:
        """The top-level field that holds it."""
        return self.path.split(".", 1)[0].split("[", 1)[0]

    def __str__(self) -> str:
        return f"{self.path}: {_short(self.before)} → {_short(self.after)}"


def is_rows(value: Any) -> bool:
    """Whether a value is a list of messages."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(row, Mapping) for row in value)


@dataclass(frozen=True)
class Comparison:
    """How values are compared: ``aliases`` are other spellings of names (a project's number), ``sets`` unordered.

    Top-level fields that are ``left_alone`` never differ.
    """

    aliases: Mapping[str, str]
    sets: frozenset[str] = frozenset()
    left_alone: frozenset[str] = frozenset()

    def differences(
        self, wanted: Mapping[str, Any], live: Mapping[str, Any], applied: Mapping[str, Any] | None = None
    ) -> tuple[FieldDiff, ...]:
        """The fields in which the live body is not what is wanted, in the order of their paths."""
        compared = (self._compared(body) for body in (wanted, live, applied or {}))
        return tuple(sorted(self._of_mapping("", *compared), key=lambda diff: diff.path))

    def canonical(self, value: Any) -> Any:
        """A value in the one spelling that it is compared in."""
        if isinstance(value, str):
            return self._canonical_text(value)
        if isinstance(value, Mapping):
            return {name: self.canonical(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.canonical(item) for item in value]
        return value

    def _compared(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in body.items() if name not in self.left_alone}

    def _of_mapping(
        self, path: str, wanted: Mapping[str, Any], live: Mapping[str, Any], applied: Mapping[str, Any]
    ) -> list[FieldDiff]:
        found = []
        for name in (*wanted, *(name for name in applied if name not in wanted)):
            here = f"{path}.{name}" if path else name
            found += self._of_value(here, wanted.get(name), live.get(name), applied.get(name))
        return found

    def _of_value(self, path: str, wanted: Any, live: Any, applied: Any) -> list[FieldDiff]:
        if isinstance(wanted, Mapping) and isinstance(live, Mapping):
            return self._of_mapping(path, wanted, live, applied if isinstance(applied, Mapping) else {})
        if is_rows(wanted) and is_rows(live) and len(wanted) == len(live):
            before = applied if is_rows(applied) and len(applied) == len(wanted) else [{}] * len(wanted)
            rows = zip(wanted, live, before, strict=True)
            return [diff for index, row in enumerate(rows) for diff in self._of_mapping(f"{path}[{index}]", *row)]
        return [] if self._same(path, wanted, live) else [FieldDiff(path, live, wanted)]

    def _same(self, path: str, wanted: Any, live: Any) -> bool:
        wanted, live = self.canonical(wanted), self.canonical(live)
        if _is_empty(wanted) and _is_empty(live):
            return True  # JSON leaves out what has its type's default
        if isinstance(wanted, list) and isinstance(live, list) and path.rsplit(".", 1)[-1] in self.sets:
            return sorted(map(str, wanted)) == sorted(map(str, live))
        if {_is_number(wanted), _is_number(live)} == {True, False} and str in (type(wanted), type(live)):
            return str(wanted) == str(live)  # 64-bit integers are texts in JSON
        return bool(wanted == live)

    def _canonical_text(self, text: str) -> str:
        if _DURATION.match(text):
            return f"{float(text[:-1]):g}s"
        plain = _COMPUTE_HOST.sub("", text)
        for other, name in self.aliases.items():
            if plain == other or plain.startswith(f"{other}/"):
                return name + plain[len(other) :]
        return plain


def _is_empty(value: Any) -> bool:
    return value in (None, False, 0, "", [], {})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
