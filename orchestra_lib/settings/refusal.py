"""One line for a setting that is refused: where it stands, what it is, and what is allowed there."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from orchestra_lib.secret import MASK
from orchestra_lib.settings.model import Settings

_KINDS: Mapping[type, str] = {
    bool: "a yes or no",
    int: "a whole number",
    float: "a number with decimals",
    str: "a text",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}
_WANTED: Mapping[str, str] = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
    "null": "nothing (null)",
}
_LIMITS = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))

Place = tuple[str, ...]


def refusal(error: Mapping[str, Any], path: Path, runbook: str | None, overrides: Mapping[Place, str]) -> str:
    """The line for one of pydantic's errors. ``overrides``: place of a setting -> parameter that was put there."""
    place = _known_part(error["loc"])
    key = ".".join(place)
    parameter = next((name for at, name in overrides.items() if place[: len(at)] == at), None)
    where = f"parameter {parameter}" if parameter else f"{path}: {key or 'the file'}"
    setting = f" (setting {key})" if parameter else ""
    kind = error["type"]
    if kind == "extra_forbidden":
        name = str(error["loc"][-1])
        shown_name = name if name.isprintable() else repr(name)
        return f"{path}: {'.'.join([*place, shown_name])} is no setting; {_meant(name, place)}"
    if kind == "missing":
        return f"{path}: {key} is missing; {_described(_schema(place))}"
    if kind == "value_error":
        with_these = [f"{name}" for at, name in overrides.items() if at[: len(place)] == place and at != place]
        changed = f" (with the parameter {', '.join(with_these)} of {runbook})" if with_these else ""
        return f"{where}{setting}{changed}: {error['ctx']['error']}"
    schema = _schema(place)
    value, its_kind = error["input"], _KINDS.get(type(error["input"]), type(error["input"]).__name__)
    shown = MASK if _is_secret(schema) else repr(value) if isinstance(value, str | int | float) else its_kind
    wrong_type = "" if shown == its_kind or value is None else f", {its_kind}"
    return f"{where} is {shown}{wrong_type}; allowed: {_described(schema)}{setting}"


def _meant(name: str, place: Place) -> str:
    known = sorted(_schema(place).get("properties", {}))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"allowed: {', '.join(known)}"


def _known_part(location: tuple[str | int, ...]) -> Place:
    """The part of a location that names settings: pydantic adds the member of a union that it tried."""
    place: Place = ()
    for part in location:
        if not _schema((*place, str(part))):
            break
        place = (*place, str(part))
    return place


@cache
def _whole() -> dict[str, Any]:
    return Settings.model_json_schema(by_alias=True)


def _schema(place: Place) -> dict[str, Any]:
    """The JSON schema of a setting; empty where there is no such setting."""
    schema = _whole()
    for part in place:
        if part.isdigit() and "items" in schema:
            schema = _resolved(schema["items"])
        elif part in schema.get("properties", {}):
            schema = _resolved(schema["properties"][part])
        else:
            return {}
    return schema


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return dict(_whole()["$defs"][schema["$ref"].rsplit("/", 1)[1]])
    sections = [_resolved(option) for option in schema.get("anyOf", []) if "$ref" in option]
    return sections[0] if sections else schema


def _is_secret(schema: dict[str, Any]) -> bool:
    return any(option.get("writeOnly") for option in (schema, *schema.get("anyOf", [])))


def _described(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_described(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    words = [_WANTED.get(schema.get("type", ""), "a value")]
    words += [f"{word} {schema[limit]}" for limit, word in _LIMITS if limit in schema]
    if "pattern" in schema:
        words.append(f"like {schema['pattern']}")
    if "enum" in schema.get("propertyNames", {}):
        words.append(f"with keys of {', '.join(schema['propertyNames']['enum'])}")
    if "properties" in schema:
        words.append(f"with {', '.join(schema['properties'])}")
    return " ".join(words)
