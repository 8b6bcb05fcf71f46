"""How a session is opened: by a connection string, or with an instance of AlloyDB through the official connector.

The connector's asynchronous half knows asyncpg only; its synchronous half opens a psycopg session, whose libpq
connection an asynchronous session can go on with. Opening one blocks, so it is done in a thread.
https://cloud.google.com/alloydb/docs/connect-language-connectors
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import google.auth
import psycopg

from orchestra_lib.service.settings import ServiceSettings

if TYPE_CHECKING:
    from google.cloud.alloydbconnector import Connector

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_OF_LIBPQ = frozenset({"application_name", "options"})
"""What is handed on of a session's parameters: the way to the server is the connector's business."""


def session_class(settings: ServiceSettings) -> type[psycopg.AsyncConnection[Any]]:
    """What the pool opens sessions with. On Google Cloud the login is by IAM, as the service's own account."""
    if settings.instance is None:
        return psycopg.AsyncConnection
    from orchestra_lib.cloud.database import connector  # gRPC takes a second to load, and is not needed elsewhere

    credentials, _ = google.auth.default(scopes=list(_SCOPES))
    return through(connector(credentials), settings.instance, settings.database_user or "", settings.database)


def through(connector: Connector, instance: str, user: str, database: str) -> type[psycopg.AsyncConnection[Any]]:
    """A class of sessions with this database of the instance; certificates are the connector's to renew."""
    from orchestra_lib.cloud.database import connect_instance

    class ConnectorSession(psycopg.AsyncConnection[Any]):
        _opened: psycopg.Connection[Any]
        """Kept: collected while it is open, it would warn of the connection that it gave away."""

        @classmethod
        async def connect(cls, conninfo: str = "", **parameters: Any) -> Self:  # noqa: ARG003 - the pool's, and empty
            wanted = {name: value for name, value in parameters.items() if name in _OF_LIBPQ}
            opened = await asyncio.to_thread(connect_instance, instance, user, database, through=connector, **wanted)
            session = cls(opened.pgconn)
            session._opened = opened
            return session

    return ConnectorSession
