"""What Google's discovery documents say of a call: its parameters, its operation, the fields a service writes alone.

The documents lie inside google-api-python-client. https://developers.google.com/discovery/v1/reference/apis
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

_OUTPUT_ONLY = re.compile(r"^\W*(output only\b|\[output only\])", re.IGNORECASE)
_IMMUTABLE = re.compile(r"\bImmutable\b")
# Written by the service at every change whatever the document calls them.
_VERSIONS = frozenset({"etag", "fingerprint", "labelFingerprint"})


@dataclass(frozen=True)
class Method:
    """One call of one API, as its document describes it."""

    id: str
    api: str
    http_method: str
    path: str
    parameters: Mapping[str, Mapping[str, Any]]
    request: str | None
    response: str | None

    @property
    def answers_operation(self) -> bool:
        """Whether the answer is a long-running operation."""
        return bool(self.response and self.response.endswith("Operation"))

    @property
    def reads_only(self) -> bool:
        """Whether the call changes nothing."""
        return self.http_method == "GET" or self.id.endswith((".getIamPolicy", ".testIamPermissions", ".wait"))

    def arguments(self, path: str) -> dict[str, str]:
        """The path parameters that give this path (without the API's version, with a ``:verb``).

        Raises ValueError when the path is not one of this method's.
        """
        template = re.sub(r"^v\d\w*/", "", self.path)
        pattern = "".join(
            f"(?P<{part[2:-1]}>.+)"
            if part.startswith("{+")
            else f"(?P<{part[1:-1]}>[^/]+)"
            if part[:1] == "{"
            else re.escape(part)
            for part in re.split(r"(\{[^}]+\})", template)
        )
        match = re.fullmatch(pattern, path)
        if not match:
            raise ValueError(f"{path} is no path of {self.id}, which has {template}")
        return match.groupdict()


@cache
def document(api: str) -> Mapping[str, Any]:
    """The discovery document of an API such as ``compute.v1``. Raises FileNotFoundError for one that there is not."""
    folder = importlib.resources.files("googleapiclient.discovery_cache") / "documents"
    loaded: Mapping[str, Any] = json.loads((folder / f"{api}.json").read_bytes())
    return loaded


@cache
def method(api: str, method_id: str) -> Method:
    """The method with that id. Raises KeyError when the API has none."""
    return _methods(api)[method_id]


def has_method(api: str, method_id: str) -> bool:
    """Whether the API has a method with that id."""
    return method_id in _methods(api)


def operation_method(api: str, name: str) -> Method:
    """The method that reads an operation of that name. Raises KeyError when no method of the API does."""
    for found in _methods(api).values():
        pattern = found.parameters.get("name", {}).get("pattern")
        if found.id.endswith("operations.get") and pattern and re.match(pattern, name):
            return found
    raise KeyError(f"{api} reads no operation named {name}")


def without_output_only(api: str, schema: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """A body without what the service alone writes: output-only fields, etags and fingerprints, at every depth."""
    properties = document(api)["schemas"].get(schema, {}).get("properties", {})
    return {
        name: _without(api, properties.get(name, {}), value)
        for name, value in body.items()
        if name not in _VERSIONS and not _is_output_only(properties.get(name, {}))
    }


@cache
def immutable_fields(api: str, schema: str) -> frozenset[str]:
    """The top-level fields that the document says can never be changed."""
    properties = document(api)["schemas"].get(schema, {}).get("properties", {})
    return frozenset(
        name
        for name, known in properties.items()
        if _IMMUTABLE.search(known.get("description", "")[:200]) and not _is_output_only(known)
    )


def has_field(api: str, schema: str, name: str) -> bool:
    """Whether the schema has a top-level field of that name."""
    return name in document(api)["schemas"].get(schema, {}).get("properties", {})


@cache
def _methods(api: str) -> Mapping[str, Method]:
    return {raw["id"]: _method(api, raw) for raw in _raw_methods(document(api))}


def _raw_methods(level: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from level.get("methods", {}).values()
    for resource in level.get("resources", {}).values():
        yield from _raw_methods(resource)


def _method(api: str, raw: Mapping[str, Any]) -> Method:
    return Method(
        id=raw["id"],
        api=api,
        http_method=raw["httpMethod"],
        path=raw["path"],
        parameters=raw.get("parameters", {}),
        request=raw.get("request", {}).get("$ref"),
        response=raw.get("response", {}).get("$ref"),
    )


def _pattern(part: str) -> str:
    if part.startswith("{+"):
        return f"(?P<{part[2:-1]}>.+)"
    return f"(?P<{part[1:-1]}>[^/]+)" if part.startswith("{") else re.escape(part)


def _is_output_only(known: Mapping[str, Any]) -> bool:
    return bool(known.get("readOnly")) or bool(_OUTPUT_ONLY.match(known.get("description", "")))


def _without(api: str, schema: Mapping[str, Any], value: Any) -> Any:
    if "$ref" in schema and isinstance(value, Mapping):
        return without_output_only(api, schema["$ref"], value)
    if isinstance(value, list):
        return [_without(api, schema.get("items", {}), item) for item in value]
    if isinstance(value, Mapping) and isinstance(schema.get("additionalProperties"), Mapping):
        return {name: _without(api, schema["additionalProperties"], item) for name, item in value.items()}
    return value
