"""Methods and values that Google serves and its discovery documents leave out, in the form of such a document.

``generateClientCertificate`` stands in AlloyDB's protocol buffers and in its generated clients.
https://cloud.google.com/alloydb/docs/reference/rpc/google.cloud.alloydb.v1beta#alloydbadmin
Operations on Cloud Build's worker pools have names below the pool, and are read there.
Compute's lists take ``returnPartialSuccess``, which gcloud sends with most of them.
https://cloud.google.com/compute/docs/reference/rest/v1/networks/list
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CLUSTER = {"location": "path", "pattern": "^projects/[^/]+/locations/[^/]+/clusters/[^/]+$", "required": True}
_POOL_OPERATION = {"location": "path", "required": True}
_POOL_OPERATION |= {"pattern": "^projects/[^/]+/locations/[^/]+/workerPools/[^/]+/operations/[^/]+$"}
_TEXT, _FLAG = {"type": "string"}, {"type": "boolean"}

METHODS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "alloydb": (
        {
            "id": "alloydb.projects.locations.clusters.generateClientCertificate",
            "httpMethod": "POST",
            "path": "{version}/{+parent}:generateClientCertificate",
            "parameters": {"parent": _CLUSTER},
            "request": {"$ref": "GenerateClientCertificateRequest"},
            "response": {"$ref": "GenerateClientCertificateResponse"},
        },
    ),
    "cloudbuild": (
        {
            "id": "cloudbuild.projects.locations.workerPools.operations.get",
            "httpMethod": "GET",
            "path": "{version}/{+name}",
            "parameters": {"name": _POOL_OPERATION},
            "response": {"$ref": "Operation"},
        },
    ),
}
"""By service; ``{version}`` stands for the version of the document that it is added to."""

SCHEMAS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "alloydb": {
        "GenerateClientCertificateRequest": {
            "type": "object",
            "properties": {
                "requestId": _TEXT,
                "pemCsr": _TEXT,
                "certDuration": {"type": "string", "format": "google-duration"},
                "publicKey": _TEXT,
                "useMetadataExchange": _FLAG,
            },
        },
        "GenerateClientCertificateResponse": {
            "type": "object",
            "properties": {
                "pemCertificate": {**_TEXT, "readOnly": True},
                "pemCertificateChain": {"type": "array", "items": _TEXT, "readOnly": True},
                "caCert": _TEXT,
            },
        },
    }
}

ENUM_VALUES: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "compute": (("RouterNat", "natIpAllocateOption", "USE_SHARED_RANGES"),),
}
"""By service: schema, field and a value that the service was seen to take."""

LIST_PARAMETERS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "compute": {"returnPartialSuccess": {"location": "query", "type": "boolean"}},
}
"""By service: what every method takes that answers in pages."""
_PAGED_BY = "maxResults"

SHOWN: Mapping[str, tuple[tuple[str, str], ...]] = {"secretmanager": (("Rotation", "rotationPeriod"),)}
"""By service: schema and a field that the document calls input only and the service was seen to show."""


def completed(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document with what was left out of it."""
    service, version = document["name"], document["version"]
    for schema, field, value in ENUM_VALUES.get(service, ()):
        document["schemas"][schema]["properties"][field]["enum"].append(value)
    for schema, field in SHOWN.get(service, ()):
        known = document["schemas"][schema]["properties"][field]
        known["description"] = known["description"].replace("Input only. ", "")
    if service in LIST_PARAMETERS:
        _complete_lists(document, LIST_PARAMETERS[service])
    if service not in METHODS:
        return document
    methods = {raw["id"]: {**raw, "path": raw["path"].replace("{version}", version)} for raw in METHODS[service]}
    return {
        **document,
        "methods": {**document.get("methods", {}), **methods},
        "schemas": {**document.get("schemas", {}), **SCHEMAS.get(service, {})},
    }


def _complete_lists(level: Mapping[str, Any], parameters: Mapping[str, Mapping[str, Any]]) -> None:
    for method in level.get("methods", {}).values():
        if _PAGED_BY in method.get("parameters", {}):
            method["parameters"] = {**parameters, **method["parameters"]}
    for resource in level.get("resources", {}).values():
        _complete_lists(resource, parameters)
