"""A checksum of rows that every PostgreSQL server computes alike, in any order.

A row's image is its record in binary form (``record_send``): for every column its type, its length and its bytes as
the type's send function gives them. The row's digest is PostgreSQL's own 64-bit hash of the image, a set of rows has
the sum of its rows' digests. The image is hashed as a whole: hashes of single columns would add up to the same when two
rows exchange a value. The hash guards against loss and damage, not against an attacker. Hash partitions are placed by
it, so servers keep it from version to version; ``require_equal_digests`` makes sure all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.memory.schema import COLUMN_TYPES, COLUMNS

# An extension's type has another identifier on every server, and the identifier is part of the image: such a column
# goes in as the bytes that its send function gives.
_SEND_FUNCTIONS = {"vector": "vector_send"}


@dataclass(frozen=True)
class Checksum:
    """How many rows, and the sum of their digests (an unbounded integer)."""

    rows: int
    total: int


def binary_columns() -> sql.Composed:
    """The columns in table order, named as in the schema, as types that every server has.

    Sent by COPY BINARY they are the same bytes as the columns themselves.
    """
    return sql.SQL(", ").join(_binary_column(column) for column in COLUMNS)


def record_digest(record: sql.Composable) -> sql.Composed:
    """The SQL expression (bigint) of the digest of a record of :func:`binary_columns`."""
    return sql.SQL("hash_record_extended(ROW(record_send({})), 0)").format(record)


def row_digest() -> sql.Composed:
    """The SQL expression (bigint) of a row's digest, over columns named as in the schema."""
    values = sql.SQL(", ").join(_binary_value(column) for column in COLUMNS)
    return record_digest(sql.SQL("ROW({})").format(values))


def require_equal_digests(source: psycopg.Connection, target: psycopg.Connection) -> None:
    """Raise DataError unless both servers give a known row the same digest: otherwise every row would seem changed."""
    theirs, ours = _known_digest(source, "source"), _known_digest(target, "target")
    if theirs != ours:
        raise DataError(
            f"the source (PostgreSQL {source.info.server_version}) and the target ({target.info.server_version}) hash "
            f"the same row to {theirs} and {ours}: their rows cannot be compared by checksum. "
            "Look for a function hash_record_extended or record_send in the search_path, or a big-endian machine"
        )


def _known_digest(connection: psycopg.Connection, role: str) -> int:
    known = sql.SQL("ROW('Zürich'::text, '{{\"n\": 1.50}}'::jsonb, '\\x00ff'::bytea, 1::int8, NULL::timestamptz)")
    try:
        row = connection.execute(sql.SQL("SELECT {}").format(record_digest(known.format()))).fetchone()
    except psycopg.errors.UndefinedFunction as error:
        raise DataError(
            f"the {role} runs PostgreSQL {connection.info.server_version // 10_000}, which cannot hash a row: "
            "checksums need hash_record_extended, PostgreSQL 14 or later"
        ) from error
    return int(row[0]) if row else 0


def _binary_value(column: str) -> sql.Composed:
    send = _SEND_FUNCTIONS.get(COLUMN_TYPES[column])
    name = sql.Identifier(column)
    return sql.SQL("{}({})").format(sql.SQL(send), name) if send else sql.Composed([name])


def _binary_column(column: str) -> sql.Composed:
    return sql.SQL("{} AS {}").format(_binary_value(column), sql.Identifier(column))
