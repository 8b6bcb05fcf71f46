"""Exact nearest neighbours against one float32 matrix product of the same size, which no exact method can beat.

.venv/bin/python tests/bench/exact_truth.py [--rows 20000] [--queries 600]
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from common import alternated, hardware, ratio, servers, timed, told
from psycopg import sql
from stores import fill, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.vectors.truth import Matrix, exact_neighbours, neighbours_of

K = 10


def main() -> None:
    """Print the seconds of the product, of our computation, and of it with the rows read from the database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=600)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    queries = unit_vectors(options.queries, seed=1)
    table = sql.Identifier("memories")
    with servers() as (source, _, _folder), connect(source) as warm:
        rows = fill(source, options.rows)
        warm.execute("SELECT count(embedding) FROM memories")
        with connect(source) as connection:
            seconds = alternated(
                {
                    "one float32 product": lambda: timed(lambda: _product(queries, rows)),
                    "exact neighbours, rows in memory": lambda: timed(lambda: _in_memory(queries, rows)),
                    "exact neighbours, rows read from the database": lambda: timed(
                        lambda: exact_neighbours(connection, table, queries, K, "vector_cosine_ops")
                    ),
                },
                options.repetitions,
            )
    print(hardware())
    for name, values in seconds.items():
        print(told(name, values, "s"))
    product, memory, database = (statistics.median(values) for values in seconds.values())
    print(ratio("product / exact neighbours, rows in memory", product / memory, 0.9))
    print(ratio("product / exact neighbours, rows read", product / database, 0.9))


def _product(queries: Matrix, rows: Matrix) -> Matrix:
    return np.asarray(queries @ rows.T)


def _in_memory(queries: Matrix, rows: Matrix) -> None:
    ids = [str(number) for number in range(len(rows))]
    neighbours_of(queries, [(ids, rows)], K, "vector_cosine_ops")


if __name__ == "__main__":
    main()
