"""The roles of an instance's server: those that AlloyDB predefines, and one for each user of the control plane.

https://cloud.google.com/alloydb/docs/database-users/overview. AlloyDB lets members of ``alloydbsuperuser`` do a few
things that PostgreSQL keeps for superusers, or for roles with an attribute; here ``vector`` is installed for them in
every database, they may make databases and roles, and ``postgres`` may replicate and let others. A publication FOR ALL
TABLES, event triggers and further extensions are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql

SUPERUSER = "alloydbadmin"
"""AlloyDB's own; nobody logs in as it."""
GROUP_OF_ADMINISTRATORS, GROUP_OF_IAM_USERS = "alloydbsuperuser", "alloydbiamuser"
FIRST_USER = "postgres"
"""The built-in user that every cluster has."""
_IN_POSTGRES = (
    f"CREATE ROLE {GROUP_OF_ADMINISTRATORS} CREATEROLE CREATEDB LOGIN IN ROLE pg_monitor, pg_signal_backend",
    f"CREATE ROLE {GROUP_OF_IAM_USERS} NOLOGIN",
    f"CREATE ROLE {FIRST_USER} CREATEROLE CREATEDB REPLICATION LOGIN IN ROLE {GROUP_OF_ADMINISTRATORS}",
    f"ALTER DATABASE postgres OWNER TO {GROUP_OF_ADMINISTRATORS}",
    "CREATE EXTENSION vector",
)
_IN_TEMPLATE1 = ("CREATE EXTENSION vector",)
_MARK = "user of the control plane"
_GONE = "gone"


@dataclass(frozen=True)
class User:
    """A user of the control plane, by the name that it has in the database."""

    name: str
    is_iam: bool = False
    roles: tuple[str, ...] = ()

    @property
    def is_administrator(self) -> bool:
        """Whether it is of AlloyDB's administrators."""
        return GROUP_OF_ADMINISTRATORS in self.roles


def predefine(conninfo: str) -> None:
    """Give a new server what AlloyDB predefines; ``conninfo`` is its superuser's."""
    for database, statements in (("postgres", _IN_POSTGRES), ("template1", _IN_TEMPLATE1)):
        with psycopg.connect(conninfo, dbname=database) as connection:
            for statement in statements:
                connection.execute(statement)


def synchronise(
    connection: psycopg.Connection, users: Iterable[User], verifiers: Mapping[str, str]
) -> Mapping[str, str]:
    """Make the server's roles those users and ``postgres``; returns why, for each user that could not be made.

    What was changed in SQL (a password, a grant) stays until the control plane's user changes. A user that is gone
    cannot log in any more; its role stays, because what it owns does. Roles that were made in SQL are left alone.
    """
    wanted = {FIRST_USER: User(FIRST_USER, roles=(GROUP_OF_ADMINISTRATORS,)), **{user.name: user for user in users}}
    present = _marks(connection)
    failures = {}
    for user in wanted.values():
        mark = _mark_of(user, verifiers.get(user.name))
        if present.get(user.name) == mark:
            continue
        try:
            with connection.transaction():
                _make(connection, user, verifiers.get(user.name), present.get(user.name, ""), mark)
        except psycopg.DatabaseError as error:
            failures[user.name] = error.diag.message_primary or str(error)
    for name in (name for name, mark in present.items() if name not in wanted and mark != _GONE):
        with connection.transaction():
            connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(name)))
            _write_mark(connection, name, _GONE)
    return failures


def _marks(connection: psycopg.Connection) -> dict[str, str]:
    """The roles that were made here, each with what it was made as."""
    rows = connection.execute(
        "SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_roles "
        "WHERE shobj_description(oid, 'pg_authid') LIKE %s",
        (f"{_MARK}: %",),
    ).fetchall()
    return {name: mark.removeprefix(f"{_MARK}: ") for name, mark in rows}


def _mark_of(user: User, verifier: str | None) -> str:
    return f"{_digest(verifier or '')} {_digest(repr((user.is_iam, sorted(user.roles))))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _make(connection: psycopg.Connection, user: User, verifier: str | None, before: str, mark: str) -> None:
    name = sql.Identifier(user.name)
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (user.name,)).fetchone() is None:
        connection.execute(sql.SQL("CREATE ROLE {}").format(name))
    # Attributes are not inherited from a group.
    attributes = "CREATEROLE CREATEDB" if user.is_administrator else "NOCREATEROLE NOCREATEDB"
    connection.execute(sql.SQL(f"ALTER ROLE {{}} LOGIN {attributes}").format(name))
    if user.name != FIRST_USER:
        grant = "GRANT {} TO {} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"  # so that it may change their attributes
        connection.execute(sql.SQL(grant).format(name, sql.Identifier(FIRST_USER)))
    if before.split(" ")[0] != mark.split(" ")[0]:
        password = sql.Literal(verifier) if verifier else sql.NULL
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, password))
    _set_groups(connection, user)
    _write_mark(connection, user.name, mark)


def _set_groups(connection: psycopg.Connection, user: User) -> None:
    wanted = {*user.roles, *((GROUP_OF_IAM_USERS,) if user.is_iam else ())}
    wanted |= {GROUP_OF_ADMINISTRATORS} if user.name == FIRST_USER else set()
    rows = connection.execute(
        "SELECT groups.rolname FROM pg_auth_members JOIN pg_roles groups ON groups.oid = roleid "
        "JOIN pg_roles members ON members.oid = member WHERE members.rolname = %s AND inherit_option",
        (user.name,),
    ).fetchall()
    present = {group for (group,) in rows}
    member = sql.Identifier(user.name)
    for group in wanted - present:
        connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), member))
    for group in present - wanted:
        connection.execute(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(group), member))


def _write_mark(connection: psycopg.Connection, name: str, mark: str) -> None:
    comment = sql.Literal(f"{_MARK}: {mark}")
    connection.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), comment))
