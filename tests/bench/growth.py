"""The growth model against a size that it has not seen: fitted at three sizes, checked at three times the largest.

.venv/bin/python tests/bench/growth.py [--family topics] [--seed 1] [--sizes 10000 30000 100000] [--next 300000]
                                       [--queries 400] [--dimension 512] [--shared-buffers 4GB]

At each size two IVFFlat indexes are built, of sqrt(rows) and twice as many lists, and searched at three probes, warm,
by one session, queries in turn so that none finds its pages in the processor's caches because it was just asked. On a
machine that others use the clock tells about them: so a query is asked five times and its shortest counts; an index is
built twice by one server process (no parallel workers), and the fewer CPU seconds count. The p95 is over queries. What
is expected of an index is printed before it is built; the second largest size is foretold too, from those below. 512
dimensions and not 1,536, because that takes a third of the time.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import psycopg
from common import hardware
from families import FAMILIES
from pgvector.psycopg import register_vector
from psycopg import sql

from orchestra_lib.bench.statistics import Estimate, quantile
from orchestra_lib.local import postgres
from orchestra_lib.scale.growth import (
    Caches,
    IndexPoint,
    SearchPoint,
    fit_builds,
    fit_searches,
    grown_indexes,
)
from orchestra_lib.vectors.cost import observe
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.pages import centroid_pages, rows_per_page

PROBES = (4, 8, 16)
GOAL = 0.2
_OPCLASS = "vector_cosine_ops"
_CHUNK = 20_000
_PASSES = 5
_BUILDS = 2
_L3 = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")


@dataclass(frozen=True)
class Built:
    """An index that was built and searched: the queries at each probes."""

    point: IndexPoint
    searches: dict[int, tuple[SearchPoint, ...]]

    def p95(self, probes: int) -> Estimate:
        """Of the queries' milliseconds."""
        return quantile([search.milliseconds for search in self.searches[probes]], 0.95)


def main() -> int:
    """Print what is expected of each index and what is measured then; returns 1 when that is more than 20 % off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, default="topics")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--next", type=int, default=300_000)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--shared-buffers", default="4GB")
    options = parser.parse_args()
    print(f"{hardware()}; {options.family}, seed {options.seed}, shared_buffers {options.shared_buffers}", flush=True)
    rows, queries = FAMILIES[options.family](options.next, options.queries, options.dimension, options.seed)
    with _server(options.shared_buffers) as conninfo, psycopg.connect(conninfo, autocommit=True) as connection:
        caches = _prepared(connection, options.dimension)
        built, errors = list[Built](), dict[str, list[float]]()
        for number, size in enumerate([*options.sizes, options.next]):
            wanted = _lists(size) if number >= 2 else ()  # two sizes are what a law needs
            expected = [_expected(built, rows, queries, size, lists, caches) for lists in wanted]
            _grow(connection, rows[:size])
            built += [_built(connection, size, lists, queries) for lists in _lists(size)]
            errors = _judged(built[-2:], expected)
    for name, found in errors.items():
        worst = max(map(abs, found))
        print(f"{'holds ' if worst <= GOAL else 'FAILED'} {name} of {options.next:,} rows: {_percent(found)}")
    return int(any(abs(error) > GOAL for found in errors.values() for error in found))


def _lists(size: int) -> tuple[int, int]:
    return math.isqrt(size), 2 * math.isqrt(size)


@contextmanager
def _server(shared_buffers: str) -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="orchestra-bench-"))
    folder.chmod(0o755)  # the server's user has to enter it
    settings = postgres.SETTINGS | {"shared_buffers": shared_buffers, "max_wal_size": "3GB"}
    running = postgres.start(folder / "grown", "the server", settings)
    try:
        yield running.conninfo()
    finally:
        postgres.stop(folder / "grown", "the server")
        shutil.rmtree(folder)


def _prepared(connection: psycopg.Connection, dimension: int) -> Caches:
    connection.execute("CREATE EXTENSION vector")
    register_vector(connection)
    connection.execute("SET maintenance_work_mem = '1GB'")
    connection.execute("SET max_parallel_maintenance_workers = 0")
    connection.execute("SET enable_seqscan = off")
    connection.execute(f"CREATE TABLE grown (id int, embedding vector({dimension}))")
    ((buffers,),) = connection.execute("SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers'")
    return Caches(1024 * int(_L3.read_text().strip().rstrip("K")), buffers)


def _grow(connection: psycopg.Connection, rows: Matrix) -> None:
    connection.execute("DROP INDEX IF EXISTS grown_index")
    ((there,),) = connection.execute("SELECT count(*) FROM grown").fetchall()
    with connection.cursor().copy("COPY grown FROM STDIN (FORMAT binary)") as copy:
        copy.set_types(["int4", "vector"])
        for number in range(there, len(rows)):
            copy.write_row((number, rows[number]))
    connection.execute("VACUUM ANALYZE grown")


@dataclass(frozen=True)
class Expected:
    """What an index is expected to need: seconds, and the p95 in milliseconds at each probes."""

    build_seconds: float
    p95_ms: dict[int, float]


def _expected(built: Sequence[Built], rows: Matrix, queries: Matrix, size: int, lists: int, caches: Caches) -> Expected:
    """The prediction for an index, from those that were built and the rows that they hold; printed as it is made."""
    builds = fit_builds([one.point for one in built])
    searches = fit_searches([search for one in built for found in one.searches.values() for search in found], caches)
    sample = rows[: built[-1].point.rows]
    indexes = grown_indexes(queries, sample, size, lists, _OPCLASS)
    expected = Expected(
        builds.law.predict(IndexPoint(size, lists, math.nan)),
        {probes: searches.quantile_ms(indexes, probes) for probes in PROBES},
    )
    told = ", ".join(f"{ms:.2f}" for ms in expected.p95_ms.values())
    print(f"  expected of {size:,} rows, {lists} lists: {expected.build_seconds:.1f} s; p95 {told} ms", flush=True)
    for law in (builds.law, searches.law):
        print(f"    {', '.join(f'{part} {value:.3g}' for part, value in law.coefficients.items())}", flush=True)
    return expected


def _built(connection: psycopg.Connection, size: int, lists: int, queries: Matrix) -> Built:
    seconds = min(_build_seconds(connection, lists) for _ in range(_BUILDS))
    ((index_bytes,),) = connection.execute("SELECT pg_relation_size('grown_index')").fetchall()
    visited = _visited(connection, lists, queries)
    searches = {
        probes: tuple(
            SearchPoint(rows, lists, index_bytes, ms)
            for rows, ms in zip(visited[probes], _milliseconds(connection, probes, queries), strict=True)
        )
        for probes in PROBES
    }
    built = Built(IndexPoint(size, lists, seconds), searches)
    told = ", ".join(str(built.p95(probes)) for probes in PROBES)
    print(f"  measured at {size:,} rows, {lists} lists: {seconds:.1f} s; p95 {told} ms", flush=True)
    return built


def _build_seconds(connection: psycopg.Connection, lists: int) -> float:
    """CPU seconds of the server process that builds the index anew."""
    connection.execute("DROP INDEX IF EXISTS grown_index")
    server = psutil.Process(connection.info.backend_pid)
    before = server.cpu_times()
    connection.execute(f"CREATE INDEX grown_index ON grown USING ivfflat (embedding {_OPCLASS}) WITH (lists = {lists})")
    after = server.cpu_times()
    return after.user + after.system - before.user - before.system


def _visited(connection: psycopg.Connection, lists: int, queries: Matrix) -> dict[int, list[float]]:
    """The rows that each query visits, at each probes, from the blocks that the server counts."""
    dimension = queries.shape[1]
    seen = observe(
        connection,
        sql.SQL("SELECT id FROM grown ORDER BY embedding <=> %(query)s LIMIT 10"),
        queries,
        [{"ivfflat.probes": str(probes)} for probes in PROBES],
        centroid_pages=centroid_pages(lists, dimension, Storage.VECTOR),
        rows_per_page=rows_per_page(dimension, Storage.VECTOR),
    )
    rows = [one.rows for one in seen]
    return {probes: rows[at * len(queries) :][: len(queries)] for at, probes in enumerate(PROBES)}


def _milliseconds(connection: psycopg.Connection, probes: int, queries: Matrix) -> list[float]:
    """What each query takes, the shortest of its passes, as the client sees it."""
    connection.execute(f"SET ivfflat.probes = {probes}")
    times = np.empty((_PASSES, len(queries)))
    for number in range(_PASSES):
        for at, query in enumerate(queries):
            began = time.perf_counter()
            connection.execute(
                "SELECT id FROM grown ORDER BY embedding <=> %b LIMIT 10", [query], prepare=True, binary=True
            ).fetchall()
            times[number, at] = (time.perf_counter() - began) * 1e3
    return times.min(axis=0).tolist()


def _judged(built: Sequence[Built], expected: Sequence[Expected]) -> dict[str, list[float]]:
    """How far off what was expected was, in shares of what was measured."""
    pairs = list(zip(built, expected, strict=True)) if expected else []
    errors = {
        "build": [hoped.build_seconds / one.point.build_seconds - 1 for one, hoped in pairs],
        "p95": [hoped.p95_ms[probes] / one.p95(probes).value - 1 for one, hoped in pairs for probes in PROBES],
    }
    for name, found in errors.items():
        if found:
            print(f"  {name} expected / measured - 1: {_percent(found)}", flush=True)
    return errors


def _percent(errors: Sequence[float]) -> str:
    return ", ".join(f"{100 * error:+.0f} %" for error in errors)


if __name__ == "__main__":
    sys.exit(main())
