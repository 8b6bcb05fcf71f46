"""Connecting to an AlloyDB instance with the official connector, on Google Cloud and on the local target alike.

The connector asks the admin service where the instance is and for a short-lived client certificate, then speaks mTLS
with the instance itself. The two targets differ in the admin endpoint, the authority that vouches for it, and the
credentials; nothing else. https://cloud.google.com/alloydb/docs/connect-language-connectors
"""

from __future__ import annotations

import os
import socket
import urllib.request
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud.alloydbconnector import Connector, RefreshStrategy

from orchestra_lib.cloud.tls_pump import plain_end
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.secret import Secret

CONNECT_TIMEOUT_SECONDS = 30
"""For the login; before it, the connector waits as long for the metadata exchange."""
_GOOGLES_ENDPOINT = "alloydb.googleapis.com"
_ROOTS_VARIABLE = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
_NO_PROXY_VARIABLE = "no_grpc_proxy"
_NEVER = datetime(9999, 12, 31)
"""Naive and in UTC, as google-auth compares it."""

# The admin service refuses, nobody is logged in, the server refuses, nobody listens, the metadata exchange fails.
_REFUSALS = (GoogleAPICallError, GoogleAuthError, psycopg.Error, OSError, RuntimeError, ValueError)


def connector(credentials: Any, *, endpoint: str | None = None, ca_file: Path | None = None) -> Connector:
    """A connector that speaks for these credentials. Use it as a context, or close it, after its sessions.

    ``endpoint`` is the admin service's ``host:port``, None for Google's own; ``ca_file`` the authority that vouches for
    it, None for the public ones. One connector serves any number of instances and sessions.
    """
    if ca_file is not None:
        _trust(ca_file)
    if credentials.expiry is None:
        # The connector reads when the token expires, and a token of the local target does not.
        credentials.expiry = _NEVER
    made = _Connector(
        credentials=credentials,
        alloydb_api_endpoint=endpoint or _GOOGLES_ENDPOINT,
        # A kernel that slept through a background refresh would come back with an expired certificate.
        refresh_strategy=RefreshStrategy.LAZY,
    )
    made.made_again = partial(connector, credentials, endpoint=endpoint, ca_file=ca_file)
    return made


class _Connector(Connector):
    """The official connector, whose TLS connections are touched by one thread each (see ``tls_pump``).

    Handed to another process, as to one that makes a load, it becomes a connector of that process.
    """

    made_again: partial[Connector]

    def __reduce__(self) -> tuple[partial[Connector], tuple[()]]:
        return self.made_again, ()

    def metadata_exchange(self, *asked: Any) -> socket.socket:  # type: ignore[override]
        return plain_end(super().metadata_exchange(*asked))


class InstanceDial:
    """How a database of an instance is reached through a connector: an ``Address`` as ``database`` has them.

    Without a password the user logs in by IAM.
    """

    def __init__(
        self, instance: str, user: str, database: str, through: Connector, password: Secret | None = None
    ) -> None:
        self._instance, self._user, self._database, self._through = instance, user, database, through
        self._password = password

    def __call__(self, **parameters: Any) -> psycopg.Connection:
        """A session with these libpq parameters. Raises TargetUnreachable."""
        password = self._password.reveal() if self._password else None
        return connect_instance(
            self._instance, self._user, self._database, through=self._through, password=password, **parameters
        )

    def __repr__(self) -> str:
        return f"InstanceDial({self._instance}, {self._user}, {self._database})"


def connect_instance(
    instance: str, user: str, database: str, *, through: Connector, password: str | None = None, **parameters: Any
) -> psycopg.Connection:
    """A session, in autocommit, with the instance of that full name: ``projects/…/locations/…/clusters/…/instances/…``.

    Without a password ``user`` logs in by IAM: it has to be the name of the credentials' own principal (a service
    account's without ``.gserviceaccount.com``). ``parameters`` are libpq's. Raises TargetUnreachable with what the
    admin service, the instance or the server said.
    """
    try:
        connection: psycopg.Connection = through.connect(
            instance,
            "psycopg",
            user=user,
            db=database,
            password=password,
            enable_iam_auth=password is None,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            **parameters,
        )
    except _REFUSALS as error:
        raise TargetUnreachable(f"AlloyDB instance {instance} cannot be reached as {user}: {_reason(error)}") from error
    return connection


def _reason(error: Exception) -> str:
    """What was said, without the socket file that the connector puts between the driver and itself."""
    text = str(error).strip() or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its admin service is not trusted: gRPC reads whom it trusts once; restart the kernel and connect again"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens at its address; connect again, so that the connector asks for the present one"
    return text.rpartition("FATAL:")[2].strip() if isinstance(error, psycopg.Error) else text


def _trust(ca_file: Path) -> None:
    """Make gRPC in this process trust an authority, and keep its calls to this machine away from a proxy.

    The connector offers no way to hand over a certificate; gRPC reads these variables when it opens its first channel.
    """
    os.environ[_ROOTS_VARIABLE] = str(ca_file)
    excluded = os.environ.get(_NO_PROXY_VARIABLE) or urllib.request.getproxies().get("no", "")
    if "127.0.0.1" not in excluded:
        os.environ[_NO_PROXY_VARIABLE] = f"{excluded},127.0.0.1".lstrip(",")
