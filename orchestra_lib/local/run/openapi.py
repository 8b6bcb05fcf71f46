"""What of an OpenAPI document API Gateway goes by: paths, methods, backends, who may call.

https://cloud.google.com/api-gateway/docs/openapi-overview and https://cloud.google.com/endpoints/docs/openapi/openapi-extensions
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_CONSTANT, _APPEND = "CONSTANT_ADDRESS", "APPEND_PATH_TO_ADDRESS"
_DEADLINE_SECONDS = 15.0
_PARAMETER = re.compile(r"\{([^{}]+)\}")


class DocumentError(Exception):
    """The document cannot be served; the message says what is wrong, and where."""


@dataclass(frozen=True)
class Backend:
    """Where the requests of an operation go."""

    address: str
    appends_path: bool
    audience: str | None
    """For whom the gateway's token is made; None if it sends none."""
    deadline_seconds: float


@dataclass(frozen=True)
class Caller:
    """Whose tokens an operation takes."""

    issuer: str
    audiences: frozenset[str]


@dataclass(frozen=True)
class Route:
    """One path of the document with its methods."""

    template: str
    pattern: re.Pattern[str]
    names: tuple[str, ...]
    backends: Mapping[str, Backend]
    """By method, in capitals."""
    callers: Mapping[str, tuple[Caller, ...]]
    """By method; empty for everybody."""

    def url(self, method: str, path: str, query: str) -> str:
        """Where a request is sent: a constant address gets what the path held as parameters."""
        backend = self.backends[method]
        if backend.appends_path:
            return f"{backend.address.rstrip('/')}{path}{'?' if query else ''}{query}"
        found = self.pattern.fullmatch(path)
        values = found.groups() if found else ("",) * len(self.names)
        given = [f"{name}={value}" for name, value in zip(self.names, values, strict=True)]
        whole = "&".join([*given, *([query] if query else [])])
        return f"{backend.address}{'?' if whole else ''}{whole}"


def routes_of(contents: str) -> tuple[Route, ...]:
    """The routes of a document in base64, those without parameters first. Raises DocumentError."""
    try:
        document = yaml.safe_load(base64.b64decode(contents, validate=True))
    except (binascii.Error, ValueError, yaml.YAMLError) as error:
        raise DocumentError(f"the document is no YAML or JSON in base64: {error}") from error
    if not isinstance(document, dict) or not ("swagger" in document or "openapi" in document):
        raise DocumentError("the document says neither 'swagger' nor 'openapi'")
    if not document.get("paths"):
        raise DocumentError("the document has no paths")
    base = str(document.get("basePath", "")).rstrip("/")
    routes = [_route(base, path, item, document) for path, item in document["paths"].items()]
    return tuple(sorted(routes, key=lambda route: len(route.names)))


def _route(base: str, path: str, item: Mapping[str, Any], document: Mapping[str, Any]) -> Route:
    template = f"{base}{path}"
    operations = {method.upper(): one for method, one in item.items() if method in _METHODS}
    parts = _PARAMETER.split(template)
    pattern = "".join(re.escape(part) if at % 2 == 0 else "([^/]+)" for at, part in enumerate(parts))
    return Route(
        template=template,
        pattern=re.compile(pattern),
        names=tuple(parts[1::2]),
        backends={method: _backend(template, one, item, document) for method, one in operations.items()},
        callers={method: tuple(_callers(template, one, document)) for method, one in operations.items()},
    )


def _backend(
    template: str, operation: Mapping[str, Any], item: Mapping[str, Any], document: Mapping[str, Any]
) -> Backend:
    own = operation.get("x-google-backend") or item.get("x-google-backend")
    given = own or document.get("x-google-backend")
    if not given or not given.get("address"):
        raise DocumentError(f"{template} has no x-google-backend with an address")
    translation = given.get("path_translation", _CONSTANT if own else _APPEND)
    if translation not in (_CONSTANT, _APPEND):
        raise DocumentError(f"{template}: path_translation is {_CONSTANT} or {_APPEND}, not {translation}")
    address = given["address"]
    audience = None if given.get("disable_auth") else given.get("jwt_audience", address)
    return Backend(address, translation == _APPEND, audience, float(given.get("deadline", _DEADLINE_SECONDS)))


def _callers(template: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Caller]:
    """Any of these may call. Raises DocumentError for a way to know callers that there is not here."""
    known = document.get("securityDefinitions") or document.get("components", {}).get("securitySchemes", {})
    for requirement in operation.get("security", document.get("security", ())):
        for name in requirement:
            scheme = known.get(name)
            if scheme is None:
                raise DocumentError(f"{template} asks for '{name}', which is not among the security definitions")
            issuer = scheme.get("x-google-issuer")
            if issuer is None:
                words = "the local API Gateway checks tokens with an x-google-issuer, no API keys"
                raise DocumentError(f"{template}: '{name}' is of type {scheme.get('type')}; {words}")
            audiences = str(scheme.get("x-google-audiences", ""))
            yield Caller(issuer, frozenset(part.strip() for part in audiences.split(",") if part.strip()))
