"""The truth, checked against the server's own exact scan on a sample of the queries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from pgvector import Vector
from psycopg import sql

from orchestra_lib.errors import DataError
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.truth import OPERATORS, Truth

_PLANNER = {
    "enable_seqscan": "on",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
}
_FEW = 8  # each reads every row; an index that misses something in every third answer gets through once in 25
_SERVER_ERROR = 4e-6  # relative: pgvector adds up 1,536 products in float32


@dataclass(frozen=True)
class Recheck:
    """How many queries were asked again, how many answers agreed, and the largest difference of a distance.

    ``disagreements`` says in words what differed, one sentence a query.
    """

    queries: int
    agreed: int
    largest_difference: float
    disagreements: tuple[str, ...]


def verified_by_sql(
    connection: psycopg.Connection,
    table: sql.Composable,
    truth: Truth,
    queries: Matrix,
    sample: int,
    opclass: str,
    where: sql.Composable | None = None,
    seed: int = 0,
) -> Recheck:
    """Ask the server for the neighbours of ``sample`` of the queries, by reading every row, and compare.

    Index scans are off and the plan is checked: an index that is left on would answer for itself. An answer agrees when
    its distances are those of the truth and its rows are the truth's, save for rows that the server's float32 cannot
    tell from the last one. Raises DataError when the server's plan reads an index all the same.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(queries))[:sample])
    asked = truth.k + (truth.excluded is not None)
    statement = sql.SQL(
        "SELECT id::text, (embedding {operator} %(query)s)::float8 AS distance FROM {table} "
        "WHERE embedding IS NOT NULL AND ({where}) ORDER BY embedding {operator} %(query)s LIMIT {k}"
    ).format(operator=sql.SQL(OPERATORS[opclass]), table=table, where=where or sql.SQL("true"), k=sql.Literal(asked))
    differences: list[float] = [0.0]
    disagreements: list[str] = []
    with connection.transaction():
        for name, value in _PLANNER.items():
            connection.execute("SELECT set_config(%s, %s, true)", [name, value])
        _check_exact(connection, statement, queries[0])
        for number in chosen.tolist():
            rows = connection.execute(statement, {"query": Vector(queries[number])}).fetchall()
            own = truth.excluded[number] if truth.excluded is not None else None
            answer = [(key, distance) for key, distance in rows if key != own and not np.isnan(distance)]
            difference, disagreement = _compared(answer[: truth.k], truth, number)
            differences.append(difference)
            disagreements += disagreement
    return Recheck(len(chosen), len(chosen) - len(disagreements), float(max(differences)), tuple(disagreements))


def require_exact(
    connection: psycopg.Connection, table: sql.Composable, truth: Truth, queries: Matrix, opclass: str
) -> None:
    """Raise DataError unless the server's own scan of every row agrees with the truth on a few of the queries.

    An index that is judged by its own answers finds all of them; asked this way, it does not answer for itself.
    """
    found = verified_by_sql(connection, table, truth, queries, min(_FEW, len(queries)), opclass)
    if found.disagreements:
        raise DataError(
            f"what the index is to be judged by is not the truth: of {found.queries} queries that the server answered "
            f"by reading every row, {len(found.disagreements)} have other neighbours: {found.disagreements[0]}"
        )


def _check_exact(connection: psycopg.Connection, statement: sql.Composable, query: Any) -> None:
    row = connection.execute(sql.SQL("EXPLAIN (FORMAT json) ") + statement, {"query": Vector(query)}).fetchone()
    nodes = [row[0][0]["Plan"]] if row else []
    while nodes:
        node = nodes.pop()
        if "Index" in node["Node Type"]:
            raise DataError(
                f"the check of the truth would read the index {node.get('Index Name')}, which is not exact; "
                f"the server's plan: {json.dumps(row[0] if row else None)[:400]}"
            )
        nodes.extend(node.get("Plans", ()))


def _compared(answer: Sequence[tuple[str, float]], truth: Truth, number: int) -> tuple[float, list[str]]:
    """The largest difference of the distances, and a sentence when the answer is another one."""
    wanted = truth.wanted(number)
    if len(answer) < wanted:
        return 0.0, [f"query {number}: the server has {len(answer)} rows, the truth {wanted}"]
    told = truth.distances[number]
    scale = max(1.0, *(abs(distance) for distance in told[:wanted])) if wanted else 1.0
    difference = max((abs(told[place] - answer[place][1]) for place in range(wanted)), default=0.0)
    tolerance = _SERVER_ERROR * scale
    if difference > tolerance:
        return difference, [f"query {number}: a distance differs by {difference:.3g}, allowed are {tolerance:.3g}"]
    edge = told[wanted - 1] if wanted else 0.0
    surely = {key for key, distance in zip(truth.ids[number], told, strict=True) if distance < edge - 2 * tolerance}
    missing = surely - {key for key, _ in answer}
    if missing:
        return difference, [f"query {number}: the server does not find {', '.join(sorted(missing))}"]
    return difference, []
