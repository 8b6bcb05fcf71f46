"""The one table of the memory store: its columns, its types, and the statement that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from psycopg import sql

DIMENSION = 1536

COLUMN_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "id": "text",
        "agent_id": "text",
        "user_id": "text",
        "session_id": "text",
        "persona": "text",
        "item_type": "text",
        "content": "text",
        "metadata": "jsonb",
        "embedding": "vector",
        "embedding_model": "text",
        "version": "int8",
        "created_at": "timestamptz",
        "updated_at": "timestamptz",
        "expires_at": "timestamptz",
    }
)
"""Column name -> PostgreSQL type name, in table order. The types name the ``<type>send`` functions of checksums."""

COLUMNS: tuple[str, ...] = tuple(COLUMN_TYPES)

NULLABLE = frozenset({"expires_at"})

# Byte order ("C"), so that key ranges mean the same rows on two servers whatever their locales are.
_DDL = """
CREATE TABLE IF NOT EXISTS {table} (
    id text COLLATE "C" PRIMARY KEY,
    agent_id text NOT NULL,
    user_id text NOT NULL,
    session_id text NOT NULL,
    persona text NOT NULL,
    item_type text NOT NULL,
    content text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{{}}',
    embedding vector({dimension}) NOT NULL,
    embedding_model text NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    expires_at timestamptz
)
"""


def create_table(name: str = "memories", dimension: int = DIMENSION) -> sql.Composed:
    """The statement that makes the table unless it is there. Needs the extension ``vector``."""
    return sql.SQL(_DDL).format(table=sql.Identifier(name), dimension=sql.Literal(dimension))
