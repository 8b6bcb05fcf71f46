"""Reading from the memory what may answer a question: the nearest items by SQL, timed at the client."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import Vector
from psycopg import sql

from orchestra_lib.assistant.context import Memory
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.truth import OPERATORS

Vectors = NDArray[np.float32]

_ENOUGH_ALIKE = 0.98  # of what twice the probes would find
_PROBED_QUESTIONS = 50
_FEWEST_EF_SEARCH = 100
_PROBES = "ivfflat.probes"


@dataclass(frozen=True)
class Retrieved:
    """What was read for each question, nearest first, how long each took in milliseconds, and with how many probes."""

    memories: tuple[tuple[Memory, ...], ...]
    milliseconds: NDArray[np.float64]
    probes: int | None


@dataclass(frozen=True)
class Store:
    """A table of memories to read from. ``opclass`` is its index's, ``candidates`` how many rows a question gets."""

    table: str
    opclass: str
    candidates: int

    def statement(self, probes: int | None) -> sql.Composed:
        """The application's query; its one parameter is the question's vector. What has expired is left out."""
        # The probes are part of a plan's cost, and a prepared statement keeps its plan: each number gets its own.
        return sql.SQL(
            "/* probes {probes} */ SELECT id::text, item_type, to_char(updated_at, 'YYYY-MM-DD'), content FROM {table} "
            "WHERE expires_at IS NULL OR expires_at > now() ORDER BY embedding {operator} %b LIMIT {limit}"
        ).format(
            probes=sql.SQL(str(probes or 0)),
            table=sql.Identifier(self.table),
            operator=sql.SQL(OPERATORS[self.opclass]),
            limit=sql.Literal(self.candidates),
        )


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

    Where the database has no number of probes of its own, the fewest are taken that read what twice as many would, for
    some questions of the places ``choosing``. Every question is asked once before it is timed.
    """
    with _searching(connection):
        probes = _probes(connection, store, vectors[list(choosing[:_PROBED_QUESTIONS])])
        statement = store.statement(probes)
        for vector in vectors:
            _ask(connection, statement, vector)
        answers = [_timed(connection, statement, vector) for vector in vectors]
    return Retrieved(tuple(found for found, _ in answers), np.asarray([ms for _, ms in answers]), probes)


def _probes(connection: psycopg.Connection, store: Store, vectors: Vectors) -> int | None:
    lists = _lists(connection, store.table)
    if lists is None:
        return None
    own = int(_setting(connection, _PROBES))
    if own > 1:
        return own
    probes = max(1, round(math.sqrt(lists)))
    found = _with_probes(connection, store, vectors, probes)
    while probes < lists:
        more = min(2 * probes, lists)
        further = _with_probes(connection, store, vectors, more)
        same = sum(len(one & other) for one, other in zip(found, further, strict=True))
        if same >= _ENOUGH_ALIKE * sum(map(len, further)):
            break
        probes, found = more, further
    _set(connection, _PROBES, probes)
    return probes


def _with_probes(connection: psycopg.Connection, store: Store, vectors: Vectors, probes: int) -> list[frozenset[str]]:
    _set(connection, _PROBES, probes)
    statement = store.statement(probes)
    return [frozenset(memory.id for memory in _ask(connection, statement, vector)) for vector in vectors]


def _timed(
    connection: psycopg.Connection, statement: sql.Composed, vector: Vectors
) -> tuple[tuple[Memory, ...], float]:
    started = time.perf_counter()
    return _ask(connection, statement, vector), (time.perf_counter() - started) * 1e3


def _ask(connection: psycopg.Connection, statement: sql.Composed, vector: Vectors) -> tuple[Memory, ...]:
    rows = connection.execute(statement, [Vector(vector)], prepare=True, binary=True)
    return tuple(Memory(*map(str, row)) for row in rows)


def _lists(connection: psycopg.Connection, table: str) -> int | None:
    row = connection.execute(
        "SELECT coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions) WHERE option_name = 'lists'),"
        " 100) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE i.indrelid = to_regclass(%s) AND a.amname = 'ivfflat' AND i.indisvalid ORDER BY 1 DESC LIMIT 1",
        [f'"{table}"'],
    ).fetchone()
    return int(row[0]) if row else None


@contextmanager
def _searching(connection: psycopg.Connection) -> Iterator[None]:
    """Inside, the session searches as the application's do (decision 5)."""
    connection.execute("SELECT '[1]'::vector <=> '[1]'::vector")  # loads the library: its settings exist from then on
    connection.execute("SET enable_seqscan = off")
    _set(connection, "hnsw.ef_search", max(_FEWEST_EF_SEARCH, int(_setting(connection, "hnsw.ef_search"))))
    try:
        yield
    finally:
        connection.execute("RESET ALL")


def _setting(connection: psycopg.Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    if row is None:
        raise DataError(f"the server does not know the setting {name}")
    return str(row[0])


def _set(connection: psycopg.Connection, name: str, value: int) -> None:
    connection.execute("SELECT set_config(%s, %s, false)", [name, str(value)])
