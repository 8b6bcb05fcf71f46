"""The rehearsal's settings as a mapping, and settings made from it with values of one's own."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from orchestra_lib import settings
from orchestra_lib.settings import Settings


@cache
def _whole() -> dict[str, Any]:
    content = settings.load("local").public()
    del content["taken"]
    return content


def content(**values: Any) -> dict[str, Any]:
    """Everything that local.yaml and what it rehearses say, with ``section__key=value`` put in."""
    changed = copy.deepcopy(_whole())
    for place, value in values.items():
        *sections, key = place.split("__")
        inner = changed
        for section in sections:
            inner = inner[section]
        inner[key] = value
    return changed


def with_values(**values: Any) -> Settings:
    """The rehearsal's settings with ``section__key=value`` put in."""
    return Settings.model_validate(content(**values))
