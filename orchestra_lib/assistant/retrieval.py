"""Reading from the memory what may answer a question: the nearest items by SQL, in the way that its index answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from orchestra_lib.assistant.context import Memory
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.forms import EXACT, LARGEST_EFFORT, Effort, Form, Method
from orchestra_lib.vectors.index import serving_index
from orchestra_lib.vectors.search import Searchable, searching
from orchestra_lib.vectors.session_defaults import LOADS_THE_LIBRARY

Vectors = NDArray[np.float32]

_ENOUGH_ALIKE = 0.98  # of what twice the effort would find
_CHOOSING_QUESTIONS = 50
_FEWEST_TIMED = 100  # with fewer than 73 the p95 has no upper end
_OF_THE_LIBRARY = {Method.IVFFLAT: 1, Method.HNSW: 40}  # an effort that nobody chose: pgvector's own default


@dataclass(frozen=True)
class Retrieved:
    """What was read for each question, nearest first, and in which way.

    ``milliseconds``: float64 (rounds · q), all questions in order, as often as a quantile with an interval takes.
    """

    memories: tuple[tuple[Memory, ...], ...]
    milliseconds: NDArray[np.float64]
    form: Form
    effort: Effort

    @property
    def way(self) -> str:
        """Index and effort for people."""
        return self.form.label if self.form.effort_setting is None else f"{self.form.label}, effort {self.effort}"


@dataclass(frozen=True)
class Store:
    """A table of memories to read from. ``candidates`` is how many rows a question gets."""

    table: str
    opclass: str
    candidates: int


@dataclass(frozen=True)
class Holding:
    """What a table of memories holds: rows, and the embedding models with the rows of each, most first."""

    rows: int
    models: tuple[tuple[str, int], ...]


def holding(connection: psycopg.Connection, table: str) -> Holding | None:
    """What is in a table of memories; None when there is no such table."""
    if connection.execute("SELECT to_regclass(%s)", [f'"{table}"']).fetchone() == (None,):
        return None
    query = sql.SQL("SELECT embedding_model, count(*) FROM {} GROUP BY 1 ORDER BY 2 DESC, 1")
    models = tuple((str(name), int(n)) for name, n in connection.execute(query.format(sql.Identifier(table))))
    return Holding(sum(n for _, n in models), models)


def sampled_contents(connection: psycopg.Connection, table: str, count: int) -> tuple[str, ...]:
    """The contents of rows chosen by the hash of their id: the same on every run. Raises DataError without any."""
    query = sql.SQL("SELECT content FROM {} WHERE content <> '' ORDER BY md5(id) LIMIT %s").format(
        sql.Identifier(table)
    )
    contents = tuple(str(row[0]) for row in connection.execute(query, [count]))
    if not contents:
        raise DataError(f"the table {table} holds no content to look at")
    return contents


def retrieve(connection: psycopg.Connection, store: Store, vectors: Vectors, choosing: Sequence[int]) -> Retrieved:
    """Read for every question, one after the other. ``vectors``: float32 (q, dimension).

    The effort is the database's own, if it has one; otherwise the least that reads what twice as much would, for some
    questions of the places ``choosing``. Every question is asked once before it is timed.
    """
    index = serving_index(connection, sql.Identifier(store.table))
    form = index.form if index else EXACT
    target = Searchable(
        sql.Identifier(store.table), store.opclass, store.candidates, form, dimension=int(vectors.shape[1])
    )
    effort = _effort(connection, target, vectors[list(choosing[:_CHOOSING_QUESTIONS])])
    contents = _contents_statement(store.table)
    with searching(connection, target, effort) as ask:

        def read(vector: Vectors) -> tuple[tuple[Memory, ...], float]:
            began = time.perf_counter()
            found = _memories(connection, contents, ask(vector)[0])
            return found, (time.perf_counter() - began) * 1e3

        for vector in vectors:
            read(vector)
        rounds = math.ceil(_FEWEST_TIMED / len(vectors))
        answers = [read(vector) for _ in range(rounds) for vector in vectors]
    memories = tuple(found for found, _ in answers[: len(vectors)])
    return Retrieved(memories, np.asarray([ms for _, ms in answers]), form, effort)


def _contents_statement(table: str) -> sql.Composed:
    return sql.SQL(
        "SELECT id::text, item_type, to_char(updated_at, 'YYYY-MM-DD'), content FROM {} "
        "WHERE id = ANY(%s) AND (expires_at IS NULL OR expires_at > now())"
    ).format(sql.Identifier(table))


def _memories(connection: psycopg.Connection, statement: sql.Composed, ids: Sequence[str]) -> tuple[Memory, ...]:
    """The items of these ids, in their order; what has expired is left out."""
    rows = {str(row[0]): row for row in connection.execute(statement, [list(ids)], prepare=True)}
    return tuple(Memory(*map(str, rows[id_])) for id_ in ids if id_ in rows)


def _effort(connection: psycopg.Connection, target: Searchable, vectors: Vectors) -> Effort:
    usual = target.form.usual_effort(target.k)
    name = target.form.effort_setting
    if name is None:
        return usual
    connection.execute(LOADS_THE_LIBRARY)
    row = connection.execute("SELECT current_setting(%s, true)", [name]).fetchone()
    own = int(row[0]) if row and row[0] else 0
    if own > _OF_THE_LIBRARY.get(target.form.method, 0) and own >= (
        target.k if target.form.method is Method.HNSW else 1
    ):
        return replace(usual, value=own)
    return _least_effort(lambda effort: _found(connection, target, vectors, effort), usual, _most(target.form))


def _least_effort(found: Callable[[Effort], list[frozenset[str]]], usual: Effort, most: int) -> Effort:
    """Doubled from the usual one until twice as much finds the same."""
    effort, here = usual, found(usual)
    while effort.value < most:
        further = replace(effort, value=min(2 * effort.value, most))
        there = found(further)
        same, all_ = sum(len(one & other) for one, other in zip(here, there, strict=True)), sum(map(len, there))
        if all_ and same >= _ENOUGH_ALIKE * all_:
            break
        effort, here = further, there
    return effort


def _most(form: Form) -> int:
    largest = LARGEST_EFFORT.get(form.method, 1)
    return min(form.lists or largest, largest) if form.method is not Method.HNSW else largest


def _found(
    connection: psycopg.Connection, target: Searchable, vectors: Vectors, effort: Effort
) -> list[frozenset[str]]:
    with searching(connection, target, effort) as ask:
        return [frozenset(ask(vector)[0]) for vector in vectors]
