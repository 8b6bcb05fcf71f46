"""Searches with a filter: the values to filter by, their own truth, and the effort that they need.

An index hands over the nearest rows and the filter then takes rows away. With the iterative scan the index goes on
until enough are left, but only in the order of its lists, so a filtered search needs an effort of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forms import Effort, Method
from orchestra_lib.vectors.measured import Measured, find_effort, measure
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.truth import filtered_neighbours

MOST_QUERIES = 100
"""Each value that is filtered by needs a truth of its own."""


@dataclass(frozen=True)
class FilteredQueries:
    """Queries with one value each for ``column``, and the exact neighbours among the rows that have it."""

    column: str
    values: tuple[tuple[str], ...]
    queries: QuerySet


def filtered_queries(
    connection: psycopg.Connection, target: Searchable, queries: QuerySet, k: int, column: str
) -> FilteredQueries:
    """Give the first queries the values that rows chosen by the hash of their ids have, and compute their truth.

    Raises DataError when the column is empty.
    """
    vectors = queries.vectors[:MOST_QUERIES]
    own = queries.truth.excluded[: len(vectors)] if queries.truth.excluded else None
    values = _values(connection, target, column, len(vectors))
    truth = filtered_neighbours(connection, target.table, vectors, k, target.opclass, {column: values}, own)
    return FilteredQueries(column, tuple((value,) for value in values), QuerySet(vectors, None, truth))


def usual_effort(target: Searchable, effort: Effort) -> Effort:
    """The effort without a filter, with the iterative scan where the method knows it."""
    return replace(effort, iterative=target.form.method in (Method.IVFFLAT, Method.HNSW))


def find_filtered_effort(
    connection: psycopg.Connection,
    target: Searchable,
    filtered: FilteredQueries,
    effort: Effort,
    recall_target: float,
) -> Effort:
    """The least effort, from that without a filter on, with which filtered searches clear the target as well."""
    narrowed = replace(target, filters=(filtered.column,))
    start = usual_effort(target, effort)
    found = find_effort(connection, narrowed, filtered.queries, start, recall_target, filtered.values)
    return replace(start, value=max(effort.value, found.effort.value))


def measure_filtered(
    connection: psycopg.Connection, target: Searchable, filtered: FilteredQueries, effort: Effort
) -> Measured:
    """One pass to read what is needed, one that counts."""
    narrowed = replace(target, filters=(filtered.column,))
    measure(connection, narrowed, filtered.queries, effort, values=filtered.values)
    return measure(connection, narrowed, filtered.queries, effort, values=filtered.values)


def _values(connection: psycopg.Connection, target: Searchable, column: str, count: int) -> list[str]:
    rows = connection.execute(
        sql.SQL(
            "SELECT {column}::text FROM {table} WHERE {column} IS NOT NULL ORDER BY md5({key}::text) LIMIT %s"
        ).format(column=sql.Identifier(column), table=target.table, key=sql.Identifier(target.id_column)),
        [count],
    ).fetchall()
    if not rows:
        raise DataError(f"the column {column} is empty: nothing can be filtered by it; leave it out of the filters")
    values = [row[0] for row in rows]
    return (values * -(-count // len(values)))[:count]
