"""Where a database is, as a text that may stand in a job's description: it names where a secret is, never the secret.

A worker resolves it for itself, wherever it runs: ``file:`` on this machine, ``secret:`` and ``alloydb:`` on Google
Cloud.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from orchestra_lib.database import Address
from orchestra_lib.errors import ParameterError, TargetUnreachable

_SCHEMES = (
    "file:/path/of/a/connection/string, secret:projects/P/secrets/S/versions/V or "
    "alloydb:projects/P/locations/L/clusters/C/instances/I?user=U&database=D"
)


def address_of(endpoint: str) -> Address:
    """What opens sessions with the database. Raises ParameterError for another scheme, TargetUnreachable."""
    scheme, _, rest = endpoint.partition(":")
    ways = {"file": _from_file, "secret": _from_secret, "alloydb": _from_instance}
    if scheme not in ways or not rest:
        # Not repeated: it may be a connection string with its password.
        raise ParameterError(f"this is no place of a database; give {_SCHEMES}")
    return ways[scheme](rest)


def _from_file(path: str) -> Address:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise TargetUnreachable(
            f"the connection string in {path} cannot be read: {error.strerror}; this way works on one machine only"
        ) from error


def _from_secret(version: str) -> Address:
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError

    secretmanager = importlib.import_module("google.cloud.secretmanager")  # Beam brings it, and only Beam needs it
    try:
        answer = secretmanager.SecretManagerServiceClient().access_secret_version(name=version)
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise TargetUnreachable(f"the secret {version} cannot be read: {error}; see the worker's roles") from error
    return str(answer.payload.data.decode().strip())


def _from_instance(named: str) -> Address:
    import google.auth

    from orchestra_lib.cloud.database import InstanceDial, connector

    parts = urlsplit(named)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    missing = {"user", "database"} - asked.keys()
    if missing:
        raise ParameterError(f"alloydb:{named} names no {' and no '.join(sorted(missing))}; give {_SCHEMES}")
    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    return InstanceDial(parts.path, asked["user"], asked["database"], connector(credentials))
