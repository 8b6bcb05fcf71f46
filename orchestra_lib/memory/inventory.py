"""What is in a source before anything is moved: counts, sizes, dimensions, norms, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory.schema import COLUMNS, NULLABLE
from orchestra_lib.memory.source import SourceTable, readable

# The target refuses a NULL in these; those of the id and of the embedding are claims of their own.
_NEVER_NULL = tuple(column for column in COLUMNS if column not in NULLABLE | {"id", "embedding"})
_NORM_TOLERANCE = 1e-3  # float32 rounding over 1536 terms stays below 1e-5; more means "not normalised"


@dataclass(frozen=True)
class Inventory:
    """Counts of rows, sizes in bytes, norms without unit; ``dimensions`` maps dimension -> rows.

    ``duplicate_ids`` holds up to five of the ids that more than one row has; ``nulls`` maps a column that the target
    wants a value in -> rows that have none there.
    """

    rows: int
    distinct_ids: int
    duplicate_ids: tuple[str, ...]
    null_ids: int
    null_embeddings: int
    nulls: dict[str, int]
    zero_embeddings: int
    dimensions: dict[int, int]
    smallest_norm: float
    largest_norm: float
    duplicate_embeddings: int
    rows_by_model: dict[str, int]
    table_bytes: int
    index_bytes: int
    server_version: str
    pgvector_version: str

    @property
    def normalised(self) -> bool:
        """Whether every embedding has length 1 within float32 rounding."""
        return abs(self.smallest_norm - 1) <= _NORM_TOLERANCE and abs(self.largest_norm - 1) <= _NORM_TOLERANCE


_COUNTS = """
SELECT count(*), count(DISTINCT id), count(*) - count(id), count(*) - count(embedding),
       count(*) FILTER (WHERE vector_norm(embedding) = 0),
       coalesce(min(vector_norm(embedding)), 0), coalesce(max(vector_norm(embedding)), 0),
       count(embedding) - count(DISTINCT md5(vector_send(embedding))), {nulls}
FROM ({select}) AS rows
"""


def take_inventory(connection: psycopg.Connection, source: SourceTable) -> Inventory:
    """Read every row of the source once (server side; nothing but the counts travels).

    Raises DataError when the embedding column does not hold vectors, or the table cannot be read.
    """
    dimensions = dict(
        _rows(
            connection,
            "SELECT vector_dims(embedding), count(*) FROM ({select}) AS rows "
            "WHERE embedding IS NOT NULL GROUP BY 1 ORDER BY 1",
            source,
        )
    )
    counts = _rows(connection, _COUNTS, source)[0]
    nulls = {column: rows for column, rows in zip(_NEVER_NULL, counts[8:], strict=True) if rows}
    models = dict(
        _rows(connection, "SELECT embedding_model, count(*) FROM ({select}) AS rows GROUP BY 1 ORDER BY 1", source)
    )
    sizes = connection.execute(
        "SELECT pg_table_size(c), pg_indexes_size(c), current_setting('server_version'), "
        "(SELECT extversion FROM pg_extension WHERE extname = 'vector') FROM (SELECT %s::regclass AS c) AS t",
        [source.table.as_string(connection)],
    ).fetchone()
    if sizes is None:
        raise DataError(f"the source's catalogue does not know {source.table.as_string(connection)}")
    rows, distinct, null_ids, null_embeddings, zeros, smallest, largest, duplicates = counts[:8]
    return Inventory(
        rows,
        distinct,
        _duplicate_ids(connection, source) if distinct + null_ids < rows else (),
        null_ids,
        null_embeddings,
        nulls,
        zeros,
        dimensions,
        float(smallest),
        float(largest),
        duplicates,
        models,
        *sizes,
    )


def inventory_checks(inventory: Inventory, dimension: int) -> tuple[Evidence, ...]:
    """What must hold before a single row is moved, as evidence; all of it OBSERVED on the source."""
    found = ", ".join(f"{rows:,} rows of {size}" for size, rows in inventory.dimensions.items()) or "no embedding"
    wrong_dimension = sum(rows for size, rows in inventory.dimensions.items() if size != dimension)
    duplicates = inventory.rows - inventory.null_ids - inventory.distinct_ids

    def count(claim: str, value: int, bound: Bound, note: str = "") -> Evidence:
        return Evidence(claim, Source.OBSERVED, value, "rows", bound, note=note)

    none = Bound("==", 0)
    return (
        count("the source holds rows", inventory.rows, Bound(">", 0)),
        count(f"rows whose embedding has not {dimension} dimensions", wrong_dimension, none, f"found {found}"),
        count("rows without an embedding", inventory.null_embeddings, none, "they could never be found"),
        count("rows with a zero embedding", inventory.zero_embeddings, none, "cosine distance leaves them out"),
        count("rows without an id", inventory.null_ids, none),
        count("rows whose id another row has", duplicates, none, ", ".join(inventory.duplicate_ids)),
        *(
            count(f"rows without a {column}", rows, none, "the memory table wants one: fill it, or map another column")
            for column, rows in inventory.nulls.items()
        ),
    )


def inventory_readings(inventory: Inventory) -> tuple[Evidence, ...]:
    """What the source holds, judged by nothing."""

    def reading(claim: str, value: int | str, unit: str, note: str = "") -> Evidence:
        return Evidence(claim, Source.OBSERVED, value, unit, note=note)

    return (
        *(reading(f"rows embedded by {model}", rows, "rows") for model, rows in inventory.rows_by_model.items()),
        reading("rows with the same embedding as another", inventory.duplicate_embeddings, "rows"),
        reading(
            "lengths of the embeddings",
            f"{inventory.smallest_norm:.6f} to {inventory.largest_norm:.6f}",
            "",
            "" if inventory.normalised else "not all of length 1: inner product and cosine rank differently",
        ),
        reading("size of the table, without its indexes", inventory.table_bytes, "bytes"),
        reading("size of its indexes", inventory.index_bytes, "bytes"),
        reading(
            "server of the source", f"PostgreSQL {inventory.server_version}, pgvector {inventory.pgvector_version}", ""
        ),
    )


def _duplicate_ids(connection: psycopg.Connection, source: SourceTable) -> tuple[str, ...]:
    """Up to five ids that more than one row has, in key order."""
    found = _rows(
        connection,
        "SELECT id FROM ({select}) AS rows GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 5",
        source,
    )
    return tuple(row[0] for row in found)


def _rows(connection: psycopg.Connection, statement: str, source: SourceTable) -> list[tuple]:  # type: ignore[type-arg]
    nulls = sql.SQL(", ").join(sql.SQL("count(*) - count({})").format(sql.Identifier(name)) for name in _NEVER_NULL)
    try:
        with readable(source.table.as_string(connection).replace('"', "")):
            return connection.execute(sql.SQL(statement).format(select=source.select, nulls=nulls)).fetchall()
    except (psycopg.errors.CannotCoerce, psycopg.errors.InvalidTextRepresentation, psycopg.errors.DataError) as error:
        raise DataError(
            f"the column {source.embedding_column} of the source does not hold vectors: {error.diag.message_primary}"
        ) from error
