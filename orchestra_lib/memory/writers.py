"""Who can write to a table, and shutting them out: their rights revoked and their sessions ended, to be given back.

A right that is revoked stops the next statement of a session only once the session hears of it, which inside a
transaction may be never: so sessions are ended, and whatever still holds the table for writing is looked for. The role
that this session is logged in as keeps its rights: it is the one that moves the rows.
https://www.postgresql.org/docs/current/ddl-priv.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Bound, Evidence, Source

WRITES = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
APPLICATION_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
"""What an application gets on a table on which it never had a right to write."""

_PUBLIC = "PUBLIC"
_WRITES_EVERYWHERE = "pg_write_all_data"
# Since 16 a membership may be one in name only: neither its rights are inherited nor can the role be taken on.
_ROLES_CAN_BE_MEMBERS_IN_NAME = 160_000
_SECONDS_BETWEEN_LOOKS = 0.002


@dataclass(frozen=True, order=True)
class Grant:
    """One right on the table, or on one column of it, as its access list holds it."""

    grantee: str
    privilege: str
    column: str | None
    grantable: bool
    grantor: str


@dataclass(frozen=True)
class Writer:
    """A role that can log in and write. ``through`` are the grantees whose rights it has: itself, a group, PUBLIC.

    A superuser needs nobody's rights: it has no ``through``.
    """

    role: str
    through: tuple[str, ...]
    superuser: bool


# Every right to write, but those of the role that asks.
_ACCESS_LIST = """
WITH entry AS (
    SELECT (aclexplode(coalesce(relacl, acldefault('r', relowner)))).*, NULL::name AS attname
    FROM pg_class WHERE oid = %(table)s::regclass
    UNION ALL
    SELECT (aclexplode(attacl)).*, attname
    FROM pg_attribute WHERE attrelid = %(table)s::regclass AND NOT attisdropped
)
SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END, privilege_type, attname, is_grantable,
       pg_get_userbyid(grantor)
FROM entry WHERE privilege_type = ANY(%(writes)s) AND grantee <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
"""

_WRITERS = """
WITH entry AS (
    SELECT (aclexplode(coalesce(relacl, acldefault('r', relowner)))).*
    FROM pg_class WHERE oid = %(table)s::regclass
    UNION ALL
    SELECT (aclexplode(attacl)).* FROM pg_attribute WHERE attrelid = %(table)s::regclass AND NOT attisdropped
), grantee AS (
    SELECT grantee AS oid FROM entry WHERE privilege_type = ANY(%(writes)s)
    UNION SELECT oid FROM pg_roles WHERE rolname = 'pg_write_all_data'
)
SELECT r.rolname,
       coalesce(array_agg(CASE g.oid WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(g.oid)::text END ORDER BY g.oid)
                FILTER (WHERE NOT r.rolsuper), '{{}}'),
       r.rolsuper
FROM pg_roles r JOIN grantee g ON g.oid = 0 OR {member}
WHERE r.rolcanlogin GROUP BY r.rolname, r.rolsuper ORDER BY r.rolname
"""

_MOVER = """
SELECT current_user::text, pg_get_userbyid(relowner)::text, pg_has_role(relowner, 'USAGE'),
       pg_has_role('pg_signal_backend', 'USAGE')
       OR NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = ANY(%(roles)s) AND NOT pg_has_role(oid, 'USAGE')),
       ARRAY(SELECT wanted FROM unnest(%(roles)s::text[]) AS wanted
             WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = wanted))
FROM pg_class WHERE oid = %(table)s::regclass
"""

_SESSIONS = """
SELECT pid FROM pg_stat_activity
WHERE usename = ANY(%s) AND datname = current_database() AND pid <> pg_backend_pid()
"""

# A transaction that was prepared has no process any more, and keeps its locks.
_HOLDERS = """
SELECT coalesce(a.usename || ' (process ' || a.pid || ')', 'a prepared transaction')
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = %(table)s::regclass AND l.granted AND l.mode = 'RowExclusiveLock'
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.pid IS DISTINCT FROM pg_backend_pid()
"""


def writers(connection: psycopg.Connection, table: sql.Composable) -> tuple[Writer, ...]:
    """Every role that can log in and write to the table, by name; superusers are among them."""
    member = "pg_has_role(r.oid, g.oid, 'MEMBER')"
    if connection.info.server_version >= _ROLES_CAN_BE_MEMBERS_IN_NAME:
        member = "pg_has_role(r.oid, g.oid, 'USAGE') OR pg_has_role(r.oid, g.oid, 'SET')"
    statement = sql.SQL(_WRITERS).format(member=sql.SQL(member))
    rows = connection.execute(statement, {"table": table.as_string(connection), "writes": list(WRITES)}).fetchall()
    return tuple(Writer(role, tuple(through), superuser) for role, through, superuser in rows)


def write_grants(connection: psycopg.Connection, table: sql.Composable) -> tuple[Grant, ...]:
    """The rights to write that :func:`close_to` would revoke now: everybody's but those of this session's role."""
    rows = connection.execute(_ACCESS_LIST, {"table": table.as_string(connection), "writes": list(WRITES)}).fetchall()
    return tuple(sorted((Grant(*row) for row in rows), key=lambda grant: (grant.grantee, grant.privilege)))


def grants_for(
    connection: psycopg.Connection, table: sql.Composable, roles: Sequence[str], withheld: Iterable[Grant]
) -> tuple[Grant, ...]:
    """What to give ``roles`` so that they can write: what was withheld, and an application's rights to those of them
    who would have none by that, or could not read: the table may be a new one since rights were withheld.
    """
    withheld = tuple(withheld)
    rows = connection.execute(
        "SELECT role FROM unnest(%s::text[]) AS role WHERE NOT EXISTS (SELECT 1 FROM unnest(%s::text[]) AS grantee "
        "WHERE CASE grantee WHEN 'PUBLIC' THEN true ELSE pg_has_role(role, grantee, 'MEMBER') END) "
        "OR NOT has_table_privilege(role, %s::regclass, 'SELECT')",
        [list(roles), [grant.grantee for grant in withheld], table.as_string(connection)],
    ).fetchall()
    return *withheld, *application_grants(connection, table, [role for (role,) in rows])


def application_grants(
    connection: psycopg.Connection, table: sql.Composable, roles: Iterable[str]
) -> tuple[Grant, ...]:
    """What roles get that never had a right to write to the table."""
    row = connection.execute(
        "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = %s::regclass", [table.as_string(connection)]
    ).fetchone()
    owner = row[0] if row else ""
    return tuple(Grant(role, right, None, False, owner) for role in roles for right in APPLICATION_RIGHTS)


def writer_checks(
    connection: psycopg.Connection, table: sql.Composable, roles: Sequence[str], side: str
) -> tuple[Evidence, ...]:
    """Whether shutting out ``roles`` shuts everybody out; ``side`` is "source" or "target".

    Superusers cannot be: they are told, not judged.
    """
    names = {"table": table.as_string(connection), "roles": list(roles)}
    row = connection.execute(_MOVER, names).fetchone()
    if row is None:
        raise DataError(f"the {side} has no table {names['table']}")
    mover, owner, may_revoke, may_end, absent = row
    able = writers(connection, table)
    unknown = [writer for writer in able if writer.role not in (*roles, mover) and not writer.superuser]
    stubborn = [f"{role} (there is no such role)" for role in absent]
    stubborn += [_stubborn(writer, mover) for writer in able if writer.role in roles and _stubborn(writer, mover)]
    foreign = [grant for grant in write_grants(connection, table) if grant.grantor != owner]
    none = Bound("==", 0)

    def count(claim: str, found: Sequence[str], note: str) -> Evidence:
        told = f"{', '.join(found)}: {note}" if found else ""
        return Evidence(f"{claim} on the {side}", Source.OBSERVED, len(found), "", none, note=told)

    return (
        count(
            "roles that can write and are not among the writers",
            [_with_way(writer) for writer in unknown],
            "name them as writers, or revoke their right",
        ),
        count("writers whom no revoke shuts out", stubborn, "give the application a role of its own"),
        count(
            "rights to write that others than the owner gave",
            [f"{grant.privilege} of {grant.grantee}, by {grant.grantor}" for grant in foreign],
            f"grant them as {owner}: only those can be given back as they were",
        ),
        count(
            "rights that this session lacks to shut writers out",
            [*([] if may_revoke else [f"those of {owner}"]), *([] if may_end else ["pg_signal_backend"])],
            f"grant them to {mover}",
        ),
        Evidence(
            f"who could still write on the {side} when the writers are shut out",
            Source.OBSERVED,
            ", ".join(dict.fromkeys([mover, *(writer.role for writer in able if writer.superuser)])),
            note=f"superusers and the role that moves the rows; {owner} owns the table and could give itself the right",
        ),
    )


def close_to(
    connection: psycopg.Connection, table: sql.Composable, roles: Sequence[str], timeout_seconds: float
) -> None:
    """Revoke every right to write that :func:`write_grants` tells, and end the sessions of ``roles``.

    Returns when those sessions are gone. Raises DataError when one stays, or when a right stays: somebody else granted
    it. The rights have to be noted beforehand, nothing else knows them afterwards.
    """
    grantees = sorted({grant.grantee for grant in write_grants(connection, table)})
    if grantees:
        statement = sql.SQL("REVOKE {} ON {} FROM {}").format(
            sql.SQL(", ").join(map(sql.SQL, WRITES)), table, sql.SQL(", ").join(map(_grantee, grantees))
        )
        connection.execute(statement)
        left = write_grants(connection, table)
        if left:
            told = ", ".join(f"{grant.privilege} of {grant.grantee} by {grant.grantor}" for grant in left)
            raise DataError(f"rights to write stay after they were revoked: {told}; grant them as the table's owner")
    _end_sessions(connection, roles, timeout_seconds)


def require_no_writes_under_way(connection: psycopg.Connection, table: sql.Composable, timeout_seconds: float) -> None:
    """Return when no other transaction has written to the table and is still open, a prepared one included.

    Raises DataError with who it is when one stays open longer.
    """
    names = {"table": table.as_string(connection)}
    holders = _wait_until_none(lambda: connection.execute(_HOLDERS, names).fetchall(), timeout_seconds)
    if holders:
        raise DataError(
            f"{', '.join(sorted(holder for (holder,) in holders))} still writes to {names['table']} though its writers "
            "are shut out; end that transaction, or name the role as a writer"
        )


def open_to(connection: psycopg.Connection, table: sql.Composable, grants: Iterable[Grant]) -> None:
    """Grant exactly these rights, all of them at once. Granting what is there already changes nothing."""
    statements = [
        sql.SQL("GRANT {} ON {} TO {}{}").format(
            sql.SQL(", ").join(_right(grant) for grant in group),
            table,
            _grantee(grantee),
            sql.SQL(" WITH GRANT OPTION" if grantable else ""),
        )
        for (grantee, grantable), group in groupby(sorted(grants, key=_whose), key=_whose)
    ]
    if statements:
        connection.execute(sql.SQL("; ").join(statements))


def _end_sessions(connection: psycopg.Connection, roles: Sequence[str], timeout_seconds: float) -> None:
    ended = {pid for (pid,) in connection.execute(_SESSIONS, [list(roles)]).fetchall()}
    connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", [list(ended)])
    alive = "SELECT pid FROM pg_stat_activity WHERE pid = ANY(%s) AND usename = ANY(%s)"
    left = _wait_until_none(lambda: connection.execute(alive, [list(ended), list(roles)]).fetchall(), timeout_seconds)
    if left:
        raise DataError(
            f"{len(left)} sessions of {', '.join(roles)} did not end within {timeout_seconds:g} s (processes "
            f"{', '.join(str(pid) for (pid,) in left)}); look at what they wait for in pg_stat_activity"
        )


def _wait_until_none(look: Callable[[], list[tuple[Any, ...]]], timeout_seconds: float) -> list[tuple[Any, ...]]:
    deadline = time.monotonic() + timeout_seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return found


def _stubborn(writer: Writer, mover: str) -> str:
    """Why revoking does not shut this writer out; empty when it does."""
    if writer.superuser:
        return f"{writer.role} (a superuser)"
    if writer.role == mover:
        return f"{writer.role} (the role that moves the rows)"
    held = [grantee for grantee in writer.through if grantee in (mover, _WRITES_EVERYWHERE)]
    return f"{writer.role} (a member of {held[0]})" if held else ""


def _with_way(writer: Writer) -> str:
    others = [grantee for grantee in writer.through if grantee != writer.role]
    return f"{writer.role} through {', '.join(others)}" if others else writer.role


def _whose(grant: Grant) -> tuple[str, bool]:
    return grant.grantee, grant.grantable


def _grantee(name: str) -> sql.Composable:
    return sql.SQL(_PUBLIC) if name == _PUBLIC else sql.Identifier(name)


def _right(grant: Grant) -> sql.Composable:
    privilege = sql.SQL(grant.privilege)
    return privilege if grant.column is None else sql.SQL("{} ({})").format(privilege, sql.Identifier(grant.column))
