"""Search through the memory API against the same SQL through psycopg, at equal offered load.

The SQL side sends what the API sends, as the API does: the transaction, the user and the statement in one pipeline,
prepared, with binary answers. Both sides get the same queries at the same moments, in alternated runs (ABBA), each from
processes with a lean client: psycopg's and httptools' are both of C, and each sends a question in one go. (Python's own
http.client sends head and body apart and reads the headers of an answer as those of a mail: what that takes is not the
API's.) Latency counts from when a request was due.

Apart: the database has one half of the cores, and whoever asks has the other, the API among them, because a database in
AlloyDB shares its cores with nobody. Together: all of them have all cores, so that a search which the database works on
waits for the API that reads another, and the other way round. Prints for both arrangements both p95, their ratio over
all blocks and in each, and where the API's time went by its own account.

2026-11-26, 2 cores of an AMD EPYC, nobody else on them: apart 1.25 (blocks 1.31, 1.21, 1.28; p95 14.07 and 11.22 ms),
together 1.41 (1.45, 1.38, 1.41; 11.48 and 8.14 ms); in two runs before, together alone, 1.60 and 1.58.

    python tests/bench/api_search.py [--rows 8000] [--rate 20] [--seconds 10] [--blocks 3]
"""

from __future__ import annotations

import argparse
import http
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httptools
import numpy as np
import psycopg
from common import hardware, servers
from numpy.typing import NDArray
from pgvector import Vector
from pgvector.psycopg import register_vector

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service.serving import ROLE, prepared, process, token_of, wait_for
from stores import fill, unit_vectors

from orchestra_lib.bench.load import Load, run_load
from orchestra_lib.bench.samples import LoadRun, Outcome
from orchestra_lib.service import schema, sessions
from orchestra_lib.service.index_form import IndexForm
from orchestra_lib.service.store import _COLUMNS, MemoryStore

USER, K, LISTS, RECALL, PORT = "ada", 10, 100, 0.95, 18_431
CLUSTERS = 200
_RECEIVED_BYTES = 65_536


@dataclass(frozen=True)
class SameSql:
    """What the API does for a search, without the API; one synchronous session a worker."""

    dsn: str
    statement: bytes
    queries: NDArray[np.float32]
    values: Mapping[str, Any]

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        given = {"role": ROLE, "plan_cache_mode": "force_custom_plan", **sessions.SEARCHING}
        options = " ".join(f"-c {name}={value}" for name, value in given.items())
        with psycopg.connect(self.dsn, autocommit=True, options=options) as connection:
            # One way to the server and back for the whole transaction, as the API has it.
            register_vector(connection)

            def ask(number: int) -> Outcome:
                query = Vector(self.queries[number % len(self.queries)])
                cursor = connection.cursor(binary=True)
                with connection.pipeline():
                    connection.execute("BEGIN", prepare=False)
                    connection.execute(f"SELECT set_config('{schema.USER_SETTING}', %s, true)", [USER], prepare=True)
                    cursor.execute(self.statement, {**self.values, "query": query}, prepare=True)
                    connection.execute("COMMIT", prepare=False)
                return Outcome(None, len(cursor.fetchall()) < K)

            for number in range(10):
                ask(number)
            yield ask


class Answer:
    """One answer, as httptools reads it."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.body, self.complete = b"", False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.complete = True


@dataclass(frozen=True)
class OverHttp:
    """The same searches through the API; one connection a worker, kept, with a client as lean as the other side's."""

    port: int
    bodies: Sequence[bytes]

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        head = (
            f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {token_of(USER)}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )
        requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in self.bodies]
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def ask(number: int) -> Outcome:
                connection.sendall(requests[number % len(requests)])
                answer = Answer()
                parser = httptools.HttpResponseParser(answer)
                while not answer.complete:
                    part = connection.recv(_RECEIVED_BYTES)
                    if not part:
                        raise ConnectionError("the API has closed the connection")
                    parser.feed_data(part)
                hits = json.loads(answer.body).get("hits", ())
                if parser.get_status_code() != http.HTTPStatus.OK:
                    return Outcome(f"HTTP {parser.get_status_code()}")
                total = answer.headers[b"server-timing"].partition(b"total;dur=")[2].partition(b",")[0]
                return Outcome(None, len(hits) < K, float(total))

            for number in range(10):
                ask(number)
            yield ask


def bodies_of(queries: NDArray[np.float32]) -> list[bytes]:
    """The queries as the API takes them."""
    return [json.dumps({"embedding": [float(one) for one in query], "k": K}).encode() for query in queries]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second, offered")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=4, help="sessions, or connections, at once at most")
    parser.add_argument("--blocks", type=int, default=3, help="sql, api, api, sql; again and again")
    given = parser.parse_args()
    print(hardware())
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    if half:
        told("apart", measured(given, cores[:half], cores[half:]), given.rate, " (wanted <= 1.5)")
    else:
        print("there is one core: nothing can be measured apart")
    told("together", measured(given, cores, cores), given.rate)


def measured(given: argparse.Namespace, database: Sequence[int], askers: Sequence[int]) -> dict[str, list[LoadRun]]:
    """Runs by side, with the server on some cores and everything else on others."""
    queries = unit_vectors(200, seed=7, clusters=CLUSTERS)
    runs: dict[str, list[LoadRun]] = {"sql": [], "api": []}
    os.sched_setaffinity(0, database)  # which the server inherits
    with servers() as (_, dsn, directory):
        probes = make_store(dsn, given.rows, queries)
        print(f"{given.rows:,} rows, {LISTS} lists, {probes} probes for recall@{K} of {RECALL}")
        form = IndexForm("ivfflat", "vector", "<=>", given.rows)
        statement = MemoryStore(None, "memories", 1536)._near_statement(form, (), _COLUMNS)
        few = sessions._FEWEST
        values = {"limit": K, "few": few, "over_few": few + 1}
        tokens = directory / "tokens"
        tokens.mkdir()
        os.sched_setaffinity(0, askers)
        with process(dsn, tokens, PORT, dimension=1536) as (_, api):
            wait_for(api, "/readyz", 200)
            sides = {"sql": SameSql(dsn, statement, queries, values), "api": OverHttp(PORT, bodies_of(queries))}
            for block in range(given.blocks):
                for name in ("sql", "api", "api", "sql"):
                    load = Load(given.rate, given.seconds, block, given.workers)
                    runs[name].append(run_load(load, sides[name]))
    return runs


def make_store(dsn: str, rows: int, queries: NDArray[np.float32]) -> int:
    """A prepared and indexed table that one user owns, with the fewest probes that find enough; returns them."""
    vectors = fill(dsn, rows, clusters=CLUSTERS)
    prepared(dsn, 1536)
    nearest = np.argsort(-(queries @ vectors.T), axis=1)[:, :K]
    with psycopg.connect(dsn, autocommit=True) as connection:
        register_vector(connection)
        connection.execute("SET maintenance_work_mem = '512MB'")
        connection.execute(
            f"CREATE INDEX ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = {LISTS})"
        )
        connection.execute("UPDATE memories SET user_id = 'ada', expires_at = NULL")
        connection.execute("VACUUM (FULL, ANALYZE) memories")
        connection.execute("SET enable_seqscan = off")
        for probes in range(2, LISTS, 2):
            connection.execute(f"SET ivfflat.probes = {probes}")
            found = [
                connection.execute(f"SELECT id FROM memories ORDER BY embedding <=> %s LIMIT {K}", [query]).fetchall()
                for query in queries
            ]
            right = [
                len({f"id-{number:08}" for number in one} & {id_ for (id_,) in ids})
                for one, ids in zip(nearest, found, strict=True)
            ]
            if np.mean(right) >= RECALL * K:
                break
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET ivfflat.probes = {probes}")
    return probes


def told(arrangement: str, runs: Mapping[str, Sequence[LoadRun]], rate: float, wanted: str = "") -> None:
    """The figures of all runs of an arrangement together."""
    quantiles = {}
    for name, several in runs.items():
        latencies = np.concatenate([run.latency_ms[run.answered] for run in several])
        quantiles[name] = np.percentile(latencies, [50, 95, 99])
        failed = sum(int((~run.answered).sum()) for run in several)
        p50, p95, p99 = quantiles[name]
        figures = f"p50 {p50:.2f}, p95 {p95:.2f}, p99 {p99:.2f} ms"
        print(f"{arrangement}, {name}: {len(latencies)} answers at {rate:g}/s, {figures}, {failed} failed")
    inside = np.concatenate([run.server_ms for run in runs["api"]])
    p50, p95 = np.nanpercentile(inside, [50, 95])
    print(f"{arrangement}, api, by its own account: p50 {p50:.2f}, p95 {p95:.2f} ms")
    blocks = [_p95(runs["api"][n : n + 2]) / _p95(runs["sql"][n : n + 2]) for n in range(0, len(runs["api"]), 2)]
    each = ", ".join(f"{ratio:.2f}" for ratio in blocks)
    ratio = quantiles["api"][1] / quantiles["sql"][1]
    print(f"{arrangement}: ratio p95 through the API / through psycopg: {ratio:.2f}, by block {each}{wanted}")


def _p95(runs: Sequence[LoadRun]) -> float:
    return float(np.percentile(np.concatenate([run.latency_ms[run.answered] for run in runs]), 95))


if __name__ == "__main__":
    main()
