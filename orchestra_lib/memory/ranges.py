"""Key ranges: half-open stretches of the primary key that together hold every possible row once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import psycopg
from psycopg import sql

from orchestra_lib.memory.source import SourceTable

# Above this many rows the boundaries come from a block sample: reading every key would take longer than it is worth.
_ROWS_READ_WHOLE = 1_000_000
_SAMPLED_ROWS = 100_000


@dataclass(frozen=True, order=True)
class KeyRange:
    """Keys from ``low`` (included, None = the first) to ``high`` (excluded, None = past the last), in byte order."""

    number: int
    low: str | None
    high: str | None

    def condition(self) -> sql.Composed:
        """The SQL condition on a column named ``id``."""
        parts: list[sql.Composable] = [sql.SQL("true")]
        if self.low is not None:
            parts.append(sql.SQL('id >= {} COLLATE "C"').format(sql.Literal(self.low)))
        if self.high is not None:
            parts.append(sql.SQL('id < {} COLLATE "C"').format(sql.Literal(self.high)))
        return sql.SQL(" AND ").join(parts)

    def __str__(self) -> str:
        return f"range {self.number}, keys from {self.low or 'the first'} to before {self.high or 'the end'}"


def key_ranges(connection: psycopg.Connection, source: SourceTable, count: int) -> tuple[KeyRange, ...]:
    """Cut a source's keys into at most ``count`` ranges of about equal size, in key order.

    Equal boundaries fall together, so a small table gets fewer ranges; an empty one gets one.
    """
    if count < 2:
        return (KeyRange(1, None, None),)
    shares = [number / count for number in range(1, count)]
    statement = sql.SQL(
        'SELECT percentile_disc(%s::float8[]) WITHIN GROUP (ORDER BY {key}::text COLLATE "C") FROM {table} {sample}'
    ).format(key=sql.Identifier(source.id_column), table=source.table, sample=_sample_clause(connection, source))
    row = connection.execute(statement, [shares]).fetchone()
    boundaries = sorted(set(row[0] or []), key=str.encode) if row else []
    edges = [None, *boundaries, None]
    return tuple(KeyRange(n + 1, low, high) for n, (low, high) in enumerate(pairwise(edges)))


def _sample_clause(connection: psycopg.Connection, source: SourceTable) -> sql.Composed | sql.SQL:
    row = connection.execute(
        "SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", [source.table.as_string(connection)]
    ).fetchone()
    rows = row[0] if row else 0
    if rows <= _ROWS_READ_WHOLE:
        return sql.SQL("")
    percent = 100 * _SAMPLED_ROWS / rows
    return sql.SQL("TABLESAMPLE SYSTEM ({}) REPEATABLE (1)").format(sql.Literal(percent))
