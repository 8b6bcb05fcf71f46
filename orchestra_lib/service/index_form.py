"""Which vector index the table has: a search must be written as the index is, or it is not used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError

_OPERATORS = {"cosine": "<=>", "ip": "<#>", "l2": "<->"}
_STORAGES = ("vector", "halfvec")

# The oldest first: an index is swapped by building the new one beside the old, which serves until it is dropped.
_INDEXES = """
SELECT access.amname, opclass.opcname, greatest(relation.reltuples, 0)::bigint
FROM pg_index index
JOIN pg_class relation ON relation.oid = index.indrelid
JOIN pg_class class ON class.oid = index.indexrelid
JOIN pg_am access ON access.oid = class.relam
JOIN pg_opclass opclass ON opclass.oid = index.indclass[0]
WHERE index.indrelid = %s::regclass AND index.indisvalid AND access.amname = ANY (%s)
ORDER BY class.oid
"""
_METHODS = ("ivfflat", "hnsw", "scann")


@dataclass(frozen=True)
class IndexForm:
    """``method`` of the index, None where there is none; ``storage`` of its vectors; ``operator`` it orders by.

    ``rows`` is how many the table has, by the server's statistics.
    """

    method: str | None
    storage: str
    operator: str
    rows: int = 0

    def distance(self, column: sql.Composable, query: sql.Composable, dimension: int) -> sql.Composed:
        """The distance exactly as the index has it."""
        if self.storage == "vector":
            return sql.SQL("{} {} {}").format(column, sql.SQL(self.operator), query)
        stored = sql.SQL(f"{{}}::{self.storage}({dimension})")
        return sql.SQL("{} {} {}").format(stored.format(column), sql.SQL(self.operator), stored.format(query))


NO_INDEX = IndexForm(None, "vector", _OPERATORS["cosine"])
"""Without an index a search reads every row of the user; cosine, because embeddings are compared by their angle."""


async def read_form(session: psycopg.AsyncConnection[Any], table: str) -> IndexForm:
    """The form of the table's index. Raises DataError where there are only such as the service cannot search."""
    found = await (await session.execute(_INDEXES, [f'"{table}"', list(_METHODS)])).fetchall()
    forms = [form for method, opclass, rows in found if (form := _form(method, opclass, rows))]
    if found and not forms:
        told = ", ".join(f"{method} with {opclass}" for method, opclass, _ in found)
        raise DataError(f"the index of {table} is {told}; the service searches {' and '.join(_STORAGES)}")
    return forms[0] if forms else NO_INDEX


def _form(method: str, opclass: str, rows: int) -> IndexForm | None:
    storage, _, metric = opclass.removesuffix("_ops").rpartition("_")
    return (
        IndexForm(method, storage, _OPERATORS[metric], rows) if storage in _STORAGES and metric in _OPERATORS else None
    )
