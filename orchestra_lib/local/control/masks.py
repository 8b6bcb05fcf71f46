"""Which fields an update touches. https://google.aip.dev/134"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from orchestra_lib.local.control.catalog import Api
from orchestra_lib.local.control.faults import bad_field


def paths_of(mask: str, api: Api, schema_name: str) -> tuple[tuple[str, ...], ...]:
    """The paths of an ``updateMask``, in camel case. Raises Fault (400) for one that the schema does not have."""
    paths = [part.strip() for part in mask.split(",") if part.strip()]
    return tuple(_path(text, api, schema_name) for text in paths)


def apply(before: Mapping[str, Any], given: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    """The resource after the update: each path takes the given value, or goes when none was given."""
    after = copy.deepcopy(dict(before))
    for path in paths:
        _set(after, path, _at(given, path))
    return after


def replace(before: Mapping[str, Any], given: Mapping[str, Any], api: Api, schema_name: str) -> dict[str, Any]:
    """The resource after a full replacement: what only the service writes stays, the rest is what was given."""
    properties = api.schema(schema_name).properties
    kept = {
        name: value
        for name, value in before.items()
        if name not in properties or properties[name].read_only or properties[name].immutable
    }
    return {**kept, **copy.deepcopy(dict(given))}


def camel(path: str) -> str:
    """``create_time`` as ``createTime``."""
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), path)


def merge(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch, as compute's PATCH does it: objects are merged, everything else is replaced. RFC 7396."""
    after = dict(before)
    for name, value in given.items():
        old = after.get(name)
        if value is None:
            after.pop(name, None)
        elif isinstance(value, dict) and isinstance(old, dict):
            after[name] = merge(old, value)
        else:
            after[name] = value
    return after


def _path(text: str, api: Api, schema_name: str) -> tuple[str, ...]:
    if text == "*":
        return ("*",)
    steps: list[str] = []
    level: Mapping[str, Any] = {"$ref": schema_name}
    for step in re.split(r"\.(?![^`]*`(?:[^`]*`[^`]*`)*[^`]*$)", text):
        reference = level.get("$ref")
        properties = api.raw_schemas[reference].get("properties") if reference else None
        if properties:
            name = api.schema(str(reference)).by_camel_name.get(step)
            if name is None:
                raise bad_field("update_mask", f"Invalid field mask: unknown path '{text}' for {reference}.")
            steps.append(name)
            level = properties[name]
        else:
            steps.append(step.strip("`"))
            level = level.get("additionalProperties", {})
    return tuple(steps)


def _at(value: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = value
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _set(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for step in path[:-1]:
        target = target.setdefault(step, {})
    if value is None:
        target.pop(path[-1], None)
    else:
        target[path[-1]] = value
