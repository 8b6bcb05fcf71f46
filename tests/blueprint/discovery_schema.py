"""Google's own description of a resource's body, as a check: what it would refuse, line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from orchestra_lib.cloud.kinds import KINDS, Kind
from orchestra_lib.cloud.resource import JsonFile, Ref, Resource, Text

# Kinds whose body is the engine's own: parts of a policy, and that an API is enabled.
OWN_BODIES = frozenset(
    {
        "service",
        "roles",
        "grant",
        "service account roles",
        "repository roles",
        "secret roles",
        "run service roles",
        "audit logs",
    }
)
_NUMBERS = {"integer": int, "number": (int, float)}


@cache
def document(api: str) -> Mapping[str, Any]:
    return json.loads((files("googleapiclient.discovery_cache") / "documents" / f"{api}.json").read_bytes())


def methods(level: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from level.get("methods", {}).values()
    for inner in level.get("resources", {}).values():
        yield from methods(inner)


@cache
def method(api: str, name: str) -> Mapping[str, Any]:
    return next(one for one in methods(document(api)) if one["id"] == name)


def schema_of(kind: Kind) -> str:
    """The schema of a kind's body."""
    verb = {"billing": "updateBillingInfo"}.get(kind.name, kind.create)
    request = method(kind.api, f"{kind.collection}.{verb}")["request"]["$ref"]
    return document(kind.api)["schemas"][request]["properties"][kind.wrapped]["$ref"] if kind.wrapped else request


def refusals(resource: Resource) -> list[str]:
    """What is wrong with a body: unknown and read-only fields, wrong types, values that no enum has."""
    kind = KINDS[resource.kind]
    return list(_wrong(kind.api, {"$ref": schema_of(kind)}, resource.body, resource.kind))


def _wrong(api: str, schema: Mapping[str, Any], value: Any, place: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = document(api)["schemas"][schema["$ref"]]
    kind = schema.get("type", "object")
    if kind == "object":
        yield from _wrong_object(api, schema, value, place)
    elif kind == "array":
        if not isinstance(value, list):
            yield f"{place} is no list: {value!r}"
            return
        for index, item in enumerate(value):
            yield from _wrong(api, schema["items"], item, f"{place}[{index}]")
    elif kind == "string":
        if isinstance(value, Ref | Text | JsonFile):
            return
        if not isinstance(value, str):
            yield f"{place} is no text: {value!r}"
        elif "enum" in schema and value not in schema["enum"]:
            yield f"{place} is {value!r}, of {schema['enum']}"
    elif kind == "boolean":
        if not isinstance(value, bool):
            yield f"{place} is neither true nor false: {value!r}"
    elif isinstance(value, bool) or not isinstance(value, _NUMBERS[kind]):
        yield f"{place} is no {kind}: {value!r}"


def _wrong_object(api: str, schema: Mapping[str, Any], value: Any, place: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{place} is no mapping: {value!r}"
        return
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, item in value.items():
        if name in known and known[name].get("readOnly"):
            yield f"{place}.{name} is written by the service alone"
        elif name in known or others:
            yield from _wrong(api, known.get(name, others), item, f"{place}.{name}")
        else:
            yield f"{place}.{name} is unknown"
