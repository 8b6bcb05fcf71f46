"""The table that memories come from: our own layout, or the user's with a column mapping.

A source is read through one SELECT that yields the target's columns and types; everything that reads the source
(inventory, copy, checksum) goes through it, so that they all speak of the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.memory.schema import COLUMN_TYPES, COLUMNS

REQUIRED = ("id", "embedding")
# What a column holds when the user's table has nothing for it. Constants, so that a checksum can be repeated.
DEFAULTS: Mapping[str, str] = {
    "agent_id": "'unknown'",
    "user_id": "'unknown'",
    "session_id": "'unknown'",
    "persona": "'unknown'",
    "item_type": "'memory'",
    "content": "''",
    "metadata": "'{}'",
    "embedding_model": "'unknown'",
    "version": "1",
    "created_at": "'epoch'",
    "updated_at": "'epoch'",
    "expires_at": "NULL",
}


@dataclass(frozen=True)
class SourceTable:
    """A readable source: ``select`` yields the target's columns in order.

    ``columns`` maps the target's columns to the source's; ``defaulted`` are those that the source has nothing for: they
    get the constants of DEFAULTS.
    """

    table: sql.Composable
    select: sql.Composed
    id_column: str
    embedding_column: str
    defaulted: tuple[str, ...]
    columns: Mapping[str, str]


def source_table(connection: psycopg.Connection, name: str, mapping: Mapping[str, str]) -> SourceTable:
    """Resolve a table name and a mapping (target column -> source column) against the live catalogue.

    Raises DataError when the table or a mapped column does not exist, cannot be read, or ``id`` or ``embedding`` cannot
    be found.
    """
    parts = name.split(".")
    table = sql.Identifier(*parts)
    present = _columns(connection, table, name)
    columns = {column: mapping.get(column, column) for column in COLUMNS}
    wrong = [f"{ours} -> {theirs}" for ours, theirs in mapping.items() if theirs not in present]
    if wrong:
        raise DataError(
            f"the mapping names columns that {name} does not have: {', '.join(wrong)}; it has {', '.join(present)}"
        )
    missing = [column for column in REQUIRED if columns[column] not in present]
    if missing:
        raise DataError(
            f"{name} has no column {' and no column '.join(missing)}; it has {', '.join(present)}. "
            "Name the right one in source_columns, for example {'id': 'external_id', 'embedding': 'vector'}"
        )
    found = {ours: theirs for ours, theirs in columns.items() if theirs in present}
    defaulted = tuple(column for column in COLUMNS if column not in found)
    return SourceTable(
        table, _select(table, found), found["id"], found["embedding"], defaulted, MappingProxyType(found)
    )


def as_ours(column: str, value: sql.Composable | None) -> sql.Composed:
    """The SQL expression that makes of a source's value what the target's column holds; None takes the constant.

    Everything that reads a source's values uses it, the copy and the stream alike, so that their rows are the same.
    """
    return sql.SQL("{}::{}{}").format(
        sql.SQL(DEFAULTS[column]) if value is None else value,
        sql.SQL(COLUMN_TYPES[column]),
        sql.SQL(' COLLATE "C"' if column == "id" else ""),
    )


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Read the table of this name inside. Raises DataError when the user's rights or the server do not suffice."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise DataError(
            f"{name} cannot be read: {error.diag.message_primary}; grant the source's user USAGE on its schema and "
            "SELECT on the table"
        ) from error
    except (psycopg.errors.UndefinedObject, psycopg.errors.UndefinedFunction) as error:
        raise DataError(
            f"{name} cannot be read as vectors: {error.diag.message_primary}; the source needs the extension vector"
        ) from error


def _columns(connection: psycopg.Connection, table: sql.Identifier, name: str) -> list[str]:
    try:
        with readable(name):
            rows = connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
                "ORDER BY attnum",
                [table.as_string(connection)],
            ).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise DataError(
            f"the source has no table {name}; name it in source_table, with its schema if need be"
        ) from error
    return [row[0] for row in rows]


def _select(table: sql.Composable, columns: Mapping[str, str]) -> sql.Composed:
    expressions = (
        sql.SQL("{} AS {}").format(
            as_ours(column, sql.Identifier(columns[column]) if column in columns else None), sql.Identifier(column)
        )
        for column in COLUMNS
    )
    return sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(expressions), table)
