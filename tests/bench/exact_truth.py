"""Exact nearest neighbours against one float32 matrix product of the same size, which no exact method can beat.

.venv/bin/python tests/bench/exact_truth.py [--rows 50000] [--queries 1000] [--repetitions 9]

The product is numpy's into memory that is there already: page faults of a fresh result would flatter us.
Rows that are read cost the source 14 and us 7 to 9 microseconds of CPU each. A product with 1,000 queries costs 34: on
two cores that also run the server no more than 34 / 58 = 0.6 can be reached; the reading is hidden where it is not.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import alternated, cost, hardware, paired, ratio, servers, told, told_cpu
from psycopg import sql
from stores import fill, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.vectors.nearest import Matrix, nearest
from orchestra_lib.vectors.truth import exact_neighbours

K = 10


def main() -> None:
    """Print the seconds of the product, of our computation, and of it with the rows read from the database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=90_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    queries = unit_vectors(options.queries, seed=1)
    table = sql.Identifier("memories")
    with servers() as (source, _, _folder), connect(source) as connection:
        rows = fill(source, options.rows)
        connection.execute("VACUUM memories")
        ids = [str(number) for number in range(len(rows))]
        product: Matrix = np.zeros((len(queries), len(rows)), dtype=np.float32)
        works = {
            "one float32 product": lambda: np.matmul(queries, rows.T, out=product),
            "exact neighbours, rows in memory": lambda: nearest(queries, [(ids, rows)], K, "vector_cosine_ops"),
            "exact neighbours, rows read from the database": lambda: exact_neighbours(
                connection, table, queries, K, "vector_cosine_ops"
            ),
        }
        costs = alternated(
            {name: lambda work=work: cost(work, source=source) for name, work in works.items()}, options.repetitions
        )
    print(hardware())
    for name, values in costs.items():
        print(told(name, [value.seconds for value in values], "s"))
    for name, values in costs.items():
        print(told_cpu(name, values, options.rows))
    once, memory, database = ([value.seconds for value in values] for values in costs.values())
    once_cpu, memory_cpu, _ = ([value.cpu_seconds["client"] for value in values] for values in costs.values())
    print(ratio("product / exact neighbours, rows in memory", paired(memory, once), 0.9))
    print(ratio("product / exact neighbours, rows in memory, CPU time", paired(memory_cpu, once_cpu), 0.9))
    print(ratio("product / exact neighbours, rows read", paired(database, once), 0.9))


if __name__ == "__main__":
    main()
