"""Artifact Registry: repositories. https://cloud.google.com/artifact-registry/docs/reference/rest"""

from __future__ import annotations

from orchestra_lib.local.control import references
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service
from orchestra_lib.local.control.operation_styles import in_location, type_only
from orchestra_lib.local.control.operations import Style

_NOT_FOUND, _EXISTS = "Requested entity was not found.", "the repository already exists"
_SCANNER = "containerscanning"
_SETTINGS_OF_MODE = {"REMOTE_REPOSITORY": "remoteRepositoryConfig", "VIRTUAL_REPOSITORY": "virtualRepositoryConfig"}
_SETTINGS_OF_FORMAT = {"DOCKER": "dockerConfig", "MAVEN": "mavenConfig"}


def _check_repository(call: Call, body: Body, before: Body | None) -> None:
    """Raise Fault (400) for a repository without a format, or with settings of another mode."""
    mode, format_ = body.get("mode", "STANDARD_REPOSITORY"), body.get("format")
    if not format_:
        raise bad_field("repository.format", "A repository needs a format, such as DOCKER or PYTHON.")
    for name, value in (("format", format_), ("mode", mode)):
        if before and before[name] != value:
            raise bad_field(f"repository.{name}", f"The {name} of a repository cannot be changed.")
    for owner, field in _SETTINGS_OF_MODE.items():
        if field in body and mode != owner:
            raise bad_field(f"repository.{field}", f"A repository of mode {mode} has no {field}.")
        if field not in body and mode == owner == "REMOTE_REPOSITORY":
            raise bad_field(f"repository.{field}", "A remote repository needs to know what it is a copy of.")
    for owner, field in _SETTINGS_OF_FORMAT.items():
        if field in body and format_ != owner:
            raise bad_field(f"repository.{field}", f"A repository of format {format_} has no {field}.")
    for policy in body.get("virtualRepositoryConfig", {}).get("upstreamPolicies", ()):
        row = call.control.find(
            references.key_of(call.control, call.service, policy.get("repository", ""), call.project)
        )
        if row is None or row.body["format"] != format_:
            words = f"Upstream '{policy.get('repository', '')}' is no repository of format {format_}."
            raise bad_field("repository.virtual_repository_config.upstream_policies", words)


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
            id_pattern="[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
            check=_check_repository,
            fill=_fill_repository,
            not_found=_NOT_FOUND,
            exists=_EXISTS,
        ),
    ),
    operations=Style(in_location, type_only("OperationMetadata")),
)
