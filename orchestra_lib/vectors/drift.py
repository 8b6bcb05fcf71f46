"""How far an index has drifted from the table that it was built on, and what to do about it.

IVFFlat's centroids never move: rows that come later go to the nearest old list, so lists grow unevenly and recall falls
without a sign. Three signals are read on the live table, with no extension and without touching a row: the lower bound
of recall on a rolling sample of queries, how uneven the lists are, and how much was written since the index was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from orchestra_lib.bench.statistics import Estimate, mean
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.forms import Effort, Form, Method, Storage
from orchestra_lib.vectors.index import LiveIndex
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.pinned import index_of
from orchestra_lib.vectors.search import Searchable, recalls, search, session, session_settings
from orchestra_lib.vectors.truth import OPERATORS, Truth

WINDOW = 1_000
"""So many of the latest searches make the rolling recall."""
_SAMPLED_ROWS = 100
_LISTS_GREW_UNEVEN = 1.5
_MUCH_INSERTED = 0.3
_TABLE_GREW = 2.0
_ROWS_PER_LIST_TO_LEARN_FROM = 50
"""Fewer than pgvector samples for each list: its centroids are then hardly better than rows drawn by lot."""


class Advice(StrEnum):
    """What to do, the mildest first."""

    NOTHING = "nothing"
    TUNE = "tune again: the effort, or the lists, no longer suit"
    REBUILD = "build the index again, and tune it"


@dataclass(frozen=True)
class Baseline:
    """How the table and its index stood when the index was made. ``written`` counts inserts and updates ever since the
    server's statistics were last reset, at ``reset``. ``unevenness`` is None for an index without lists."""

    rows: int
    written: int
    reset: str
    unevenness: float | None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Baseline:
        """The baseline that ``dataclasses.asdict`` made this of."""
        return cls(**document)


@dataclass(frozen=True)
class DriftReport:
    """What was seen. ``recall`` is over ``recalls``, the rolling sample, which the next look takes up again.

    ``unevenness`` is how many times as many rows as on average lie in the list of a row drawn at random: 1 when all
    lists are equal, and proportional to what a search reads. ``written_share`` is what was inserted or updated since
    the index was made, of the rows that there are now; None when the statistics were reset since.
    """

    advice: Advice
    reasons: tuple[str, ...]
    recall: Estimate
    recalls: tuple[float, ...]
    rows: int
    grown: float
    unevenness: float | None
    unevenness_then: float | None
    written_share: float | None


def take_baseline(connection: psycopg.Connection, table: str, index: LiveIndex | None, seed: int = 0) -> Baseline:
    """How things stand now, to compare with later. Raises DataError when the table cannot be read."""
    rows, written, reset = _statistics(connection, table)
    return Baseline(rows, written, reset, list_unevenness(connection, table, index, seed) if index else None)


def watch(
    connection: psycopg.Connection,
    target: Searchable,
    index: LiveIndex,
    effort: Effort,
    queries: Matrix,
    truth: Truth,
    recall_target: float,
    baseline: Baseline,
    earlier: Sequence[float] = (),
    seed: int = 0,
) -> DriftReport:
    """Look at an index that serves, by queries whose exact neighbours ``truth`` holds as of now.

    ``earlier`` are the recalls of the last report. Raises DataError when the index cannot be searched.
    """
    table = target.table.as_string(connection).strip('"')
    run = search(connection, target, queries, effort)
    rolling = (*earlier, *recalls(run, truth).tolist())[-WINDOW:]
    rows, written, reset = _statistics(connection, table)
    share = (written - baseline.written) / max(1, rows) if reset == baseline.reset else None
    uneven = list_unevenness(connection, table, index, seed)
    seen = DriftReport(
        Advice.NOTHING,
        (),
        mean(rolling),
        rolling,
        rows,
        rows / max(1, baseline.rows),
        uneven,
        baseline.unevenness,
        share,
    )
    return _advised(seen, index.form, recall_target, baseline)


def list_unevenness(
    connection: psycopg.Connection, table: str, index: LiveIndex, seed: int = 0, column: str = "embedding"
) -> float | None:
    """How many times the average list's rows lie in the list of a row drawn at random; None where it cannot be seen.

    The server counts them itself: a search with one probe and without a limit returns the rows of one list. An index
    that is not IVFFlat of vectors has no such lists; with two on the column the planner decides which one is counted.
    """
    if index.form.method is not Method.IVFFLAT or index.form.storage is not Storage.VECTOR or index.opclass is None:
        return None
    rows, _, _ = _statistics(connection, table)
    sizes = _sizes_of_lists(connection, table, index, column, rows, seed) if rows else np.empty(0)
    return float(sizes.mean() * (index.form.lists or 1) / rows) if sizes.size else None


def _sizes_of_lists(
    connection: psycopg.Connection, table: str, index: LiveIndex, column: str, rows: int, seed: int
) -> NDArray[np.float64]:
    """Rows in the lists of some rows drawn at random, float64; none when the planner does not take the index."""
    names = {"column": sql.Identifier(column), "table": sql.Identifier(table)}
    sample = sql.SQL(
        "SELECT {column} FROM {table} TABLESAMPLE BERNOULLI ({percent}) REPEATABLE ({seed}) WHERE {column} IS NOT NULL"
    ).format(**names, percent=sql.Literal(min(100.0, 100.0 * _SAMPLED_ROWS / rows)), seed=sql.Literal(seed))
    count = sql.SQL("SELECT count(*) FROM (SELECT FROM {table} ORDER BY {column} {operator} %b) AS one_list").format(
        **names, operator=sql.SQL(OPERATORS[index.opclass or ""])
    )
    vectors = [row[0] for row in connection.execute(sample).fetchall()]
    if not vectors:
        return np.empty(0)
    with session(connection, session_settings(index.form, Effort(1)) | {"enable_sort": "off"}):
        planned = connection.execute(sql.SQL("EXPLAIN (FORMAT json) ") + count, [vectors[0]], prepare=False).fetchone()
        if index_of(planned) != index.name:
            return np.empty(0)
        found = [connection.execute(count, [vector]).fetchone() for vector in vectors]
    return np.asarray([row[0] for row in found if row], dtype=np.float64)


def _statistics(connection: psycopg.Connection, table: str) -> tuple[int, int, str]:
    """Rows, index entries ever written as the server counted them, and when it last began to count."""
    row = connection.execute(
        sql.SQL(
            "SELECT (SELECT count(*) FROM {table}), coalesce(n_tup_ins + n_tup_upd - n_tup_hot_upd, 0), "
            "coalesce((SELECT stats_reset::text FROM pg_stat_database WHERE datname = current_database()), '') "
            "FROM pg_stat_user_tables WHERE relid = {name}::regclass"
        ).format(table=sql.Identifier(table), name=sql.Literal(sql.Identifier(table).as_string(connection)))
    ).fetchone()
    if row is None:
        raise DataError(f"the server keeps no statistics of {table}: it is not a table of this database")
    return row[0], row[1], row[2]


def _advised(seen: DriftReport, form: Form, recall_target: float, baseline: Baseline) -> DriftReport:
    lists = form.lists or 0
    uneven = (seen.unevenness or 1.0) / (seen.unevenness_then or seen.unevenness or 1.0)
    few = baseline.rows < _ROWS_PER_LIST_TO_LEARN_FROM * lists <= seen.rows
    rules = (
        (
            seen.recall.low < recall_target,
            Advice.TUNE,
            f"recall is {seen.recall}, its lower bound is below the target of {recall_target}",
        ),
        (
            uneven >= _LISTS_GREW_UNEVEN,
            Advice.REBUILD,
            f"a search reads {uneven:.1f} times as many rows for a probe as when the index was made: the new rows lie "
            "in few of its lists",
        ),
        (
            (seen.written_share or 0.0) > _MUCH_INSERTED,
            Advice.TUNE if seen.recall.low >= recall_target else Advice.REBUILD,
            f"{seen.written_share or 0:.0%} of the rows were written since the index was made: its centroids do not "
            "know them",
        ),
        (
            seen.grown >= _TABLE_GREW,
            Advice.TUNE,
            f"the table has {seen.grown:.1f} times the rows that the {form.label} was chosen for",
        ),
        (
            few,
            Advice.REBUILD,
            f"the index learnt its {lists:,} lists from {baseline.rows:,} rows, where it wants "
            f"{_ROWS_PER_LIST_TO_LEARN_FROM * lists:,}; there are {seen.rows:,} now",
        ),
    )
    holding = [(advice, reason) for holds, advice, reason in rules if holds]
    severity = list(Advice)
    advice = max((advice for advice, _ in holding), key=severity.index, default=Advice.NOTHING)
    told = [reason for _, reason in holding] or ["recall, lists and growth are as they were when the index was chosen"]
    if seen.written_share is None:
        told.append("the server's statistics were reset since: how much was written is not known")
    return replace(seen, advice=advice, reasons=tuple(told))
