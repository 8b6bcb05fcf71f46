"""Connecting to PostgreSQL: one way in, with the session settings that measurements and checksums rely on."""

from __future__ import annotations

from contextlib import suppress

import psycopg
from pgvector.psycopg import register_vector

from orchestra_lib.errors import TargetUnreachable

CONNECT_TIMEOUT_SECONDS = 10


def connect(conninfo: str, *, role: str = "database", autocommit: bool = True) -> psycopg.Connection:
    """Open a session in UTC and UTF-8, with pgvector's types registered where the extension is installed.

    ``role`` names the database in messages ("source", "target"). Raises TargetUnreachable when it cannot be reached;
    the message never repeats the connection string.
    """
    try:
        connection = psycopg.connect(
            conninfo,
            autocommit=autocommit,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            options="-c timezone=UTC -c client_encoding=UTF8",
        )
    except psycopg.Error as error:
        lines = [line.strip() for line in str(error).splitlines()]
        reason = "; ".join(line for line in lines if line and not line.endswith("?"))  # libpq also asks back
        raise TargetUnreachable(
            f"the {role} database cannot be reached: {reason}; check that it runs, its address and the user's rights"
        ) from error
    with suppress(psycopg.ProgrammingError):  # the extension is not installed yet: its types are not needed yet either
        register_vector(connection)
    return connection
