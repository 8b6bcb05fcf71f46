"""An IVFFlat index with given centroids: the same pages that CREATE INDEX makes, without its k-means.

pgvector takes no centroids from outside. But on a table that holds as many rows as the index has lists, k-means++ draws
every row once and the mean of a single row is that row: the centroids are the rows, up to rounding and as far as they
differ. So the index is created on a table of nothing but centroids, these are deleted, and each row that is inserted
then goes to the list of the nearest one, as rows of an insert always do. Sampling, k-means++ and the iterations on one
core are what a build of many lists takes (https://github.com/pgvector/pgvector/blob/v0.8.5/src/ivfkmeans.c); inserting
takes as many sessions as the server has workers for a build. It serves a table that may be filled anew, such as a
tuning's copies; a live table has its rows already.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import pairwise

import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.vectors.index import BuiltIndex, IndexSpec, build_index, check_memory, planned_memory
from orchestra_lib.vectors.kmeans import training_rows
from orchestra_lib.vectors.nearest import Matrix

_SECONDS_BETWEEN_WORDS = 0.5
_DISTANCES_AT_ONCE = 3_000_000  # in one statement: about a second, which an interrupt waits for
_FEWEST_ROWS_AT_ONCE = 100
_SECONDS_OF_A_DIMENSION = 2.2e-10  # 52 ns at 256, 380 at 1,536, where each centroid has a page of its own
_DISTANCES_TO_LOAD = 200  # what sorting and writing a row is worth to CREATE INDEX
_TIMES_OF_K_MEANS = (1.7, 7.0)
"""Distances that pgvector's k-means computes for each sampled row and list, k-means++ included. Measured from 1,536
dimensions of the rehearsal's corpus, where it settles soon, to a sheet of 256 dimensions without clusters."""
_TIMES_AMONG_CENTROIDS = 6  # k-means++ and two iterations, by one session of the two that insert
_DISTANCES_PER_ROW = 500  # what writing a row into table and index is worth


@dataclass(frozen=True)
class Seeded:
    """The index as it is on the server, and the seconds of everything that made it.

    ``create_seconds`` is from how much to how much CREATE INDEX is to take on these rows: what filling took tells what
    a distance costs here, and k-means needs a few for each sampled row and list, how many depends on the rows.
    """

    index: BuiltIndex
    seconds: float
    create_seconds: tuple[float, float]


def build_seeded(
    address: Address,
    spec: IndexSpec,
    source: str,
    centroids: Matrix,
    available_mib: int | None,
    progress: Callable[[str], None],
) -> Seeded:
    """Make ``spec.table`` anew with the rows of ``source`` and the index over them, whose lists have these centroids.

    ``centroids``: float32 (lists, dimension). Whatever was called ``spec.table`` is dropped; the new table is unlogged.
    The memory is checked that CREATE INDEX would take on ``source``: what only this way could build serves nobody.
    Raises GateFailed when it does not suffice, ParameterError for centroids that are not those of the form, and
    whatever ``progress`` raises, after the statements under way.
    """
    if centroids.shape != (spec.form.lists, spec.dimension):
        raise ParameterError(
            f"centroids of shape {centroids.shape} do not fit {spec.form.label} of {spec.dimension:,} dimensions"
        )
    started = time.monotonic()
    with connect(address, role="target") as connection:
        memory = planned_memory(connection, replace(spec, table=source))
        check_memory(memory, spec, available_mib)
        _plant(connection, spec, source, centroids)
        build_index(address, spec, available_mib, progress)
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(spec.table)))
        connection.execute(sql.SQL("VACUUM {}").format(sql.Identifier(spec.table)))
        create_seconds = _fill(connection, address, spec, source, progress)
        connection.execute(sql.SQL("VACUUM {}").format(sql.Identifier(spec.table)))
    built = build_index(address, spec, available_mib, progress)  # there already: it is read back
    return Seeded(replace(built, memory=memory), time.monotonic() - started, create_seconds)


def seeding_work(lists: int, rows: int) -> float:
    """How much there is to do, in distances: every row to every centroid, centroids to centroids, rows to write."""
    return float(lists * rows + _TIMES_AMONG_CENTROIDS * lists**2 + _DISTANCES_PER_ROW * rows)


def usual_distance_seconds(dimension: int) -> float:
    """What one of these distances takes, where none was timed yet, by two sessions on 2 cores of an AMD EPYC."""
    return _SECONDS_OF_A_DIMENSION * dimension / 2


def _plant(connection: psycopg.Connection, spec: IndexSpec, source: str, centroids: Matrix) -> None:
    table = sql.Identifier(spec.table)
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
    like = sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT * FROM {} WITH NO DATA")  # without its constraints
    connection.execute(like.format(table, sql.Identifier(source)))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(table, sql.Identifier(spec.column))
    with connection.cursor().copy(statement) as copy:
        copy.set_types(["vector"])
        for centroid in centroids:
            copy.write_row((centroid,))


def _fill(
    connection: psycopg.Connection, address: Address, spec: IndexSpec, source: str, progress: Callable[[str], None]
) -> tuple[float, float]:
    """Insert the rows of the source, several sessions at once; ``Seeded.create_seconds`` by what they took."""
    row = connection.execute(
        sql.SQL(
            "SELECT (SELECT count(*) FROM {}), pg_relation_size({}) / current_setting('block_size')::bigint, "
            "greatest(1, current_setting('max_parallel_maintenance_workers')::int)"
        ).format(sql.Identifier(source), sql.Literal(source))
    ).fetchone()
    if row is None or not row[0]:
        raise DataError(f"the table {source} holds no row: there is nothing to fill {spec.table} with")
    rows, blocks, sessions = row
    lists = spec.form.lists or 1
    at_once = max(_FEWEST_ROWS_AT_ONCE, _DISTANCES_AT_ONCE // (lists + _DISTANCES_PER_ROW))
    parts = max(sessions, rows // at_once)
    bounds = [blocks * part // parts for part in range(parts + 1)]
    waiting = deque(pairwise(bounds))
    statement = sql.SQL("INSERT INTO {} SELECT * FROM {} WHERE ctid >= %s::tid AND ctid < %s::tid").format(
        sql.Identifier(spec.table), sql.Identifier(source)
    )

    def insert() -> float:
        began = time.monotonic()
        with connect(address, role="target") as session:
            while waiting:
                try:
                    first, after = waiting.popleft()
                except IndexError:  # another session took the last one
                    break
                session.execute(statement, [f"({first},0)", f"({after},0)"])
        return time.monotonic() - began

    seconds = 0.0
    with ThreadPoolExecutor(sessions, thread_name_prefix="seeded") as pool:
        inserting = [pool.submit(insert) for _ in range(sessions)]
        try:
            under_way = set(inserting)
            while under_way:
                done, under_way = wait(under_way, _SECONDS_BETWEEN_WORDS, return_when=FIRST_EXCEPTION)
                seconds += sum(each.result() for each in done)
                progress(f"inserting, {parts - len(waiting):,} of {parts:,} parts")
        finally:
            waiting.clear()
    of_a_distance = seconds / (rows * (lists + _DISTANCES_PER_ROW))
    sampled = min(training_rows(lists), rows) * lists
    others = rows * lists / sessions + _DISTANCES_TO_LOAD * rows
    least, most = (of_a_distance * (times * sampled + others) for times in _TIMES_OF_K_MEANS)
    return least, most
