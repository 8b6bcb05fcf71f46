"""Searching as the application has to, and timing it: prepared, binary, one query at a time, one client.

Sessions that search set ``enable_seqscan = off``, as pgvector's own documentation advises: the planner does not see
that vectors of this size lie in TOAST, takes reading the whole table for cheap, and from a few probes on does that
instead. What it would have done is told beside what was timed. What the application's own driver takes to put its
request together, some 40 us with a cursor of psycopg, is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import Vector
from psycopg import sql

from orchestra_lib.bench.prepared import PreparedStatement
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.forms import Effort, Form, Method
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.pinned import KEEP_THE_PLAN, PlanLost, check_pinned, index_of, pin
from orchestra_lib.vectors.truth import Truth

_PASSES = 3
_pins = count(1)
# An exact search must not use a vector index; one on a filter's column stays allowed, as a bitmap. Were reading the
# table switched off as well, the planner would weigh the two against each other and take the index after all.
_PLANNER = {
    Method.EXACT: {"enable_indexscan": "off", "enable_seqscan": "on"},
    **{method: {"enable_seqscan": "off"} for method in (Method.IVFFLAT, Method.HNSW, Method.SCANN)},
}


@dataclass(frozen=True)
class SearchRun:
    """What a pass over the queries returned and how long each took.

    ``ids``: a tuple of row ids a query, nearest first; ``milliseconds``: float64 (q,), from sending to the last row;
    ``plan_uses``: the name of the index that the server's plan scans, None when it scans the table;
    ``plan_left_alone``: the same for a session that left the planner as it is.
    """

    effort: Effort
    ids: tuple[tuple[str, ...], ...]
    milliseconds: NDArray[np.float64]
    plan_uses: str | None
    plan_left_alone: str | None


@dataclass(frozen=True)
class Searchable:
    """A table to search, by which distance, how many rows to ask for, and the form of the index that answers.

    ``filters`` names columns that every query also gives a value for. ``dimension`` is needed where the index stores
    something else than the vector. ``only`` names the index that has to answer where several could: the youngest.
    """

    table: sql.Composable
    opclass: str
    k: int
    form: Form
    id_column: str = "id"
    embedding_column: str = "embedding"
    dimension: int | None = None
    filters: tuple[str, ...] = ()
    only: str | None = None

    def statement(self, effort: Effort) -> sql.Composed:
        """The application's query; its parameters are those of ``parameters``. Raises ParameterError."""
        return self.form.search_statement(
            self.table,
            self.id_column,
            self.embedding_column,
            self.dimension,
            self.opclass,
            self.k,
            effort,
            self.filters,
        )

    def parameters(self, query: NDArray[np.float32], values: Sequence[str] = ()) -> dict[str, object]:
        """The parameters of one query: its vector and, for each column that is filtered by, its value."""
        return {"query": Vector(query), **dict(zip(self.filters, values, strict=True))}


Ask = Callable[..., tuple[tuple[str, ...], float]]
"""Runs one query: takes its vector and, where there are filters, their values; gives ids and milliseconds."""


@contextmanager
def searching(connection: psycopg.Connection, target: Searchable, effort: Effort) -> Iterator[Ask]:
    """Inside, the session searches as the application's do; yields what runs one query: its ids and milliseconds.

    Raises DataError when the server does not have the settings that were made, or when the index that ``target.only``
    names cannot answer; PlanLost at the end when it did not answer all of the queries.
    """
    # The effort is part of a plan's cost, and a prepared statement keeps its plan: each effort gets one of its own.
    # Else the plan of the first one would be timed for all of them, and another one be told.
    statement = target.statement(effort) + sql.SQL(f" /* {target.form.label}, effort {effort} */")
    settings = session_settings(target.form, effort)
    if target.only is not None:
        statement += sql.SQL(f" /* pinned {next(_pins)} */")
        settings |= KEEP_THE_PLAN
    last: dict[str, object] = {}
    with session(connection, settings):
        run = PreparedStatement(connection, statement)

        def ask(query: NDArray[np.float32], values: Sequence[str] = ()) -> tuple[tuple[str, ...], float]:
            parameters = target.parameters(query, values)
            if target.only is not None and not last:
                pin(connection, target.only, statement, parameters, run)
            last.update(parameters)
            started = time.perf_counter()
            rows = run(parameters)
            return tuple(row[0] for row in rows), (time.perf_counter() - started) * 1e3

        yield ask
        if target.only is not None and last:
            check_pinned(connection, target.only, statement, last)


def search(
    connection: psycopg.Connection,
    target: Searchable,
    queries: Matrix,
    effort: Effort,
    values: Sequence[Sequence[str]] | None = None,
) -> SearchRun:
    """Run every query once, in order, with the given effort, and time each at the client.

    ``values`` holds, for each query, the values of the columns that are filtered by. The first pass of a session
    includes reading pages in; call it twice and keep the second for warm figures. A pass in which the server lost
    the plan of the index that ``target.only`` names is run again. Raises DataError when the server does not have the
    settings that were made, or when that index cannot answer.
    """
    given = values if values is not None else [()] * len(queries)
    with session(connection, target.form.settings(effort)):
        left_alone = planned_index(connection, target, effort, queries[0], given[0])
    for attempt in range(_PASSES):
        try:
            with searching(connection, target, effort) as ask:
                uses = target.only or planned_index(connection, target, effort, queries[0], given[0])
                answers = [ask(query, of_query) for query, of_query in zip(queries, given, strict=True)]
            break
        except PlanLost:
            if attempt == _PASSES - 1:
                raise
    milliseconds = np.asarray([elapsed for _, elapsed in answers])
    return SearchRun(effort, tuple(ids for ids, _ in answers), milliseconds, uses, left_alone)


def session_settings(form: Form, effort: Effort) -> dict[str, str]:
    """What a session sets before it searches, by name; the extension has to be loaded before."""
    return form.settings(effort) | _PLANNER[form.method]


def planned_index(
    connection: psycopg.Connection,
    target: Searchable,
    effort: Effort,
    query: NDArray[np.float32],
    values: Sequence[str] = (),
) -> str | None:
    """The index that the server's plan for a query scans; None when it does not use one."""
    statement = sql.SQL("EXPLAIN (FORMAT json) ") + target.statement(effort)
    return index_of(connection.execute(statement, target.parameters(query, values), prepare=False).fetchone())


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
def session(connection: psycopg.Connection, wanted: Mapping[str, str]) -> Iterator[None]:
    """Inside, the session has these settings, read back; afterwards those that it began with. Raises DataError."""
    # The library must be loaded before its settings exist, or the server takes any text for them.
    connection.execute("SELECT '[1]'::vector <=> '[1]'::vector")
    for name, value in wanted.items():
        connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
        if row is None or row[0] != value:
            raise DataError(f"{name} was set to {value}, the server has {row[0] if row else 'nothing'}")
    try:
        yield
    finally:
        for name in wanted:
            connection.execute(sql.SQL("RESET {}").format(sql.SQL(name)))
