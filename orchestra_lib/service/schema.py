"""What the API needs in the memory's database beside the table: a role, row level security, indexes, idempotency keys.

The table's owner runs this, never the API. Statements may be repeated: what is there is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError

USER_SETTING = "orchestra.user_id"
"""The setting that names, for one transaction, whose rows are there."""
SCHEMA = "orchestra_api"
KEYS = sql.Identifier(SCHEMA, "idempotency_keys")
_TENANT_POLICY, _OPEN_POLICY = "orchestra_api_own_rows", "orchestra_others_as_granted"
_MEMBERSHIPS_WITHOUT_INHERITANCE = 160_000

# current_setting fails where nothing was set, so a statement outside of a user's transaction is an error, not empty.
_OWN = sql.SQL("user_id = current_setting({setting})").format(setting=sql.Literal(USER_SETTING))

_ROLE = "SELECT 1 FROM pg_roles WHERE rolname = %s"
_POLICY = "SELECT 1 FROM pg_policy WHERE polname = %s AND polrelid = %s::regclass"


def prepare(connection: psycopg.Connection, *, table: str, role: str, login: str | None = None) -> None:
    """Make the role, its rights and what confines it to the rows of one user; ``login`` may then take the role on.

    The restrictive policy is the role's alone: whoever else has rights on the table keeps them. The login does not
    inherit the role, so what it may do under its own name stays what phase 3 gave it.
    Raises DataError for a server before PostgreSQL 16, which cannot grant a role in this way.
    """
    if connection.info.server_version < _MEMBERSHIPS_WITHOUT_INHERITANCE:
        raise DataError(
            f"the server is PostgreSQL {connection.info.server_version // 10_000}; 16 is the first whose roles can be "
            "taken on without being inherited"
        )
    names = {"table": sql.Identifier(table), "role": sql.Identifier(role), "schema": sql.Identifier(SCHEMA)}
    with _alone(connection):
        for index, columns in _INDEXES.items():
            create = sql.SQL("CREATE INDEX IF NOT EXISTS {index} ON {table} ({columns})")
            connection.execute(create.format(index=sql.Identifier(index), columns=sql.SQL(columns), **names))
    with _alone(connection):
        for statement in _KEYS:
            connection.execute(sql.SQL(statement).format(keys=KEYS, **names))
        # A grant changes the table's row in pg_class, which a vacuum under way wants to change as well while it holds
        # off the lock that row level security takes: whoever has that lock first waits for nobody. The API's own
        # transactions begin with the keys, too.
        for each in (KEYS, names["table"]):
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(each))
        if connection.execute(_ROLE, [role]).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {role} NOLOGIN").format(**names))
        for statement in _RIGHTS:
            connection.execute(sql.SQL(statement).format(keys=KEYS, **names))
        _confine(connection, sql.Identifier(table), role)
        _confine(connection, KEYS, role)
        if login is not None:
            grant = sql.SQL("GRANT {role} TO {login} WITH INHERIT FALSE, SET TRUE")
            connection.execute(grant.format(login=sql.Identifier(login), **names))


@contextmanager
def _alone(connection: psycopg.Connection) -> Iterator[None]:
    """One transaction. Two who prepare at once would both find that there is no role."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [SCHEMA])
        yield


def is_prepared(connection: psycopg.Connection, *, table: str, role: str) -> bool:
    """Whether everything that :func:`prepare` makes for the role is there."""
    found = connection.execute(_PREPARED, {"policy": _TENANT_POLICY, "role": role, "table": table, "schema": SCHEMA})
    return bool((found.fetchone() or (False,))[0])


def withdraw(connection: psycopg.Connection, *, table: str, role: str) -> None:
    """Take away what :func:`prepare` has made, and the idempotency keys; the memories stay. May be repeated."""
    names = {"table": sql.Identifier(table), "role": sql.Identifier(role), "schema": sql.Identifier(SCHEMA)}
    with _alone(connection):
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {schema} CASCADE").format(**names))
        if connection.execute("SELECT to_regclass(%s)", [f'"{table}"']).fetchone() != (None,):
            for policy in (_TENANT_POLICY, _OPEN_POLICY):
                drop = sql.SQL("DROP POLICY IF EXISTS {policy} ON {table}")
                connection.execute(drop.format(policy=sql.Identifier(policy), **names))
            if connection.execute(_OTHER_POLICIES, [f'"{table}"']).fetchone() is None:
                connection.execute(sql.SQL("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY").format(**names))
        for index in _INDEXES:
            connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(index)))
        if connection.execute(_ROLE, [role]).fetchone() is not None:
            # Who made a role may grant it, and from PostgreSQL 16 on does not have its privileges for that.
            connection.execute(sql.SQL("GRANT {role} TO CURRENT_USER").format(**names))
            connection.execute(sql.SQL("DROP OWNED BY {role}").format(**names))
            connection.execute(sql.SQL("DROP ROLE {role}").format(**names))


# A page of a user's memories, and a conversation, are each one walk along an index.
_INDEXES = {
    "memories_user_created": "user_id, created_at DESC, id DESC",
    "memories_user_session_created": "user_id, session_id, created_at DESC, id DESC",
}
_OTHER_POLICIES = "SELECT 1 FROM pg_policy WHERE polrelid = %s::regclass"
_PREPARED = """
SELECT count(*) = 2
FROM pg_policies
WHERE policyname = %(policy)s AND %(role)s = ANY (roles)
  AND (tablename = %(table)s OR (schemaname = %(schema)s AND tablename = 'idempotency_keys'))
"""
_KEYS = (
    "CREATE SCHEMA IF NOT EXISTS {schema}",
    """
    CREATE TABLE IF NOT EXISTS {keys} (
        user_id text NOT NULL,
        key text NOT NULL,
        request_digest bytea NOT NULL,
        memory_id text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (user_id, key)
    )
    """,
)
_RIGHTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT, INSERT, DELETE ON {keys} TO {role}",
    "GRANT SELECT, INSERT, DELETE ON {table} TO {role}",
)


def _confine(connection: psycopg.Connection, table: sql.Identifier, role: str) -> None:
    """Let the role see and write a user's own rows only, and leave everybody else as they are."""
    connection.execute(sql.SQL("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY").format(table=table))
    policies = {
        # Without a permissive policy nobody but the owner would see a row any more.
        _OPEN_POLICY: sql.SQL("AS PERMISSIVE FOR ALL TO PUBLIC USING (true) WITH CHECK (true)"),
        _TENANT_POLICY: sql.SQL("AS RESTRICTIVE FOR ALL TO {role} USING ({own}) WITH CHECK ({own})").format(
            role=sql.Identifier(role), own=_OWN
        ),
    }
    for name, policy in policies.items():
        if connection.execute(_POLICY, [name, table.as_string(connection)]).fetchone() is None:
            create = sql.SQL("CREATE POLICY {name} ON {table} ")
            connection.execute(create.format(name=sql.Identifier(name), table=table) + policy)


# Asked by every session that the API opens, in the role that it works in: that it is confined, and how.
CONFINED = sql.SQL(
    "SELECT row_security_active({table}::regclass) AND EXISTS (SELECT FROM pg_policies WHERE policyname = {policy}"
    " AND permissive = 'RESTRICTIVE' AND (quote_ident(schemaname) || '.' || quote_ident(tablename))::regclass"
    " = {table}::regclass AND current_user = ANY (roles))"
)


def confined(table: str) -> sql.Composed:
    """The question whether this session sees one user's rows of the table only; answers true or false."""
    return CONFINED.format(table=sql.Literal(f'"{table}"'), policy=sql.Literal(_TENANT_POLICY))
