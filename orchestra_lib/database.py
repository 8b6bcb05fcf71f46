"""Connecting to PostgreSQL: one way in, with the session settings that measurements and checksums rely on."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

import psycopg
import psycopg.conninfo
from pgvector.psycopg import register_vector

from orchestra_lib.errors import TargetUnreachable

CONNECT_TIMEOUT_SECONDS = 10
# What a cast to text depends on: the same on every server, or equal rows would have different checksums.
_SESSION = "-c timezone=UTC -c client_encoding=UTF8 -c datestyle=ISO,YMD"
# A session that hears nothing from a machine that has gone is told so within half a minute, not after hours. libpq
# leaves these out where the connection is a Unix socket.
_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class Dial(Protocol):
    """A database that no connection string reaches: calling it opens a session, with further libpq parameters."""

    def __call__(self, **parameters: Any) -> psycopg.Connection:
        """Open a session in autocommit. Raises TargetUnreachable."""


Address = str | Dial
"""Where a database is: a connection string (never shown), or what opens a session with it."""


def connect(
    address: Address, *, role: str = "database", autocommit: bool = True, application_name: str | None = None
) -> psycopg.Connection:
    """Open a session in UTC and UTF-8, with pgvector's types registered where the extension is installed.

    ``role`` names the database in messages ("source", "target"). Raises TargetUnreachable when it cannot be reached;
    the message never repeats the connection string.
    """
    parameters: dict[str, Any] = {"application_name": application_name} if application_name else {}
    connection = _open(address, role, **parameters)
    connection.autocommit = autocommit
    try:
        with suppress(psycopg.ProgrammingError):  # no extension is installed yet: its types are not needed yet either
            register_vector(connection)
    except psycopg.OperationalError as error:  # the session was lost as soon as it was there
        connection.close()
        raise _unreachable(role, error) from error
    return connection


def connect_replication(address: Address, *, role: str = "database", application_name: str) -> psycopg.Connection:
    """Open a session that speaks the replication protocol about its own database. Raises TargetUnreachable."""
    return _open(address, role, replication="database", application_name=application_name)


def _open(address: Address, role: str, **parameters: Any) -> psycopg.Connection:
    if not isinstance(address, str):
        return address(options=_SESSION, **parameters)
    try:
        return psycopg.connect(
            address,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            options=_with_ours(psycopg.conninfo.conninfo_to_dict(address).get("options")),
            **_KEEPALIVES,
            **parameters,
        )
    except psycopg.Error as error:
        raise _unreachable(role, error) from error


def _unreachable(role: str, error: psycopg.Error) -> TargetUnreachable:
    lines = [line.strip() for line in str(error).splitlines()]
    reason = "; ".join(line for line in lines if line and not line.endswith("?"))  # libpq also asks back
    return TargetUnreachable(
        f"the {role} database cannot be reached: {reason}; check that it runs, its address and the user's rights"
    )


def _with_ours(options: object) -> str:
    """The options of a connection string, such as a search path, and after them ours."""
    return f"{options} {_SESSION}" if options else _SESSION
