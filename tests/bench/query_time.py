"""What the client adds to a search: its own clock against the server's, for the same statement and probes.

.venv/bin/python tests/bench/query_time.py [--rows 5000]
"""

from __future__ import annotations

import argparse
import statistics

import psycopg
from common import hardware, servers, told
from psycopg import sql
from stores import fill, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.vectors.forms import Effort, ivfflat
from orchestra_lib.vectors.index import IndexSpec, build_index
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.search import Searchable, search

LISTS, PROBES, QUERIES = 50, 10, 200
GOAL_ADDED_MS = 0.3


def main() -> None:
    """Print both medians, the milliseconds between them, and client / server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000)
    rows = parser.parse_args().rows
    target = Searchable(sql.Identifier("memories"), "vector_cosine_ops", 10, ivfflat(LISTS))
    queries = unit_vectors(QUERIES, seed=1)
    with servers() as (_, conninfo, _folder):
        fill(conninfo, rows)
        build_index(
            conninfo, IndexSpec("memories", ivfflat(LISTS), "vector_cosine_ops", 1536), None, lambda words: None
        )
        with connect(conninfo) as connection:
            search(connection, target, queries, Effort(PROBES))
            client, server = [], []
            for start in range(0, QUERIES, 20):  # alternated
                part = queries[start : start + 20]
                client += search(connection, target, part, Effort(PROBES)).milliseconds.tolist()
                server += _explained(connection, target, part)
    print(hardware())
    print(told("client, prepared and binary", client, "ms"))
    print(told("server, Execution Time of EXPLAIN ANALYZE", server, "ms"))
    here, there = statistics.median(client), statistics.median(server)
    verdict = "reached" if here - there <= GOAL_ADDED_MS else "missed"
    print(f"ratio client / server: {here / there:.2f}")
    print(f"added at p50 to what the server says it worked: {here - there:.3f} ms (goal <= {GOAL_ADDED_MS}): {verdict}")


def _explained(connection: psycopg.Connection, target: Searchable, queries: Matrix) -> list[float]:
    connection.execute("SET enable_seqscan = off")
    connection.execute(f"SET ivfflat.probes = {PROBES}")
    found = []
    statement = sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT json) ") + target.statement(Effort(PROBES))
    for query in queries:
        row = connection.execute(statement, target.parameters(query), prepare=False).fetchone()
        assert row is not None
        found.append(row[0][0]["Execution Time"])
    connection.execute("RESET enable_seqscan")
    return found


if __name__ == "__main__":
    main()
