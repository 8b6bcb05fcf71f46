"""Searching as the application has to, and timing it: prepared, binary, one query at a time, one client.

Sessions that search set ``enable_seqscan = off``, as pgvector's own documentation advises: the planner does not see
that vectors of this size lie in TOAST, takes reading the whole table for cheap, and from a few probes on does that
instead. What it would have done is told beside what was timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import Vector
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.truth import OPERATORS, Truth


@dataclass(frozen=True)
class SearchRun:
    """What a pass over the queries returned and how long each took.

    ``ids``: a tuple of row ids a query, nearest first; ``milliseconds``: float64 (q,), from sending to the last row;
    ``plan_uses``: the name of the index that the server's plan scans, None when it scans the table;
    ``plan_left_alone``: the same for a session that did not set ``enable_seqscan = off``.
    """

    probes: int
    ids: tuple[tuple[str, ...], ...]
    milliseconds: NDArray[np.float64]
    plan_uses: str | None
    plan_left_alone: str | None


@dataclass(frozen=True)
class Searchable:
    """A table to search, its operator class, and how many rows to ask for."""

    table: sql.Composable
    opclass: str
    k: int
    id_column: str = "id"
    embedding_column: str = "embedding"

    def statement(self) -> sql.Composed:
        """The application's query; its one parameter is the query vector."""
        # The cast lets a column of arrays be searched too; on a column of vectors it is nothing, indexes are used.
        return sql.SQL("SELECT {key}::text FROM {table} ORDER BY {vector}::vector {operator} %b LIMIT {k}").format(
            key=sql.Identifier(self.id_column),
            table=self.table,
            vector=sql.Identifier(self.embedding_column),
            operator=sql.SQL(OPERATORS[self.opclass]),
            k=sql.Literal(self.k),
        )


@contextmanager
def searching(
    connection: psycopg.Connection, target: Searchable, probes: int
) -> Iterator[Callable[[Matrix], tuple[tuple[str, ...], float]]]:
    """Inside, the session searches as the application's do; yields what runs one query: its ids and milliseconds.

    Raises DataError when the server does not have the probes that were set.
    """
    # The probes are part of a plan's cost, and a prepared statement keeps its plan: each number gets one of its own.
    # Else the plan of the first probes would be timed for all of them, and another one be told.
    statement = target.statement() + sql.SQL(f" /* probes {int(probes)} */")
    with _probes(connection, probes), connection.cursor(binary=True) as cursor:
        connection.execute("SET enable_seqscan = off")

        def ask(query: Matrix) -> tuple[tuple[str, ...], float]:
            started = time.perf_counter()
            rows = cursor.execute(statement, [Vector(query)], prepare=True).fetchall()
            return tuple(row[0] for row in rows), (time.perf_counter() - started) * 1e3

        yield ask


def search(connection: psycopg.Connection, target: Searchable, queries: Matrix, probes: int) -> SearchRun:
    """Run every query once, in order, with the given probes, and time each at the client.

    The first pass of a session includes reading pages in; call it twice and keep the second for warm figures.
    Raises DataError when the server does not have the probes that were set.
    """
    with _probes(connection, probes):
        left_alone = planned_index(connection, target, queries[0])
    with searching(connection, target, probes) as ask:
        uses = planned_index(connection, target, queries[0])
        answers = [ask(query) for query in queries]
    milliseconds = np.asarray([elapsed for _, elapsed in answers])
    return SearchRun(probes, tuple(ids for ids, _ in answers), milliseconds, uses, left_alone)


def planned_index(connection: psycopg.Connection, target: Searchable, query: Matrix) -> str | None:
    """The index that the server's plan for a query scans; None when it does not use one."""
    row = connection.execute(
        sql.SQL("EXPLAIN (FORMAT json) ") + target.statement(), [Vector(query)], prepare=False
    ).fetchone()
    nodes = [row[0][0]["Plan"]] if row else []
    while nodes:
        node = nodes.pop()
        if node["Node Type"].startswith("Index"):
            return str(node["Index Name"])
        nodes.extend(node.get("Plans", ()))
    return None


def recalls(run: SearchRun, truth: Truth) -> NDArray[np.float64]:
    """Recall@k of every query, float64 (q,): the share of its k nearest that came back; ties count as right.

    A short answer counts its missing rows as misses.
    """
    wanted = min(truth.k, truth.rows)
    right = [
        min(len(truth.accepted(number).intersection(truth.without_self(number, found))), wanted)
        for number, found in enumerate(run.ids)
    ]
    return np.asarray(right, dtype=np.float64) / wanted


def hits(run: SearchRun, answers: Sequence[str]) -> NDArray[np.float64]:
    """For each query 1 when its answer is among the rows returned, else 0; their mean is hit@k. float64 (q,)."""
    return np.asarray([float(answer in found) for answer, found in zip(answers, run.ids, strict=True)])


def reciprocal_ranks(run: SearchRun, answers: Sequence[str]) -> NDArray[np.float64]:
    """For each query 1 / rank of its answer, 0 when it did not come back; their mean is MRR. float64 (q,)."""
    return np.asarray(
        [
            1 / (found.index(answer) + 1) if answer in found else 0.0
            for answer, found in zip(answers, run.ids, strict=True)
        ]
    )


@contextmanager
def _probes(connection: psycopg.Connection, probes: int) -> Iterator[None]:
    # The library must be loaded before its settings exist, or the server takes any text for them.
    connection.execute("SELECT '[1]'::vector <=> '[1]'::vector")
    connection.execute("SELECT set_config('ivfflat.probes', %s, false)", [str(probes)])
    row = connection.execute("SHOW ivfflat.probes").fetchone()
    if row is None or row[0] != str(probes):
        raise DataError(f"ivfflat.probes was set to {probes}, the server has {row[0] if row else 'nothing'}")
    try:
        yield
    finally:
        connection.execute("RESET ivfflat.probes")
        connection.execute("RESET enable_seqscan")
