"""Phase 5: the memory API's service, who may call it, and the gateway before it.

What the service serves is given when it is made; afterwards revisions and traffic are the rollout's. Limits and
meanings of fields: run.v2 and apigateway.v1 in Google's discovery documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.blueprint import identities
from orchestra_lib.blueprint.foundation import foundation
from orchestra_lib.blueprint.identities import Identity
from orchestra_lib.blueprint.specification import Specification, specification
from orchestra_lib.cloud.resource import JsonFile, Ref, Resource, resolve
from orchestra_lib.errors import ParameterError
from orchestra_lib.evidence import canonical_json
from orchestra_lib.settings import Settings

PACKAGE = "orchestra-memory-api"
"""The image's name in the registry."""

IMAGE_BUILDER = "orchestra-api-image"

_BUILDER = Identity(IMAGE_BUILDER, "What Cloud Build is when it builds the memory API's image", ("logging.logWriter",))
_INVOKER = "roles/run.invoker"
_DOCUMENT = "openapi.json"
_DIGITS = 12  # an id has at most 63 characters, a service's name 49
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
_LIMIT_SHARE = 0.9


def in_flight_limit(concurrency: int) -> int:
    """How much the service should take on of what an instance may get at once.

    Then it refuses by itself, at once and with a word when to come again. At the same number it never would: the front
    keeps what is more and lets it wait for ten seconds. Well above 60 %, where Cloud Run adds instances.
    https://cloud.google.com/run/docs/about-instance-autoscaling
    """
    return max(1, int(_LIMIT_SHARE * concurrency))


@dataclass(frozen=True)
class ApiPlan:
    """What phase 5 wants, and what it stands on: ``foundation`` is phase 1's, as phase 1 wants it.

    ``builder`` are those of the resources that the image's build needs: they come before everything else, because a
    service cannot be made without an image.
    """

    builder: tuple[Resource, ...]
    service: Resource
    invoker: Resource
    front: Resource
    config: Resource
    gateway: Resource
    foundation: tuple[Resource, ...]

    @property
    def resources(self) -> tuple[Resource, ...]:
        """All that the phase makes."""
        return (*self.builder, self.service, self.invoker, self.front, self.config, self.gateway)


def api(settings: Settings, template: Mapping[str, Any], interface: Mapping[str, Any], audience: str) -> ApiPlan:
    """Everything that phase 5 wants to exist.

    ``template`` is that of the first revision, with its name (``revision``); it counts when the service is made.
    ``interface`` is the service's own OpenAPI document, ``audience`` whom callers' tokens have to be made for. Another
    document is another config under another id: the gateway is changed to it, and the one before stays for the way
    back. Raises ParameterError for what the settings lack or leave open, and for a load balancer as ``api_front``.
    """
    spec = specification(settings)
    _refuse_other_front(settings)
    builder = tuple(identities.image_builder(spec, _BUILDER))
    service = _service(spec, template)
    invoker = _invoker(spec, service)
    front = spec.resource("gateway api", spec.location("global"), spec.api.service, {"labels": dict(spec.labels)})
    document = gateway_document(interface, Ref(service.key, "uri"), audience)
    config = _config(spec, front, document)
    gateway = _gateway(spec, config, invoker)
    made = (*builder, service, invoker, front, config, gateway)
    under = foundation(settings, made, _used_by_name(spec))
    return ApiPlan(builder, service, invoker, front, config, gateway, under)


def path_of(resource: Resource) -> str:
    """The path of the service, the gateway's API, its config or the gateway."""
    segments = {"run service": "services", "gateway api": "apis", "gateway config": "configs", "gateway": "gateways"}
    return f"{resource.parent}/{segments[resource.kind]}/{resource.id}"


def revision_template(settings: Settings, image: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """The template of a revision.

    ``environment`` says what the settings do not: where the database is and how callers are known, by the names of
    the service's settings (``INSTANCE``, ``JWT_AUDIENCE``). Raises ParameterError for what the settings lack.
    """
    spec = specification(settings)
    wanted, region, network = spec.api, spec.regions.primary, spec.network.name
    own = {
        "MAX_IN_FLIGHT": in_flight_limit(wanted.concurrency),
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


def gateway_document(interface: Mapping[str, Any], backend: str | Ref, audience: str) -> dict[str, Any]:
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


def _refuse_other_front(settings: Settings) -> None:
    front = settings.usage.api_front if settings.usage else None
    if front not in (None, "api_gateway"):
        raise ParameterError(
            f"usage.api_front is {front}, and phase 5 makes an API Gateway (decision 19 says why): say api_gateway"
        )


def _service(spec: Specification, template: Mapping[str, Any]) -> Resource:
    """Private: whoever calls needs a role. Its address is open, because API Gateway calls from outside the network."""
    region, name = spec.regions.primary, spec.network.name
    body = {
        "description": "The memory API",
        "labels": dict(spec.labels),
        "ingress": "INGRESS_TRAFFIC_ALL",
        "invokerIamDisabled": False,
        "template": dict(template),
    }
    needs = (
        identities.account(spec, identities.API).key,
        f"network:{spec.project_path}/global/{name}",
        f"subnetwork:{spec.project_path}/regions/{region}/{name}-{region}",
        f"repository:{spec.location(region)}/{spec.registry.repository}",
    )
    return spec.resource("run service", spec.location(region), spec.api.service, body, needs)


def _invoker(spec: Specification, service: Resource) -> Resource:
    """The gateway's own account may call the service, and nobody else gets the role from us."""
    needs = (service.key, identities.account(spec, identities.GATEWAY).key)
    who = identities.member(spec, identities.GATEWAY)
    return spec.resource("run service roles", path_of(service), who, {"roles": [_INVOKER]}, needs)


def _config(spec: Specification, front: Resource, document: Mapping[str, Any]) -> Resource:
    """The document under an id that holds its digest: a config is never changed."""
    account = spec.email_of(identities.GATEWAY)
    said = canonical_json([resolve(document, {}), account])
    body = {
        "labels": dict(spec.labels),
        "openapiDocuments": [{"document": {"path": _DOCUMENT, "contents": JsonFile(document)}}],
        "gatewayServiceAccount": f"{spec.project_path}/serviceAccounts/{account}",
    }
    id_ = f"{front.id}-{hashlib.sha256(said.encode()).hexdigest()[:_DIGITS]}"
    needs = (front.key, identities.account(spec, identities.GATEWAY).key)
    return spec.resource("gateway config", path_of(front), id_, body, needs)


def _gateway(spec: Specification, config: Resource, invoker: Resource) -> Resource:
    body = {"labels": dict(spec.labels), "apiConfig": path_of(config)}
    return spec.resource(
        "gateway", spec.location(spec.regions.primary), spec.api.service, body, (config.key, invoker.key)
    )


def _used_by_name(spec: Specification) -> tuple[str, ...]:
    """What phase 5 uses and none of its resources needs: the API's roles, and leave to run something as an account."""
    infra = identities.member(spec, identities.INFRA)
    return (
        f"roles:{spec.project_path}/{identities.member(spec, identities.API)}",
        *(f"service account roles:{spec.account_path(name)}/{infra}" for name in (identities.API, identities.GATEWAY)),
        *(spec.service(f"{name}.googleapis.com").key for name in (*spec.services.api, "cloudbuild")),
    )


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
