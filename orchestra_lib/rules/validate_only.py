"""Which changes Google Cloud checks without making them: the calls with ``validateOnly``, from the discovery documents.

A call that passes was not refused; how deep each service looks is documented nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

from orchestra_lib.cloud.discovery import document
from orchestra_lib.rules.known import revision

_FIELD = "validateOnly"
APIS = (
    "workstations.v1",
    "alloydb.v1",
    "run.v2",
    "monitoring.v1",
    "monitoring.v3",
    "apigateway.v1",
    "artifactregistry.v1",
    "billingbudgets.v1",
    "cloudbuild.v1",
    "cloudresourcemanager.v3",
    "compute.v1",
    "developerconnect.v1",
    "iam.v1",
    "logging.v2",
    "orgpolicy.v2",
    "secretmanager.v1",
    "servicenetworking.v1",
    "serviceusage.v1",
)
"""The APIs that the plan of all phases calls."""


@dataclass(frozen=True)
class Rehearsable:
    """A call that can be checked without being made: ``in_body`` or in the query. Known on the day ``revision``."""

    api: str
    method: str
    in_body: bool
    revision: date

    @property
    def creates(self) -> bool:
        """Whether the call makes something."""
        return self.method.rpartition(".")[2] in ("create", "createsecondary", "insert", "restore")


@cache
def rehearsable(api: str) -> tuple[Rehearsable, ...]:
    """The calls of an API that take ``validateOnly``, in the order of its document."""
    of = document(api)
    return tuple(
        Rehearsable(api, method["id"], _FIELD not in method.get("parameters", {}), revision(api))
        for method in _methods(of)
        if _FIELD in method.get("parameters", {}) or _FIELD in _body(of, method)
    )


def table() -> Mapping[str, tuple[Rehearsable, ...]]:
    """API -> its calls that can be checked; empty for one that has none."""
    return {api: rehearsable(api) for api in APIS}


def can_rehearse(api: str, method: str) -> bool:
    """Whether a call, by its id such as ``run.projects.locations.services.create``, takes ``validateOnly``."""
    return any(one.method == method for one in rehearsable(api))


def _body(of: Mapping[str, Any], method: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = method.get("request", {}).get("$ref")
    properties: Mapping[str, Any] = of["schemas"].get(schema, {}).get("properties", {}) if schema else {}
    return properties


def _methods(level: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from level.get("methods", {}).values()
    for resource in level.get("resources", {}).values():
        yield from _methods(resource)
