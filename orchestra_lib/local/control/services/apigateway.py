"""API Gateway: APIs, their configs and gateways. https://cloud.google.com/api-gateway/docs/reference/rest"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestra_lib.local.control import standard
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service, fill_missing
from orchestra_lib.local.control.operation_styles import full, in_location
from orchestra_lib.local.control.operations import Style
from orchestra_lib.local.control.services import run_addresses, run_data_plane

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_ID = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_ACCOUNTS = "projects/-/serviceAccounts/"
_DOCUMENTS = ("openapiDocuments", "grpcServices", "managedServiceConfigs")


def _mark(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _fill_api(call: Call, body: Body, _before: Body | None) -> None:
    """The managed service that is made for an API that names none."""
    name = body["name"].rsplit("/", 1)[1]
    service = f"{name}-{_mark(body['name'], 13)}.apigateway.{call.project}.cloud.goog"
    fill_missing(body, {"managedService": service, "displayName": name})


# --- configs ------------------------------------------------------------------------------------------------------


def _check_config(_call: Call, body: Body, before: Body | None) -> None:
    """Raise Fault (400) for a config without a description of its API, or with two; it is never changed."""
    given = [name for name in _DOCUMENTS[:2] if body.get(name)]
    if before is None and len(given) != 1:
        words = "A config has either OpenAPI documents or gRPC services."
        raise bad_field("api_config.openapi_documents", words)
    if before is None and body.get("grpcServices") and not body.get("managedServiceConfigs"):
        raise bad_field("api_config.managed_service_configs", "gRPC services need a service configuration.")
    changed = next((name for name in _DOCUMENTS if before and body.get(name) != before.get(name)), None)
    if changed:
        raise bad_field(changed, f"Field '{changed}' of a config cannot be changed; create another config.")


def _fill_config(call: Call, body: Body, before: Body | None) -> None:
    name = body["name"].rsplit("/", 1)[1]
    day = datetime.fromtimestamp(call.now, UTC).strftime("%Y-%m-%d")
    body["serviceConfigId"] = (before or {}).get("serviceConfigId") or f"{name}-{_mark(body['name'] + day, 13)}"
    account = body.get("gatewayServiceAccount", f"{call.project_number}-compute@developer.gserviceaccount.com")
    body["gatewayServiceAccount"] = _ACCOUNTS + account.rsplit("/", 1)[-1]
    fill_missing(body, {"displayName": name})


def _get_config(call: Call) -> Body:
    """The documents are shown when all is asked for."""
    body = standard.get(call)
    if call.query.get("view") == "FULL":
        return body
    return {name: value for name, value in body.items() if name not in _DOCUMENTS}


def _list_configs(call: Call) -> Body:
    answer = standard.list_(call)
    for body in answer.get("apiConfigs", ()):
        for name in _DOCUMENTS:
            body.pop(name, None)
    return answer


# --- gateways -----------------------------------------------------------------------------------------------------


def _fill_gateway(call: Call, body: Body, before: Body | None) -> None:
    name = body["name"].rsplit("/", 1)[1]
    geography, _, place = call.location.partition("-")
    region = f"{geography[0]}{place[:1]}"
    hostname = f"{name}-{_mark(body['name'], 8)}.{region}.gateway.dev"
    body["defaultHostname"] = (before or {}).get("defaultHostname") or hostname
    if run_data_plane.is_wanted(call.control) and not call.validate_only:
        url = run_addresses.url_of(call.control, f"{call.service}/{body['name']}")
        body["defaultHostname"] = url.partition("//")[2]
    asked = body.get("streamingMode") == "STREAMING_MODE_ENABLED"
    body["effectiveStreamingMode"] = f"EFFECTIVE_STREAMING_MODE_{'ENABLED' if asked else 'DISABLED'}"
    fill_missing(body, {"displayName": name})


def _finish_gateway(control: ControlPlane, _key: str, body: Body) -> None:
    """A gateway serves its config by the config's own name, with the project's number."""
    body["apiConfig"] = control.projects.numbered(body["apiConfig"])


SERVICE = Service(
    name="apigateway",
    kinds=(
        Kind("apis", id_pattern=_ID, fill=_fill_api, children_block=True),
        Kind(
            "configs",
            id_pattern=_ID,
            check=_check_config,
            fill=_fill_config,
            in_use="call",
            in_use_words="The API config '{path}' is used by the gateway '{user}'.",
        ),
        Kind(
            "gateways",
            id_pattern=_ID,
            fill=_fill_gateway,
            finish=_finish_gateway,
            references={"apiConfig": "apigateway"},
        ),
    ),
    methods={"configs.get": _get_config, "configs.list": _list_configs},
    operations=Style(in_location, full(cancellation=True), says_not_done=True),
    awaits=run_data_plane.awaits,
)
