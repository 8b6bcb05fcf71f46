"""Having the youngest of several indexes answer: for this session alone, by its own means.

Two indexes on one column are told apart by nothing but their cost, so a swap on a live table could not measure the new
one beside the old one. But of indexes that cost the same the planner takes the youngest, and a prepared statement keeps
the plan that it got, whatever is set later: the session plans once while nothing costs anything, and then searches with
the effort that it wants. Nobody else's searches change.
https://www.postgresql.org/docs/current/sql-prepare.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from orchestra_lib.bench.prepared import PreparedStatement
from orchestra_lib.errors import DataError

KEEP_THE_PLAN: Mapping[str, str] = {"plan_cache_mode": "force_generic_plan"}
"""The setting under which a prepared statement is planned once, at its first execution."""

# What the cost of an index scan is made of (genericcostestimate, and pgvector's own share of its result).
_NOTHING_COSTS = {
    "seq_page_cost": "0",
    "random_page_cost": "0",
    "cpu_index_tuple_cost": "0",
    "cpu_operator_cost": "0",
}


class PlanLost(DataError):
    """The server made the plan anew in the middle, as it does when a table is analysed: what was measured is void."""


def pin(
    connection: psycopg.Connection,
    index: str,
    statement: sql.Composed,
    parameters: Mapping[str, Any],
    run: PreparedStatement,
) -> None:
    """Have ``run``, which is of ``statement``, prepared with a plan that scans ``index``.

    The session must have KEEP_THE_PLAN. Raises DataError when the planner takes another index.
    """
    explain = sql.SQL("EXPLAIN (FORMAT json) ") + statement
    with _set(connection, _NOTHING_COSTS):
        taken = index_of(connection.execute(explain, parameters, prepare=False).fetchone())
        if taken != index:
            raise DataError(
                f"the planner takes {taken or 'no index'} where {index} was to answer: that one is not valid, is not "
                "the youngest, or has not the operator class and the expression of the search"
            )
        run(parameters)


def check_pinned(
    connection: psycopg.Connection, index: str, statement: sql.Composed, parameters: Mapping[str, Any]
) -> None:
    """Make sure that the kept plan is still the one that was pinned. Raises PlanLost.

    A plan that is made anew is made under the effort's settings and stays so: one look afterwards tells of every
    search before it.
    """
    text = statement.as_string(connection)
    marked = text[text.rindex("/*") :]
    row = connection.execute(
        "SELECT name FROM pg_prepared_statements WHERE right(statement, length(%(end)s)) = %(end)s", {"end": marked}
    ).fetchone()
    if row is None:
        raise PlanLost(f"the session has no plan for {index} any more: measure again")
    values = sql.SQL(", ").join(sql.Literal(value) for value in parameters.values())
    kept = connection.execute(
        sql.SQL("EXPLAIN (FORMAT json) EXECUTE {}({})").format(sql.Identifier(row[0]), values), prepare=False
    ).fetchone()
    if index_of(kept) != index:
        raise PlanLost(
            f"the server made the plan anew, without {index}: the table was analysed or altered; measure again"
        )


def index_of(explained: tuple[Any, ...] | None) -> str | None:
    """The index that a plan of EXPLAIN (FORMAT json) scans in order; None when it does not."""
    return next((node["Index Name"] for node in nodes_of(explained) if node["Node Type"].startswith("Index")), None)


def nodes_of(explained: tuple[Any, ...] | None) -> Iterator[dict[str, Any]]:
    """Every node of a plan of EXPLAIN (FORMAT json), the top first."""
    waiting = [explained[0][0]["Plan"]] if explained else []
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.get("Plans", ()))


@contextmanager
def _set(connection: psycopg.Connection, settings: Mapping[str, str]) -> Iterator[None]:
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, false)", [name, value])
    try:
        yield
    finally:
        for name in settings:
            connection.execute(sql.SQL("RESET {}").format(sql.Identifier(name)))
