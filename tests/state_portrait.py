"""What a database is: its schema, settings, roles, what follows it, a checksum of the rows. Two alike look alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import psycopg
from psycopg import sql

# One line each: a kind, and what tells one from another.
_CATALOG = """
SELECT 'extension', extname::text FROM pg_extension
UNION ALL SELECT 'schema', nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
UNION ALL SELECT 'column', format('%s.%s.%s %s%s', table_schema, table_name, column_name, udt_name, column_default)
  FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
UNION ALL SELECT 'index', indexdef FROM pg_indexes WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
UNION ALL SELECT 'constraint', format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
  FROM pg_constraint WHERE conrelid <> 0 AND connamespace::regnamespace::text !~ '^(pg_|information_schema)'
UNION ALL SELECT 'sequence', format('%s %s', sequencename, last_value) FROM pg_sequences
UNION ALL SELECT 'publication', pubname::text FROM pg_publication
UNION ALL SELECT 'slot', slot_name::text FROM pg_replication_slots WHERE database = current_database()
UNION ALL SELECT 'role', rolname::text FROM pg_roles WHERE rolname !~ '^pg_'
UNION ALL SELECT 'grant', format('%s %s %s', table_name, grantee, privilege_type)
  FROM information_schema.table_privileges
  WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND grantee <> grantor
UNION ALL SELECT 'setting', format('%s %s', setdatabase = 0, setconfig) FROM pg_db_role_setting
UNION ALL SELECT 'policy', format('%s %s', tablename, policyname) FROM pg_policies
"""
_TABLES = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"


def database_portrait(conninfo: str) -> list[str]:
    """One line an object, and one a table with the checksum of its rows."""
    with psycopg.connect(conninfo, autocommit=True) as session:
        lines = [f"{kind} {what}" for kind, what in session.execute(_CATALOG).fetchall()]
        for schema, table in session.execute(_TABLES).fetchall():
            statement = sql.SQL("SELECT count(*), md5(string_agg(md5(r::text), '' ORDER BY md5(r::text))) FROM {} r")
            lines.append(
                f"rows {schema}.{table} {session.execute(statement.format(sql.Identifier(schema, table))).fetchone()}"
            )
    return sorted(lines)


def state_hash(lines: Iterable[str]) -> str:
    """SHA-256 over a portrait."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
