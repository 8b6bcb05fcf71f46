"""The value of a secret, by which everybody finds the database: read, changed, and put back.

Every value is a version, and versions are kept: putting an old one back adds it once more.
https://cloud.google.com/secret-manager/docs/add-secret-version

Secrets are named ``projects/…/secrets/…``, versions ``projects/…/secrets/…/versions/3``. Every function raises
CloudRefused when there is no such secret or the call is refused.
"""

from __future__ import annotations

import base64

import google_crc32c

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.errors import DataError
from orchestra_lib.secret import Secret

_API, _SECRETS = "secretmanager.v1", "secretmanager.projects.secrets"


def current(client: Client, secret: str) -> str | None:
    """The text that holds now; None for a secret that never had one. Raises DataError as :func:`text_of` does."""
    version = current_version(client, secret)
    return None if version is None else text_of(client, version)


def current_hidden(client: Client, secret: str) -> Secret | None:
    """The same for a text that nobody may see, such as a connection string with a password in it."""
    text = current(client, secret)
    return None if text is None else Secret(text)


def current_version(client: Client, secret: str) -> str | None:
    """The name of the version that holds now; None for a secret without one."""
    try:
        answer = client.call(_API, f"{_SECRETS}.versions.get", f"{secret}/versions/latest")
    except CloudRefused as error:
        if not error.is_absence:
            raise
        client.call(_API, f"{_SECRETS}.get", secret)  # a secret that is not there is not an empty one
        return None
    return _version(secret, str(answer["name"]))


def text_of(client: Client, version: str) -> str:
    """The text of one version. Raises DataError for one that was damaged on its way or is no text."""
    answer = client.call(_API, f"{_SECRETS}.versions.access", f"{version}:access")
    content = base64.b64decode(answer["payload"]["data"])
    told, found = int(answer["payload"]["dataCrc32c"]), google_crc32c.value(content)
    if told != found:
        raise DataError(f"{version} was damaged on its way: its checksum is {found}, not {told}; read it again")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{version} is no UTF-8 at byte {error.start}: it holds something else than a text") from None


def add(client: Client, secret: str, text: str | Secret) -> str:
    """Make a text the one that holds, and return the name of its version. Its checksum is checked on arrival."""
    content = (text.reveal() if isinstance(text, Secret) else text).encode()
    payload = {"data": base64.b64encode(content).decode(), "dataCrc32c": str(google_crc32c.value(content))}
    answer = client.call(_API, f"{_SECRETS}.addVersion", f"{secret}:addVersion", body={"payload": payload})
    return _version(secret, str(answer["name"]))


def restore(client: Client, secret: str, version: str) -> str:
    """Make the text of an earlier version the one that holds again, and return the name of the version that has it.

    Nothing is added where that text holds already. Raises DataError as :func:`text_of` does.
    """
    holds, wanted = current_version(client, secret), text_of(client, version)
    if holds and text_of(client, holds) == wanted:
        return holds
    return add(client, secret, wanted)


def _version(secret: str, name: str) -> str:
    """A version's name with the project's id; the service answers with its number."""
    return f"{secret}/versions/{name.rsplit('/', 1)[1]}"
