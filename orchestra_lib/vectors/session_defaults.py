"""What new sessions begin with: settings of a database, or of a role in it, persisted, read back and taken away again.

A setting that a role has of its own hides the database's, and sessions that are open keep what they began with: both
are looked for, since a search with too few probes answers as if nothing were wrong.
https://www.postgresql.org/docs/current/sql-alterrole.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.forms import EXACT, Effort, Form
from orchestra_lib.vectors.index import serving_index

LOADS_THE_LIBRARY = "SELECT '[1]'::vector <=> '[1]'::vector"
"""The extension's settings are known to a session only once its library is loaded."""

Defaults = Mapping[str, str | None]
"""Settings by name; None where there is no default of that scope."""


def defaults(connection: psycopg.Connection, names: Iterable[str], role: str | None = None) -> dict[str, str | None]:
    """What the database, or the role in it, has as defaults of these settings."""
    row = connection.execute(
        "SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = "
        "(SELECT oid FROM pg_database WHERE datname = current_database()) AND setrole = "
        "coalesce((SELECT oid FROM pg_roles WHERE rolname = %s), 0)",
        [role],
    ).fetchone()
    present = dict(entry.split("=", 1) for entry in row[0]) if row else {}
    return {name: present.get(name) for name in names}


def persist(address: Address, wanted: Defaults, role: str | None = None) -> dict[str, str]:
    """Make these the defaults of the database, or of a role in it, and return what a new session then has.

    None takes a default away. Needs to own the database, or be allowed to alter the role. Raises DataError when a new
    session has something else, or when the role has its own.
    """
    with connect(address, role="target") as connection:
        connection.execute(LOADS_THE_LIBRARY)
        for name, value in wanted.items():
            connection.execute(_alter(connection.info.dbname, role, name, value))
    with connect(address, role="target") as fresh:
        user = fresh.info.user
        kept = defaults(fresh, wanted, role)
        fresh.execute(LOADS_THE_LIBRARY)
        found = {name: _shown(fresh, name) for name in wanted}
        hidden = [] if role else hiding(fresh, wanted)
    if kept != dict(wanted):
        raise DataError(f"the server keeps {kept} as defaults, {dict(wanted)} were persisted; look who alters them")
    if role is None or role == user:
        _check(found, wanted, hidden)
        return found
    return {name: value for name, value in kept.items() if value is not None}


def hiding(connection: psycopg.Connection, names: Iterable[str]) -> list[str]:
    """The roles that have a default of their own for one of the settings, each with what takes it away."""
    rows = connection.execute(
        "SELECT coalesce(r.rolname, ''), s.setdatabase = 0, entry FROM pg_db_role_setting s "
        "JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) AS entry "
        "WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) "
        "AND split_part(entry, '=', 1) = ANY(%s) ORDER BY 1, 3",
        [list(names)],
    ).fetchall()
    where = {True: "", False: f" IN DATABASE {connection.info.dbname}"}
    return [
        f"role {name} has its own {entry} (ALTER ROLE {name}{where[everywhere]} RESET {entry.split('=', 1)[0]})"
        for name, everywhere, entry in rows
    ]


def session_setting(session: psycopg.Connection, name: str) -> int | None:
    """A number that this session has as a setting of the extension; None where there is no such setting."""
    session.execute(LOADS_THE_LIBRARY)
    row = session.execute("SELECT current_setting(%s, true)", [name]).fetchone()
    return int(row[0]) if row and row[0] else None


def searched_now(session: psycopg.Connection, table: sql.Composable, k: int) -> tuple[Form, Effort]:
    """What a search for k rows of the table does today: the index that serves, with the effort of a new session."""
    index = serving_index(session, table)
    if index is None:
        return EXACT, Effort(1)
    usual = index.form.usual_effort(k)
    now = session_setting(session, index.form.effort_setting or "")
    return index.form, Effort(now or usual.value, usual.rerank)


def older_sessions(connection: psycopg.Connection, moment: object) -> int:
    """How many sessions of others in this database began before a moment of the server's clock.

    They keep the settings that they began with. Without the right to see others' sessions they are counted all.
    """
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND coalesce(backend_type, 'client backend') = 'client backend' "
        "AND application_name NOT LIKE 'orchestra swap%%' AND coalesce(backend_start < %s, true)",
        [moment],
    ).fetchone()
    return int(row[0]) if row else 0


def _alter(database: str, role: str | None, name: str, value: str | None) -> sql.Composed:
    scope = (
        sql.SQL("ROLE {} IN DATABASE {}").format(sql.Identifier(role), sql.Identifier(database))
        if role
        else sql.SQL("DATABASE {}").format(sql.Identifier(database))
    )
    if value is None:
        return sql.SQL("ALTER {} RESET {}").format(scope, sql.SQL(name))
    return sql.SQL("ALTER {} SET {} = {}").format(scope, sql.SQL(name), sql.Literal(value))


def _shown(connection: psycopg.Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    return str(row[0]) if row else ""


def _check(found: Mapping[str, str], wanted: Defaults, hidden: list[str]) -> None:
    wrong = [f"{name} = {found[name]}" for name, value in wanted.items() if value is not None and found[name] != value]
    if wrong:
        raise DataError(
            f"a new session has {', '.join(wrong)} in place of what was persisted; "
            + ("; ".join(hidden) or "look whether its connection string or its pool sets it")
        )
