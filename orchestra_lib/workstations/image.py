"""The workstations' container image: whether its tag is there, and the build that makes it on Cloud Build.

https://cloud.google.com/build/docs/api/reference/rest/v1/projects.locations.builds
"""

from __future__ import annotations

import base64
import shlex
from pathlib import Path
from typing import Any

import yaml

from orchestra_lib.blueprint.workstations import IMAGE_BUILDER, base_image, image
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.settings import Settings, root

_CONFIG = "cloudbuild.yaml"
_TIMEOUT_SECONDS = 4_200.0
_MODE_OF_A_SCRIPT = 0o111


def folder() -> Path:
    """Where the Dockerfile lies."""
    return root() / "images" / "workstation"


def is_built(client: Client, settings: Settings) -> bool:
    """Whether the tag that the settings name is in the registry. Raises CloudRefused when it may not be read."""
    project, region, own = _names(settings)
    packages = f"projects/{project}/locations/{region}/repositories/{own['repository']}/packages"
    path = f"{packages}/{own['name']}/tags/{own['tag']}"
    try:
        client.call("artifactregistry.v1", "artifactregistry.projects.locations.repositories.packages.tags.get", path)
    except CloudRefused as error:
        if error.is_absence:
            return False
        raise
    return True


def build_request(settings: Settings) -> dict[str, Any]:
    """The body that has Cloud Build make the image: the files travel in its first step, so no bucket holds them."""
    project, _, _ = _names(settings)
    request: dict[str, Any] = yaml.safe_load((folder() / _CONFIG).read_text())
    unpack = {"id": "files", "name": request["steps"][0]["name"], "script": _unpacking(folder())}
    assert settings.workstations is not None  # noqa: S101 - _names has looked
    return {
        **request,
        "steps": [unpack, *request["steps"]],
        "substitutions": {
            "_BASE": base_image(settings.workstations),
            "_EXTENSIONS": " ".join(settings.workstations.image.extensions),
            "_IMAGE": image(settings),
        },
        "serviceAccount": f"projects/{project}/serviceAccounts/{IMAGE_BUILDER}@{project}.iam.gserviceaccount.com",
    }


def build(client: Client, settings: Settings) -> None:
    """Have the image built and wait for it.

    Raises CloudRefused when the build fails, TargetUnreachable when it takes more than 70 minutes.
    """
    project, region, own = _names(settings)
    path = f"projects/{project}/locations/{region}/builds"
    operation = client.call(
        "cloudbuild.v1", "cloudbuild.projects.locations.builds.create", path, body=build_request(settings)
    )
    client.finish("cloudbuild.v1", f"build image {own['name']}:{own['tag']}", operation, _TIMEOUT_SECONDS)


def _names(settings: Settings) -> tuple[str, str, dict[str, str]]:
    wanted, registry, project, regions = settings.workstations, settings.registry, settings.project, settings.regions
    if wanted is None or wanted.image.tag is None or registry is None or project is None or regions is None:
        raise ValueError("the settings name no tag for the workstations' image")
    own = {"name": wanted.image.name, "tag": wanted.image.tag, "repository": registry.repository}
    return project.id, regions.primary, own


def _unpacking(directory: Path) -> str:
    """A shell script that writes the files of a folder into the current one, scripts as such."""
    lines = ["#!/usr/bin/env bash", "set -o errexit"]
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and path.name != _CONFIG):
        name = shlex.quote(path.relative_to(directory).as_posix())
        lines.append(f"mkdir -p -- $(dirname -- {name})")
        lines.append(f"base64 --decode > {name} <<< {base64.b64encode(path.read_bytes()).decode()}")
        if path.stat().st_mode & _MODE_OF_A_SCRIPT:
            lines.append(f"chmod 0755 -- {name}")
    return "\n".join(lines) + "\n"
