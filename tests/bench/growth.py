"""The growth model against a size that it has not seen: fitted at three sizes, checked at three times the largest.

.venv/bin/python tests/bench/growth.py [--dimension 512] [--sizes 10000 30000 100000] [--next 300000] [--queries 200]

At each size two IVFFlat indexes are built, of sqrt(rows) and twice as many lists, and searched at three probes, warm,
one query after another. On a machine that others use the clock tells about them: so a build is one server process
(no parallel workers) and its CPU seconds count, and a query is asked seven times and its shortest counts; the p95 is
over queries. 512 dimensions and not 1,536, because that takes a third of the time: what is checked is how the parts
grow with rows and lists, and the dimension is a factor of all of them.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import psycopg
from common import hardware
from pgvector.psycopg import register_vector

from orchestra_lib.local import postgres
from orchestra_lib.scale.growth import BUILD, LATENCY, Checked, IndexPoint, checked_fit

PROBES = (4, 8, 16)
_CHUNK = 20_000
_PASSES = 7


def main() -> None:
    """Print each point, the laws, and predicted over measured at the next size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--next", type=int, default=300_000)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    print(hardware())
    queries = _vectors(options.queries, options.dimension, seed=99)
    with _server() as conninfo, psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        register_vector(connection)
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute("SET max_parallel_maintenance_workers = 0")
        connection.execute(f"CREATE TABLE grown (id int, embedding vector({options.dimension}))")
        points = [point for rows in options.sizes for point in _measured(connection, rows, queries)]
        laws = {
            "build": checked_fit(points, BUILD, lambda point: point.build_seconds),
            "p95": checked_fit(points, LATENCY, lambda point: point.latency_ms),
        }
        for name, checked in laws.items():
            print(_told(name, checked))
        ratios = {name: list[float]() for name in laws}
        for found in _measured(connection, options.next, queries):
            predicted = {name: checked.law.predict(found) for name, checked in laws.items()}
            ratios["build"].append(predicted["build"] / found.build_seconds)
            ratios["p95"].append(predicted["p95"] / found.latency_ms)
            print(
                f"  predicted {predicted['build']:.1f} s and {predicted['p95']:.2f} ms; "
                f"parts of the build {_parts(checked.law.parts(found) for checked in [laws['build']])}"
            )
    for name, values in ratios.items():
        worst = max(abs(value - 1) for value in values)
        told = ", ".join(f"{value:.2f}" for value in values)
        print(f"{name}: predicted / measured {told}; worst {100 * worst:.0f} % (goal <= 20 %)")


@contextmanager
def _server() -> Iterator[str]:
    """A server whose buffers hold every index: from where they do not, other laws hold, as the document says."""
    folder = Path(tempfile.mkdtemp(prefix="orchestra-bench-"))
    folder.chmod(0o755)  # the server's user has to enter it
    settings = postgres.SETTINGS | {"shared_buffers": "4GB", "max_wal_size": "3GB"}
    running = postgres.start(folder / "grown", "the server", settings)
    try:
        yield running.conninfo()
    finally:
        postgres.stop(folder / "grown", "the server")
        shutil.rmtree(folder)


def _measured(connection: psycopg.Connection, rows: int, queries: np.ndarray) -> list[IndexPoint]:
    _grow(connection, rows, queries.shape[1])
    found = []
    for lists in (math.isqrt(rows), 2 * math.isqrt(rows)):
        connection.execute("DROP INDEX IF EXISTS grown_index")
        server = psutil.Process(connection.info.backend_pid)
        before = server.cpu_times()
        connection.execute(
            f"CREATE INDEX grown_index ON grown USING ivfflat (embedding vector_cosine_ops) WITH (lists = {lists})"
        )
        after = server.cpu_times()
        seconds = after.user + after.system - before.user - before.system
        for probes in PROBES:
            point = IndexPoint(rows, lists, probes, probes * rows / lists, seconds, 0.0)
            found.append(replace(point, latency_ms=_p95_ms(connection, probes, queries)))
            print(
                f"  {rows:,} rows, {lists} lists, {probes} probes: {seconds:.1f} s, {found[-1].latency_ms:.2f} ms",
                flush=True,
            )
    return found


def _grow(connection: psycopg.Connection, rows: int, dimension: int) -> None:
    connection.execute("DROP INDEX IF EXISTS grown_index")
    ((there,),) = connection.execute("SELECT count(*) FROM grown").fetchall()
    for first in range(there, rows, _CHUNK):
        count = min(_CHUNK, rows - first)
        vectors = _vectors(count, dimension, seed=first + 100)
        with connection.cursor().copy("COPY grown FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "vector"])
            for number, vector in enumerate(vectors, start=first):
                copy.write_row((number, vector))
    connection.execute("ANALYZE grown")


def _vectors(count: int, dimension: int, seed: int) -> np.ndarray:
    """Unit vectors in 200 clusters, whose centres are the same whatever the size and the seed."""
    centres = np.random.default_rng(1).standard_normal((200, dimension))
    draw = np.random.default_rng(seed)
    spread = 0.6 * draw.standard_normal((count, dimension)) * np.linspace(1.5, 0.1, dimension)
    vectors = centres[draw.integers(len(centres), size=count)] + spread
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _p95_ms(connection: psycopg.Connection, probes: int, queries: np.ndarray) -> float:
    connection.execute(f"SET ivfflat.probes = {probes}")
    connection.execute("SET enable_seqscan = off")
    times = np.full(len(queries), np.inf)
    for _ in range(_PASSES):
        for number, query in enumerate(queries):
            began = time.perf_counter()
            connection.execute(
                "SELECT id FROM grown ORDER BY embedding <=> %b LIMIT 10", [query], prepare=True, binary=True
            ).fetchall()
            times[number] = min(times[number], (time.perf_counter() - began) * 1e3)
    return float(np.quantile(times, 0.95))


def _told(name: str, checked: Checked) -> str:
    parts = ", ".join(f"{part} {value:.3g}" for part, value in checked.law.coefficients.items())
    ratios = ", ".join(f"{ratio:.2f} at {rows:,}" for rows, ratio in checked.ratios.items())
    return f"{name}: {parts}; predicted / measured from smaller sizes: {ratios}"


def _parts(all_parts) -> str:
    return ", ".join(f"{name} {value:.1f}" for parts in all_parts for name, value in parts.items())


if __name__ == "__main__":
    main()
