"""A rehearsal's copy of today's store: a database of its own on the same server, for whoever has to write."""

from __future__ import annotations

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError

COPY = "orchestra_api"

_ALWAYS_THERE = "template1"
_STATE = "SELECT state FROM orchestra_rehearsal"


def copy_address(todays: Address, copy: str = COPY) -> str:
    """The address of the copy."""
    return make_conninfo(str(todays), dbname=copy)


def is_there(todays: Address, copy: str = COPY) -> bool:
    """Whether there is a copy, of whatever."""
    with connect(copy_address(todays, _ALWAYS_THERE), role="source") as session:
        return session.execute("SELECT 1 FROM pg_database WHERE datname = %s", [copy]).fetchone() is not None


def copy_store(todays: Address, copy: str = COPY) -> bool:
    """Copy the whole database unless there is a copy of this very store; whether it was copied now.

    Raises DataError while somebody is connected to today's store.
    """
    with connect(todays, role="source") as session:
        name, wanted = session.info.dbname, session.execute(_STATE).fetchone()
    if is_there(todays, copy):
        with connect(copy_address(todays, copy), role="source") as session:
            if session.execute(_STATE).fetchone() == wanted:
                return False
    drop_copy(todays, copy)
    with connect(copy_address(todays, _ALWAYS_THERE), role="source") as session:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(copy), sql.Identifier(name))
        try:
            session.execute(statement)
        except psycopg.errors.ObjectInUse as error:
            raise DataError(
                f"today's store cannot be copied while somebody is connected to it: {error.diag.message_detail}; end "
                "that session and run the notebook again"
            ) from error
    return True


def drop_copy(todays: Address, copy: str = COPY) -> None:
    """Delete the copy, whoever is connected to it."""
    with connect(copy_address(todays, _ALWAYS_THERE), role="source") as session:
        session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(copy)))
