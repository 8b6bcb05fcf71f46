"""From a revision to the command that its instances run: the image, the environment, the values of its secrets.

https://cloud.google.com/run/docs/container-contract
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.control_calls import ControlFault
from orchestra_lib.local.run import images, places
from orchestra_lib.local.run.control_client import Revision
from orchestra_lib.local.run.instance import Command, StartFailed

ReadSecret = Callable[[str, str], str]
"""(version of a secret, who reads it) to its value in base64; raises ControlFault."""


def command_of(revision: Revision, directory: Path, metadata_host: str, read_secret: ReadSecret) -> Command:
    """What an instance runs. Blocks while secrets are read. Raises StartFailed for what cannot be run here."""
    container = revision.container
    if len(revision.containers) > 1 or revision.volumes:
        raise StartFailed("The local Cloud Run runs one container in an instance, without volumes.")
    image = images.load(revision.digest, places.images(directory))
    if image is None:
        raise StartFailed(f"Image '{container['image']}' not found.")
    arguments = _arguments(container, image)
    if not arguments:
        raise StartFailed(f"Image '{container['image']}' has no command; give the container one.")
    log = places.log(directory, revision.service, revision.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    return Command(
        arguments=image.run_as(arguments),
        environment={
            **image.variables(),
            **_told(revision, metadata_host),
            **_variables(revision, container, read_secret),
        },
        working_directory=image.directory,
        log=log,
    )


def _arguments(container: Mapping[str, Any], image: images.Image) -> list[str]:
    """A command of the template takes the place of both of the image's, arguments that of its arguments."""
    given, arguments = container.get("command", ()), container.get("args", ())
    if given:
        return [*given, *arguments]
    return [*image.entrypoint, *(arguments or image.arguments)]


def _told(revision: Revision, metadata_host: str) -> dict[str, str]:
    service = revision.service.rsplit("/", 1)[1]
    return {
        "K_SERVICE": service,
        "K_CONFIGURATION": service,
        "K_REVISION": revision.name,
        # The second is where Google's clients look first, to learn whether there is such a server.
        "GCE_METADATA_HOST": metadata_host,
        "GCE_METADATA_IP": metadata_host,
    }


def _variables(revision: Revision, container: Mapping[str, Any], read_secret: ReadSecret) -> dict[str, str]:
    found = {}
    for variable in container.get("env", ()):
        reference = variable.get("valueSource", {}).get("secretKeyRef")
        found[variable["name"]] = _secret(revision, reference, read_secret) if reference else variable.get("value", "")
    return found


def _secret(revision: Revision, reference: Mapping[str, str], read_secret: ReadSecret) -> str:
    secret = reference["secret"]
    if not secret.startswith("projects/"):
        secret = f"projects/{revision.service.split('/')[1]}/secrets/{secret}"
    version = f"{secret}/versions/{reference.get('version', 'latest')}"
    try:
        return base64.b64decode(read_secret(version, revision.service_account)).decode()
    except (ControlFault, TargetUnreachable, binascii.Error, UnicodeDecodeError) as error:
        raise StartFailed(f"The value of {version} cannot be had: {error}") from error
