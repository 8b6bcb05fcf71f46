"""Phase 5: what a revision of the memory API is, and what the gateway before it lets through.

Which revision gets the traffic is the rollout's to say. Limits and meanings of fields: run.v2 in Google's discovery
documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra_lib.blueprint import identities
from orchestra_lib.blueprint.specification import specification
from orchestra_lib.settings import Settings

PACKAGE = "orchestra-memory-api"
"""The image's name in the registry."""

_PREFIX = "ORCHESTRA_API_"
# A connection through direct VPC egress can take more than a minute when an address is new.
# https://cloud.google.com/run/docs/configuring/vpc-direct-vpc#limitations
_PROBE = {"httpGet": {"path": "/readyz"}, "periodSeconds": 5, "timeoutSeconds": 4, "failureThreshold": 24}

_GOOGLE = "https://accounts.google.com"
_GOOGLE_KEYS = "https://www.googleapis.com/oauth2/v3/certs"
_CALLER = "google"
_DEADLINE_SECONDS = 30.0  # the service gives up earlier: 2 s for a session and 5 s for a statement, tried twice
_INSIDE = frozenset({"/healthz", "/readyz"})  # Google's front end keeps paths that end in z
_OUTSIDE = ("/health", "/ready")


def revision_template(settings: Settings, image: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The template of a revision.

    ``environment`` says what the settings do not: where the database is and how callers are known, by the names of
    the service's settings (``INSTANCE``, ``JWT_AUDIENCE``). Raises ParameterError for what the settings lack.
    """
    spec = specification(settings)
    wanted, region, network = spec.api, spec.regions.primary, spec.network.name
    own = {
        "MAX_IN_FLIGHT": wanted.concurrency,
        "POOL_MAX": wanted.connections_per_instance,
        "POOL_MIN": min(2, wanted.connections_per_instance),
        "MAX_INSTANCES": wanted.max_instances,
    }
    named = {**{name: str(value) for name, value in own.items()}, **environment}
    return {
        "labels": dict(spec.labels),
        "serviceAccount": spec.email_of(identities.API),
        "executionEnvironment": "EXECUTION_ENVIRONMENT_GEN2",
        "maxInstanceRequestConcurrency": wanted.concurrency,
        "scaling": {"minInstanceCount": wanted.min_instances, "maxInstanceCount": wanted.max_instances},
        "vpcAccess": {
            "egress": "PRIVATE_RANGES_ONLY",
            "networkInterfaces": [
                {
                    "network": f"{spec.project_path}/global/networks/{network}",
                    "subnetwork": f"{spec.project_path}/regions/{region}/subnetworks/{network}-{region}",
                }
            ],
        },
        "containers": [
            {
                "image": image,
                "env": [{"name": f"{_PREFIX}{name}", "value": value} for name, value in sorted(named.items())],
                "resources": {
                    "limits": {"cpu": str(wanted.cpu), "memory": wanted.memory},
                    "cpuIdle": wanted.cpu_idle,
                    "startupCpuBoost": True,
                },
                "startupProbe": dict(_PROBE),
            }
        ],
    }


def gateway_document(interface: Mapping[str, Any], backend: str, audience: str) -> dict[str, Any]:
    """What API Gateway is told: the paths of the service's own OpenAPI document, and that ``backend`` answers them.

    Google's ID tokens for ``audience`` are let through where the service asks who calls; the service checks them again.
    It is OpenAPI 2.0, which API Gateway has taken from the start. Bodies are not described: the service checks them,
    and the gateway does not. https://cloud.google.com/endpoints/docs/openapi/openapi-extensions
    """
    paths = {path: _operations(item) for path, item in interface["paths"].items() if path not in _INSIDE}
    for path in _OUTSIDE:
        paths[path] = {"get": _operation(path.strip("/"), {})}
    return {
        "swagger": "2.0",
        "info": {"title": interface["info"]["title"], "version": interface["info"]["version"]},
        "schemes": ["https"],
        "x-google-backend": {
            "address": backend,
            "jwt_audience": backend,
            "path_translation": "APPEND_PATH_TO_ADDRESS",
            "deadline": _DEADLINE_SECONDS,
        },
        "securityDefinitions": {
            _CALLER: {
                "type": "oauth2",
                "flow": "implicit",
                "authorizationUrl": "",
                "x-google-issuer": _GOOGLE,
                "x-google-jwks_uri": _GOOGLE_KEYS,
                "x-google-audiences": audience,
            }
        },
        "paths": paths,
    }


def _operations(item: Mapping[str, Any]) -> dict[str, Any]:
    return {method: _operation(str(said["operationId"]), said) for method, said in item.items()}


def _operation(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    in_path = [one["name"] for one in said.get("parameters", ()) if one["in"] == "path"]
    parameters = [{"name": each, "in": "path", "required": True, "type": "string"} for each in in_path]
    return {
        "operationId": name,
        **({"parameters": parameters} if parameters else {}),
        **({"security": [{_CALLER: []}]} if said.get("security") else {}),
        "responses": {"default": {"description": "As the service's own document has it"}},
    }
