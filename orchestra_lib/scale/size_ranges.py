"""Key ranges of about equal size in bytes: a range of long texts takes as long as one of many short ones.

Ranges of equal count would not: memories differ in length by a hundred times, and the longest range decides when the
last worker ends. Boundaries come from a sample of keys with the sizes of their rows, as stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import psycopg
from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.memory.source import SourceTable
from orchestra_lib.scale.spec import TransferSpec

_SAMPLED_ROWS = 100_000
_MOST_RANGES = 100_000
"""Ranges are rows of a table on the target and elements of a job: more of them would only cost."""


def boundaries(sample: Sequence[tuple[str, int]], ranges: int) -> tuple[str, ...]:
    """Keys at which to cut a sample of (key, bytes), in byte order of the keys, into ``ranges`` parts of equal bytes.

    A part is larger than its share by less than one sampled row. Fewer keys where a single one is a part's share or
    more; each is a key of the sample but not its first.
    """
    ordered = sorted(sample, key=lambda row: row[0].encode())
    reached = list(accumulate(size for _, size in ordered))
    if not reached:
        return ()
    share = reached[-1] / ranges
    cuts = dict[str, None]()
    part = 1
    for (_, before), (key, _) in pairwise(zip((key for key, _ in ordered), reached, strict=True)):
        if before >= part * share * (1 - 1e-12) and part < ranges:
            cuts[key] = None
            part = math.floor(before / share * (1 + 1e-12)) + 1
    return tuple(cuts)


def ranges_by_size(connection: psycopg.Connection, source: SourceTable, range_bytes: int) -> tuple[KeyRange, ...]:
    """Cut a source's keys into ranges of about ``range_bytes`` of rows; an empty table is one range.

    Up to 100,000 rows are sampled, in blocks where the table is larger; none is read whole, the server tells sizes.
    """
    table_bytes, rows = _size(connection, source)
    count = min(_MOST_RANGES, max(1, round(table_bytes / range_bytes)))
    cuts = boundaries(_sample(connection, source, rows), count) if count > 1 else ()
    edges = [None, *cuts, None]
    return tuple(KeyRange(number, low, high) for number, (low, high) in enumerate(pairwise(edges), start=1))


def ranges_of(spec: TransferSpec) -> tuple[KeyRange, ...]:
    """The source's ranges as they are now. Raises DataError, TargetUnreachable."""
    job = spec.job()
    with connect(job.source_conninfo, role="source") as source:
        return ranges_by_size(source, job.source, spec.range_bytes)


def _size(connection: psycopg.Connection, source: SourceTable) -> tuple[int, float]:
    """Bytes of the table without its indexes, and the catalogue's estimate of its rows; -1 if it was never analysed."""
    row = connection.execute(
        "SELECT pg_table_size(oid), reltuples FROM pg_class WHERE oid = %s::regclass",
        [source.table.as_string(connection)],
    ).fetchone()
    return (int(row[0]), float(row[1])) if row else (0, 0.0)


def _sample(connection: psycopg.Connection, source: SourceTable, rows: float) -> list[tuple[str, int]]:
    percent = 100 * _SAMPLED_ROWS / rows if rows > _SAMPLED_ROWS else None
    clause = sql.SQL("TABLESAMPLE SYSTEM ({}) REPEATABLE (1)").format(sql.Literal(percent)) if percent else sql.SQL("")
    # Column by column: the size of a whole row would fetch each vector from where it is kept.
    sizes = sql.SQL(" + ").join(
        sql.SQL("coalesce(pg_column_size({}), 0)").format(sql.Identifier(source.columns[column]))
        for column in COLUMNS
        if column in source.columns
    )
    statement = sql.SQL("SELECT {}::text, {} FROM {} {}").format(
        sql.Identifier(source.id_column), sizes, source.table, clause
    )
    return connection.execute(statement).fetchall()
