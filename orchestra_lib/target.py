"""Reaching the databases that a run is about. The local ones are started through their own program, never imported."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
from psycopg import sql

from orchestra_lib import local_target
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.database_users import FIRST_USER, new_password
from orchestra_lib.cloud.target import Target
from orchestra_lib.database import Address, connect
from orchestra_lib.errors import ParameterError
from orchestra_lib.memory_target import our_user
from orchestra_lib.secret import Secret
from orchestra_lib.settings import Settings

DATABASE = "orchestra"
"""The database of the memory in AlloyDB. It is ours, so that settings of the whole database can be made in it."""
_MAINTENANCE = "postgres"


@dataclass(frozen=True)
class SourceDatabase:
    """Where memories come from. The address is used, never shown."""

    address: Address
    is_rehearsal: bool

    def __repr__(self) -> str:
        return f"SourceDatabase(***, is_rehearsal={self.is_rehearsal})"


def source_database(settings: Settings) -> SourceDatabase:
    """Today's store; in a rehearsal without a store of its own the local one, started if it is not up.

    Raises ParameterError when an environment on Google Cloud names none, TargetUnreachable when the local one does not
    start.
    """
    dsn = settings.memory.source.dsn
    if dsn is not None:
        return SourceDatabase(dsn.reveal(), is_rehearsal=False)
    if settings.environment.kind != "local":
        raise ParameterError(
            f"environment {settings.environment.name} names no source database; set memory.source.dsn in its parameter "
            "file or give source_dsn"
        )
    return SourceDatabase(local_target.start()["databases"]["source"]["conninfo"], is_rehearsal=True)


class Instances:
    """How AlloyDB instances are reached: by the official connector on Google Cloud, by their sockets locally.

    ``user`` is the database user that we are there.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    @cached_property
    def user(self) -> str:
        """The database user that we log in as. Raises TargetUnreachable."""
        return our_user(self._target)

    def address(self, instance: str, user: str | None = None, database: str = DATABASE) -> Address:
        """The address of a database of that instance (full name). Raises TargetUnreachable when it does not serve."""
        if self._target.kind == "local":
            served = local_target.instance(instance)
            parameters: dict[str, Any] = {
                "host": served["socket_directory"],
                "port": served["port"],
                "user": user or self.user,
                "dbname": database,
            }
            return psycopg.conninfo.make_conninfo(**parameters)
        from orchestra_lib.cloud.database import InstanceDial  # the connector takes a second to import

        return InstanceDial(instance, user or self.user, database, self._connector)

    def make_database(self, instance: str) -> None:
        """Make our database in an instance unless it is there, and let us read its log, for the way back."""
        with connect(self.address(instance, database=_MAINTENANCE), role="target") as session:
            if not session.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
            replicates = session.execute(
                "SELECT 1 FROM pg_roles WHERE rolname = current_user AND rolreplication"
            ).fetchone()
        if not replicates:
            self._let_us_replicate(instance)

    def _let_us_replicate(self, instance: str) -> None:
        """Only the built-in user may give REPLICATION. It gets a password for this moment, and then one nobody knows.

        https://cloud.google.com/alloydb/docs/logical-replication-overview
        """
        client = Client(self._target)
        password = new_password(client, instance, FIRST_USER)
        try:
            with connect(self._by_password(instance, FIRST_USER, password), role="target") as session:
                session.execute(sql.SQL("ALTER USER {} WITH REPLICATION").format(sql.Identifier(self.user)))
        finally:
            new_password(client, instance, FIRST_USER)

    def _by_password(self, instance: str, user: str, password: Secret) -> Address:
        if self._target.kind == "local":
            address = self.address(instance, user, _MAINTENANCE)
            return psycopg.conninfo.make_conninfo(str(address), password=password.reveal())
        from orchestra_lib.cloud.database import InstanceDial

        return InstanceDial(instance, user, _MAINTENANCE, self._connector, password)

    @cached_property
    def _connector(self) -> Any:
        from orchestra_lib.cloud.database import connector

        return connector(self._target.credentials)
