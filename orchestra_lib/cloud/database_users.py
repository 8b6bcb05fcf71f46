"""The built-in user of an AlloyDB cluster: its password is set when something needs it, and forgotten right after."""

from __future__ import annotations

import secrets

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.secret import Secret

FIRST_USER = "postgres"
"""The user that every cluster has. https://cloud.google.com/alloydb/docs/database-users/about"""
_TIMEOUT_SECONDS = 300.0
_PASSWORD_BYTES = 32


def new_password(client: Client, instance: str, user: str) -> Secret:
    """Give a user of an instance's cluster a new random password and return it. Raises CloudRefused."""
    kind = KINDS["database user"]
    path = f"{instance.rpartition('/instances/')[0]}/users/{user}"
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    answer = client.call(
        kind.api,
        f"{kind.collection}.patch",
        path,
        body={"userType": "ALLOYDB_BUILT_IN", "password": password},
        query={"updateMask": "password"},
    )
    if answer.get("metadata"):  # users.patch answers with the user itself; an operation is waited for all the same
        client.finish(kind.api, f"password of {path}", answer, _TIMEOUT_SECONDS)
    return Secret(password)
