"""Which calls there are: the discovery documents inside google-api-python-client, compiled into a route table.

The documents are Google's own description of each API: paths, parameters, schemas, enums, what is read-only, required
or immutable. https://developers.google.com/discovery/v1/reference/apis
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from orchestra_lib.local.control.enum_numbers import NUMBERS
from orchestra_lib.local.control.left_out import completed

APIS = (
    "aiplatform.v1",
    "aiplatform.v1beta1",
    "alloydb.v1",
    "alloydb.v1beta",
    "apigateway.v1",
    "artifactregistry.v1beta2",
    "artifactregistry.v1",
    "billingbudgets.v1",
    "cloudbilling.v1",
    "cloudbuild.v1",
    "cloudbuild.v2",
    "cloudresourcemanager.v1",
    "cloudresourcemanager.v3",
    "compute.v1",
    "iam.v1",
    "iam.v2",
    "iamcredentials.v1",
    "logging.v2",
    "monitoring.v1",
    "monitoring.v3",
    "networkconnectivity.v1",
    "orgpolicy.v2",
    "run.v2",
    "secretmanager.v1",
    "servicenetworking.v1",
    "serviceusage.v1",
    "serviceusage.v1beta1",
    "workstations.v1",
    "workstations.v1beta",
)
"""Every document that is served. Versions of one service share their resources; the one that counts comes last."""

ENUM_NUMBERS = "enumNumbers"
"""The key of a schema that holds the numbers of enum values that differ from their places."""
_ANY_SEGMENT = "*"
_REST_OF_PATH = "**"
_REQUIRED = re.compile(r"^\W*Required(?! (if|when|for|only|unless)\b)\b")
_IMMUTABLE = re.compile(r"\bImmutable\b")
_OUTPUT_ONLY = re.compile(r"^\W*(Output only\b|\[Output Only\])", re.IGNORECASE)
_INPUT_ONLY = re.compile(r"\bInput only\b", re.IGNORECASE)


@dataclass(frozen=True)
class Property:
    """One field of a schema: its JSON schema, and what the document says about who may write it."""

    schema: Mapping[str, Any]
    read_only: bool
    immutable: bool
    input_only: bool
    required: bool
    required_methods: frozenset[str]
    """Ids of the methods that want it; the older documents name them."""

    def required_by(self, method_id: str) -> bool:
        """Whether a method wants the field."""
        return self.required or method_id in self.required_methods


@dataclass(frozen=True)
class Schema:
    """One message type."""

    name: str
    properties: Mapping[str, Property]

    @cached_property
    def by_camel_name(self) -> Mapping[str, str]:
        """The field's own name for each spelling of it that Google's JSON parser takes."""
        return {**{snake(name): name for name in self.properties}, **{name: name for name in self.properties}}


@dataclass(eq=False)
class Api:
    """One document: a service in one version."""

    service: str
    version: str
    title: str
    package: str
    host: str
    prefix: tuple[str, ...]
    """The first segments of its paths: ``("v1",)``, ``("compute", "v1")``."""
    parameters: frozenset[str]
    """Query parameters that every method takes."""
    raw_schemas: Mapping[str, Mapping[str, Any]] = field(repr=False)
    _schemas: dict[str, Schema] = field(default_factory=dict, repr=False)

    def schema(self, name: str) -> Schema:
        """The compiled schema; KeyError when the document has none of that name."""
        if name not in self._schemas:
            properties = self.raw_schemas[name].get("properties", {})
            self._schemas[name] = Schema(name, {key: _property(raw) for key, raw in properties.items()})
        return self._schemas[name]

    def message_type(self, schema_name: str) -> str:
        """The ``@type`` that stands before a message: ``type.googleapis.com/google.cloud.alloydb.v1.Cluster``."""
        return f"type.googleapis.com/{self.package}.{self.version}.{self.message_name(schema_name)}"

    def message_name(self, schema_name: str) -> str:
        """The message's own name: the documents put the package in front of some."""
        return re.sub(r"^(GoogleCloud\w*?V\d[a-z\d]*|GoogleIamV2|Google|Apigateway)(?=[A-Z])", "", schema_name)


@dataclass(frozen=True)
class Method:
    """One call. ``template`` holds the path after the version, ``*`` for a segment that the caller chooses."""

    id: str
    api: Api
    http_method: str
    template: tuple[str, ...]
    verb: str
    request: str | None
    response: str | None
    parameters: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        """``create``, ``setIamPolicy``: the last part of the id."""
        return self.id.rsplit(".", 1)[-1]

    @cached_property
    def permission(self) -> str:
        """The IAM permission that the call needs, as Google derives most of them: ``alloydb.clusters.create``."""
        collection, verb = self.short_id.split(".")
        verb = {"insert": "create", "patch": "update", "aggregatedList": "list"}.get(verb, verb)
        service = self.api.service
        return f"{_PERMISSION_PREFIXES.get(service, service)}.{collection}.{verb}"

    @cached_property
    def short_id(self) -> str:
        """``clusters.create``: the id without the service and the levels above the collection."""
        return ".".join(self.id.split(".")[-2:])

    @cached_property
    def query_parameters(self) -> frozenset[str]:
        """The names of the query parameters of its own."""
        return frozenset(name for name, raw in self.parameters.items() if raw.get("location") == "query")

    @cached_property
    def path_parameters(self) -> frozenset[str]:
        """The names of the parameters in its path."""
        return frozenset(name for name, raw in self.parameters.items() if raw.get("location") == "path")

    @cached_property
    def is_operation(self) -> bool:
        """Whether the answer is a long-running operation."""
        return self.response is not None and self.response.endswith("Operation")


_PERMISSION_PREFIXES = {
    "billingbudgets": "billing",
    "cloudbilling": "billing",
    "cloudresourcemanager": "resourcemanager",
}


@dataclass
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    methods: dict[tuple[str, str], Method] = field(default_factory=dict)


class Catalog:
    """All methods of all APIs, found by service, HTTP method and path."""

    def __init__(self, names: tuple[str, ...] = APIS) -> None:
        self.apis: dict[tuple[str, str], Api] = {}
        self.services: set[str] = set()
        self.size = 0
        self._roots: dict[str, _Node] = {}
        for name in names:
            self._add(completed(_document(name)))

    def find(self, service: str, http_method: str, segments: tuple[str, ...]) -> tuple[Method, str] | None:
        """The method for a path and its resource path without the version (and without ``:verb``); None if unknown.

        An id that spans several segments (``metricDescriptors/custom.googleapis.com/x``) becomes one, its slashes
        quoted.
        """
        root = self._roots.get(service)
        if root is None or not segments:
            return None
        last, colon, verb = segments[-1].rpartition(":")
        if colon:
            plain = (*segments[:-1], last)
            found = _find(root, plain, 0, (http_method, verb))
            if found:
                return found, _resource_path(found, plain)
        found = _find(root, segments, 0, (http_method, ""))
        return (found, _resource_path(found, segments)) if found else None

    def resource_schema(self, api: Api, path: str) -> str | None:
        """The name of the schema of the resource at a path (without the version): what a get of it answers."""
        for http_method, field_name in (("GET", "response"), ("PATCH", "request"), ("PUT", "request")):
            found = self._at(api, http_method, path)
            if found and not found.verb and (name := getattr(found, field_name)):
                return str(name)
        found = self._at(api, "POST", path.rpartition("/")[0])
        return found.request if found else None

    def creates(self, api: Api, collection_path: str) -> bool:
        """Whether resources of the collection are made by a call."""
        found = self._at(api, "POST", collection_path)
        return found is not None and found.name in ("create", "insert")

    def _at(self, api: Api, http_method: str, path: str) -> Method | None:
        found = _find(self._roots[api.service], (*api.prefix, *path.split("/")), 0, (http_method, ""))
        return found if found and found.api is api else None

    def methods(self) -> Iterator[Method]:
        """Every method."""
        for root in self._roots.values():
            yield from _walk(root)

    def _add(self, document: Mapping[str, Any]) -> None:
        service = document["name"]
        host = document["rootUrl"].removeprefix("https://").rstrip("/")
        api = Api(
            service=service,
            version=document["version"],
            title=document["title"],
            package=_PACKAGES.get(service, f"google.cloud.{service}"),
            host=host,
            prefix=tuple(part for part in document["servicePath"].split("/") if part) or (document["version"],),
            parameters=frozenset(document["parameters"]),
            raw_schemas=document.get("schemas", {}),
        )
        self.apis[service, api.version] = api
        _number_enums(api)
        self.services.add(service)
        root = self._roots.setdefault(service, _Node())
        for raw in _raw_methods(document):
            self._insert(root, _method(api, raw))

    def _insert(self, root: _Node, method: Method) -> None:
        node = root
        for segment in method.api.prefix + method.template:
            node = node.children.setdefault(segment, _Node())
        # The plain form of a path comes first in a document; later ones repeat it for folders and organisations.
        node.methods.setdefault((method.http_method, method.verb), method)
        self.size += 1


def _number_enums(api: Api) -> None:
    """Write the numbers that differ from the values' places beside the values."""
    rows = NUMBERS.get(api.service)
    if rows is None:
        return
    for name, raw in api.raw_schemas.items():
        message = api.message_name(name)
        for field_name, schema in raw.get("properties", {}).items():
            numbers = rows.get(f"{message}.{field_name}")
            if numbers:
                schema.get("items", schema)[ENUM_NUMBERS] = numbers


@cache
def whole() -> Catalog:
    """The catalog of every API that is served; compiled once a process."""
    return Catalog()


def snake(name: str) -> str:
    """``maxRetries`` as ``max_retries``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _document(name: str) -> Mapping[str, Any]:
    folder = importlib.resources.files("googleapiclient.discovery_cache") / "documents"
    loaded: Mapping[str, Any] = json.loads((folder / f"{name}.json").read_bytes())
    return loaded


def _raw_methods(level: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from level.get("methods", {}).values()
    for resource in level.get("resources", {}).values():
        yield from _raw_methods(resource)


def _method(api: Api, raw: Mapping[str, Any]) -> Method:
    *front, tail = _segments(raw)
    last, _, verb = tail.partition(":")
    segments = (*front, last)
    return Method(
        id=raw["id"],
        api=api,
        http_method=raw["httpMethod"],
        template=segments if api.prefix != (api.version,) else segments[1:],
        verb=verb,
        request=raw.get("request", {}).get("$ref"),
        response=raw.get("response", {}).get("$ref"),
        parameters=raw.get("parameters", {}),
    )


def _segments(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The path as segments; a variable that spans several is spelt out by its pattern."""
    path = raw["path"]
    for name, parameter in raw.get("parameters", {}).items():
        pattern = parameter.get("pattern")
        if f"{{+{name}}}" in path and pattern:
            plain = pattern.strip("^$").replace("\\", "").replace("[^/]+", _ANY_SEGMENT).replace(".*", _REST_OF_PATH)
            path = path.replace(f"{{+{name}}}", plain)
    return tuple(re.sub(r"\{[^}]+\}", _ANY_SEGMENT, segment) for segment in path.split("/"))


def _find(node: _Node, segments: tuple[str, ...], depth: int, wanted: tuple[str, str]) -> Method | None:
    if depth == len(segments):
        return node.methods.get(wanted)
    for key in (segments[depth], _ANY_SEGMENT):
        child = node.children.get(key)
        found = _find(child, segments, depth + 1, wanted) if child else None
        if found:
            return found
    rest = node.children.get(_REST_OF_PATH)
    return rest.methods.get(wanted) if rest else None


def _resource_path(method: Method, segments: tuple[str, ...]) -> str:
    own = segments[len(method.api.prefix) :]
    if method.template[-1:] == (_REST_OF_PATH,):
        fixed = len(method.template) - 1
        own = (*own[:fixed], "%2F".join(own[fixed:]))
    return "/".join(own)


def _walk(node: _Node) -> Iterator[Method]:
    yield from node.methods.values()
    for child in node.children.values():
        yield from _walk(child)


def _property(raw: Mapping[str, Any]) -> Property:
    description = raw.get("description", "")
    return Property(
        schema=raw,
        read_only=bool(raw.get("readOnly")) or bool(_OUTPUT_ONLY.match(description)),
        immutable=bool(_IMMUTABLE.search(description[:200])),
        input_only=bool(_INPUT_ONLY.search(description[:200])),
        # An absent false or zero is the same message as a present one, so nobody can ask for it.
        required=bool(_REQUIRED.match(description)) and raw.get("type") not in ("boolean", "integer", "number"),
        required_methods=frozenset(raw.get("annotations", {}).get("required", ())),
    )


# The protobuf package of each service's messages, without the version: the documents do not say it.
_PACKAGES = {
    "aiplatform": "google.cloud.aiplatform",
    "alloydb": "google.cloud.alloydb",
    "apigateway": "google.cloud.apigateway",
    "artifactregistry": "google.devtools.artifactregistry",
    "cloudbuild": "google.devtools.cloudbuild",
    "cloudresourcemanager": "google.cloud.resourcemanager",
    "iam": "google.iam",
    "logging": "google.logging",
    "monitoring": "google.monitoring",
    "run": "google.cloud.run",
    "secretmanager": "google.cloud.secretmanager",
    "servicenetworking": "google.cloud.servicenetworking",
    "serviceusage": "google.api.serviceusage",
    "workstations": "google.cloud.workstations",
}
