"""Artifact Registry: repositories, and the images in them. https://cloud.google.com/artifact-registry/docs/reference/rest"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestra_lib.local.control import references
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service
from orchestra_lib.local.control.operation_styles import in_location, type_only
from orchestra_lib.local.control.operations import Style

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_NOT_FOUND, _EXISTS = "Requested entity was not found.", "the repository already exists"
_SCANNER = "containerscanning"
_IMAGE = re.compile(
    r"(?P<location>[a-z0-9-]+)-docker\.pkg\.dev/(?P<project>[^/]+)/(?P<repository>[^/:@]+)/"
    r"(?P<package>[^:@]+)(?::(?P<tag>[^:@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
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


# --- images -------------------------------------------------------------------------------------------------------


def digest_of(control: ControlPlane, image: str) -> str:
    """The digest of an image that is named by tag (``latest`` if by none) or digest; empty if there is none."""
    found = _IMAGE.fullmatch(image)
    if found is None:
        return ""
    package = _package_key(found)
    if found["digest"]:
        return found["digest"] if control.find(f"{package}/versions/{found['digest']}") else ""
    tag = control.find(f"{package}/tags/{found['tag'] or 'latest'}")
    return tag.body["version"].rsplit("/", 1)[1] if tag else ""


def push(control: ControlPlane, image: str, digest: str, size_bytes: int) -> None:
    """Keep an image under its tag. Raises Fault without its repository, or for another image under a tag that stays."""
    found = _IMAGE.fullmatch(image)
    if found is None or found["digest"]:
        raise Fault("INVALID_ARGUMENT", f"'{image}' is no tag of an Artifact Registry repository.")
    package, tag = _package_key(found), found["tag"] or "latest"
    repository = control.find(package.rpartition("/packages/")[0])
    if repository is None or repository.body["format"] != "DOCKER":
        raise Fault("NOT_FOUND", f'Repository "{found["repository"]}" not found')
    present = digest_of(control, image)
    if present and present != digest and repository.body.get("dockerConfig", {}).get("immutableTags"):
        words = f"cannot update tag {tag}. The repository has enabled tag immutability"
        raise Fault("FAILED_PRECONDITION", words)
    now, name = timestamp(control.clock()), package.split("/", 1)[1]
    for key, body in (
        (package, {}),
        (f"{package}/versions/{digest}", {"metadata": {"imageSizeBytes": str(size_bytes), "mediaType": _MEDIA_TYPE}}),
    ):
        before = control.find(key)
        made = before.body["createTime"] if before else now
        control.store.put(key, {"name": key.split("/", 1)[1], "createTime": made, "updateTime": now, **body})
    control.store.put(f"{package}/tags/{tag}", {"name": f"{name}/tags/{tag}", "version": f"{name}/versions/{digest}"})


def _package_key(found: re.Match[str]) -> str:
    place = f"projects/{found['project']}/locations/{found['location']}/repositories/{found['repository']}"
    return f"artifactregistry/{place}/packages/{found['package'].replace('/', '%2F')}"


def _docker_images(control: ControlPlane, parent: str) -> dict[str, Body]:
    """The images of a repository, each with its tags."""
    repository = parent.split("/", 1)[1]
    project, location, name = repository.split("/")[1::2]
    images: dict[str, Body] = {}
    for version in control.store.below(f"{parent}/packages/", "artifactregistry/versions"):
        package, _, digest = version.key.rpartition("/versions/")
        short = package.rsplit("/", 1)[1]
        tags = control.store.children(package, "artifactregistry/tags")
        images[f"{short}@{digest}"] = {
            "name": f"{repository}/dockerImages/{short}@{digest}",
            "uri": f"{location}-docker.pkg.dev/{project}/{name}/{short.replace('%2F', '/')}@{digest}",
            "tags": [row.key.rsplit("/", 1)[1] for row in tags if row.body["version"].endswith(digest)],
            "imageSizeBytes": version.body["metadata"]["imageSizeBytes"],
            "mediaType": _MEDIA_TYPE,
            "uploadTime": version.body["createTime"],
            "updateTime": version.body["updateTime"],
        }
    return images


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
        Kind("dockerImages", built_in=_docker_images, not_found=_NOT_FOUND),
    ),
    operations=Style(in_location, type_only("OperationMetadata")),
)
