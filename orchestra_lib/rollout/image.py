"""The memory API's image: built by Cloud Build from this source, its tag is the source's digest and never moves.

The source travels in the build's first step, so no bucket holds it. That makes a script of about a megabyte; Cloud
Build's documentation states no limit for one, and only a real build can show that there is none.
https://cloud.google.com/build/docs/api/reference/rest/v1/projects.locations.builds
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.refusals import CloudRefused

DOCKERFILE = "orchestra_lib/service/Dockerfile"
_LIBRARY = "orchestra_lib"
_DOCKER = "gcr.io/cloud-builders/docker"
_DIGITS = 16
_TIMEOUT_SECONDS = 1_200.0


@dataclass(frozen=True)
class Source:
    """What an image is built from: the library packed, and the digest that is the image's tag."""

    packed: bytes
    tag: str


@dataclass(frozen=True)
class Repository:
    """An Artifact Registry repository of images."""

    project: str
    region: str
    name: str

    def image(self, package: str, tag: str) -> str:
        """How a container names an image in it."""
        return f"{self.region}-docker.pkg.dev/{self.project}/{self.name}/{package}:{tag}"


def source_of(root: Path) -> Source:
    """The library below a checkout's root, as its ``.dockerignore`` lets it into the image.

    The same files give the same tag wherever and whenever they are packed.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted((root / _LIBRARY).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                entry = tarfile.TarInfo(path.relative_to(root).as_posix())
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
    content = plain.getvalue()
    return Source(gzip.compress(content, mtime=0), hashlib.sha256(content).hexdigest()[:_DIGITS])


def build_request(source: Source, image: str, account: str | None = None) -> dict[str, Any]:
    """The body that has Cloud Build make the image, as the service account with this e-mail address."""
    script = f"#!/usr/bin/env bash\nbase64 --decode <<< '{base64.b64encode(source.packed).decode()}' | tar -xz\n"
    build = ["build", "--tag", image, "--file", DOCKERFILE, "."]
    request: dict[str, Any] = {
        "steps": [{"id": "files", "name": _DOCKER, "script": script}, {"id": "image", "name": _DOCKER, "args": build}],
        "images": [image],
        "options": {"logging": "CLOUD_LOGGING_ONLY"},
    }
    if account:
        request["serviceAccount"] = f"projects/{account.split('@')[1].split('.')[0]}/serviceAccounts/{account}"
    return request


def is_built(client: Client, repository: Repository, package: str, tag: str) -> bool:
    """Whether the tag is in the registry. Raises CloudRefused when it may not be read."""
    parent = f"projects/{repository.project}/locations/{repository.region}/repositories/{repository.name}"
    method = "artifactregistry.projects.locations.repositories.packages.tags.get"
    try:
        client.call("artifactregistry.v1", method, f"{parent}/packages/{package}/tags/{tag}")
    except CloudRefused as error:
        if error.is_absence:
            return False
        raise
    return True


def build(client: Client, repository: Repository, package: str, source: Source, account: str | None = None) -> str:
    """The image's name, built first if its tag is not there yet.

    Raises CloudRefused when the build fails, TargetUnreachable when it takes more than 20 minutes.
    """
    image = repository.image(package, source.tag)
    if not is_built(client, repository, package, source.tag):
        parent = f"projects/{repository.project}/locations/{repository.region}/builds"
        request = build_request(source, image, account)
        operation = client.call("cloudbuild.v1", "cloudbuild.projects.locations.builds.create", parent, body=request)
        client.finish("cloudbuild.v1", f"build image {package}:{source.tag}", operation, _TIMEOUT_SECONDS)
    return image
