"""Artifact Registry: repositories. https://cloud.google.com/artifact-registry/docs/reference/rest"""

from __future__ import annotations

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.kinds import Body, Kind, Service
from orchestra_lib.local.control.operation_styles import in_location, type_only
from orchestra_lib.local.control.operations import Style

_NOT_FOUND, _EXISTS = "Requested entity was not found.", "the repository already exists"
_SCANNER = "containerscanning"


def _fill_repository(call: Call, body: Body, before: Body | None) -> None:
    name = body["name"].rsplit("/", 1)[1]
    kind = body["format"].lower()
    body["registryUri"] = f"{call.location}-{kind}.pkg.dev/{call.project}/{name}"
    body["satisfiesPzi"] = True
    scanning = dict(body.get("vulnerabilityScanningConfig", {}))
    scanning.setdefault("lastEnableTime", (before or {}).get("createTime") or call.time)
    scanning["enablementState"], scanning["enablementStateReason"] = _scanned(call, body, scanning)
    body["vulnerabilityScanningConfig"] = scanning


def _scanned(call: Call, body: Body, scanning: Body) -> tuple[str, str]:
    if body["format"] != "DOCKER":
        return "SCANNING_UNSUPPORTED", f"Repository format {body['format']} is not supported."
    if body["mode"] == "VIRTUAL_REPOSITORY":
        return "SCANNING_UNSUPPORTED", f"Repository mode {body['mode']} is not supported."
    if scanning.get("enablementConfig") == "DISABLED":
        return "SCANNING_DISABLED", "Scanning is disabled for this repository."
    path = f"serviceusage/projects/{call.project}/services/{_SCANNER}.googleapis.com"
    service = call.control.store.get(path)
    if service and service.body.get("state") == "ENABLED":
        return "SCANNING_ACTIVE", ""
    return "SCANNING_DISABLED", f"API {_SCANNER}.googleapis.com is not enabled."


SERVICE = Service(
    name="artifactregistry",
    every=Kind("", not_found=_NOT_FOUND),
    kinds=(
        Kind(
            "repositories",
            defaults={"mode": "STANDARD_REPOSITORY"},
            fill=_fill_repository,
            not_found=_NOT_FOUND,
            exists=_EXISTS,
        ),
    ),
    operations=Style(in_location, type_only("OperationMetadata")),
)
