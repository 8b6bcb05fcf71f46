"""The claims about 300,000 rows: throughput, workers killed under a writer with its ledger, planted differences.

    .venv/bin/python tests/scale/large.py [--rows 300000] [--dimension 1536] [--kills 3] [--claims ledger ...]

1. The plain copy and the pipeline take turns, two workers each, nothing else going on: their rates and the ratio. A
   copy before, which does not count, makes the log's files.
2. The pipeline again, while a writer writes whose every acknowledged write is in its ledger, and a worker is killed
   again and again; then the stream catches up, and the ledger is judged on the target row by row.
3. The verification finds both sides the same; then ten rows are changed on the target, and it has to name all ten.

Needs Apache Beam (scripts/scale_venv.sh). Ends with 1 when a claim does not hold. Ranges are of the default size,
and of half of it where workers are killed: some seventy of them at 300,000 rows.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import numpy as np
import psycopg
from common import cost, hardware
from pgvector.psycopg import register_vector
from psycopg import sql
from stores import row, unit_vectors
from transfers import workers_of_beam

from orchestra_lib.database import connect
from orchestra_lib.local import postgres
from orchestra_lib.memory.copy import copy, exported_snapshot
from orchestra_lib.memory.ranges import key_ranges
from orchestra_lib.memory.running_stream import RunningStream
from orchestra_lib.memory.schema import COLUMN_TYPES, COLUMNS, create_table
from orchestra_lib.memory.slot import drop_slot, mark
from orchestra_lib.memory.stream import StreamSpec, Tuning
from orchestra_lib.rehearsal.judge import judge
from orchestra_lib.rehearsal.writer import Load, writer_process
from orchestra_lib.scale.attempts import TransferRun, run_transfer, run_verification
from orchestra_lib.scale.spec import TransferSpec

WORKERS, RANGES = 2, 16
NAME = "large"
_SETTINGS = postgres.SETTINGS | {"shared_buffers": "512MB", "wal_level": "logical", "max_wal_size": "3GB"}
_PLANTED = 10
CLAIMS = {
    "throughput": "throughput >= 0.7 x the plain copy, from command to end",
    "ledger": "every acknowledged write is there though workers were killed",
    "planted": f"all {_PLANTED} planted differences are named",
}


def main() -> int:
    """Print what each claim came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dimension", type=int, default=1536)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--per-second", type=float, default=100, help="writes meanwhile")
    parser.add_argument("--repeat", type=int, default=1, help="how often copy and pipeline take turns")
    parser.add_argument("--claims", nargs="+", choices=CLAIMS, default=CLAIMS)
    options = parser.parse_args()
    if "planted" in options.claims and "ledger" not in options.claims:
        parser.error("planted differences are looked for in the store that the claim before leaves: ask for ledger too")
    print(hardware(), flush=True)
    with _stores(options.rows, options.dimension) as (source, target, folder):
        spec = TransferSpec(
            f"file:{folder}/source.dsn",
            f"file:{folder}/target.dsn",
            NAME,
            NAME,
            NAME,
            workers=WORKERS,
        )
        small = replace(spec, range_bytes=spec.range_bytes // 2)
        work: dict[str, Callable[[], bool]] = {
            "throughput": lambda: _throughput(spec, source, target, options),
            "ledger": lambda: _killed(small, source, target, folder, options),
            "planted": lambda: _planted(spec, target, options.rows),
        }
        held = {claim: work[claim]() for claim in CLAIMS if claim in options.claims}
    for claim, holds in held.items():
        print(f"{'holds ' if holds else 'FAILED'} {CLAIMS[claim]}")
    return 0 if all(held.values()) else 1


def _throughput(spec: TransferSpec, source: str, target: str, options: argparse.Namespace) -> bool:
    ratios, cpu_ratios, runs = [], [], list[TransferRun]()
    _emptied(spec, source, target, options.dimension)
    _plain_copy(spec, source)
    for number in range(1, options.repeat + 1):
        _emptied(spec, source, target, options.dimension)
        plain = cost(lambda: _plain_copy(spec, source), source=source, target=target)
        _emptied(spec, source, target, options.dimension)
        piped = cost(lambda: runs.append(run_transfer(spec)), source=source, target=target)
        ratios.append(plain.seconds / piped.seconds)
        cpu_ratios.append(sum(plain.cpu_seconds.values()) / sum(piped.cpu_seconds.values()))
        print(f"  {number}: ratio {ratios[-1]:.2f} by the clock, {cpu_ratios[-1]:.2f} by CPU time")
        for name, found in (("plain copy", plain), ("pipeline, from command to end", piped)):
            parts = ", ".join(f"{part} {1e6 * cpu / options.rows:.0f}" for part, cpu in found.cpu_seconds.items())
            print(
                f"     {name}: {found.seconds:.1f} s, {options.rows / found.seconds:,.0f} rows/s; CPU us a row: {parts}"
            )
        print(f"     {_parts(runs[-1], plain.seconds, options.rows)}; load {os.getloadavg()[0]:.1f}", flush=True)
    print(
        f"  median ratio {statistics.median(ratios):.2f} by the clock, {statistics.median(cpu_ratios):.2f} by CPU time"
    )
    return statistics.median(ratios) >= 0.7


def _parts(run: TransferRun, plain_seconds: float, rows: int) -> str:
    """What of a transfer is copying and what is not, and from how many rows on it would be 0.7 x the plain copy."""
    ranges = run.attempts[-1].result["metrics"]["range ms"]
    copying = ranges["count"] * ranges["mean"] / 1e3 / WORKERS
    spared_us = 1e6 * (plain_seconds / 0.7 - copying) / rows
    crossing = f"{1e6 * (run.seconds - copying) / spared_us:,.0f} rows" if spared_us > 0 else "no number of rows"
    return (
        f"{run.ranges} ranges; of the pipeline {copying:.1f} s are copying ({rows / copying:,.0f} rows/s) and "
        f"{run.seconds - copying:.1f} s are not; 0.7 from {crossing} on"
    )


def _plain_copy(spec: TransferSpec, source: str) -> None:
    job = spec.job()
    with connect(source) as session, exported_snapshot(session) as snapshot:
        copy(job, snapshot, key_ranges(session, job.source, RANGES), WORKERS, lambda _rows: None)


def _killed(spec: TransferSpec, source: str, target: str, folder: Path, options: argparse.Namespace) -> bool:
    _emptied(spec, source, target, options.dimension)
    (folder / "route").write_text(source)
    ledger = folder / "ledger"
    load = Load(per_second=options.per_second, sessions=3, seed=3)
    with writer_process(load, folder / "route", ledger) as writer:
        stop, killed = threading.Event(), list[float]()
        killer = threading.Thread(target=_kill_workers, args=[options.kills, stop, killed])
        killer.start()
        run = run_transfer(spec)
        stop.set()
        killer.join()
        report = writer.stop()
    _caught_up(spec, source, target)
    verdict = judge(ledger, target, "memories")
    print(f"  {len(killed)} workers killed at {', '.join(f'{at:.1f}' for at in killed)} s; {_told(run)}")
    print(f"  {verdict}; writer: {report.as_json()[:160]}", flush=True)
    return verdict.holds and len(killed) == options.kills and verdict.writes > 0


def _kill_workers(times: int, stop: threading.Event, killed: list[float]) -> None:
    """SIGKILL to one of Beam's workers, some time after it has begun; again in the attempt that follows."""
    draw, began, victims = random.Random(1), time.monotonic(), set[int]()
    while len(killed) < times and not stop.wait(draw.uniform(1.0, 2.0)):
        new = [process for process in workers_of_beam() if process.pid not in victims]
        if len(new) == WORKERS and all(time.time() - process.create_time() > 3 for process in new):
            victims.update(process.pid for process in new)
            draw.choice(new).send_signal(signal.SIGKILL)
            killed.append(time.monotonic() - began)


def _caught_up(spec: TransferSpec, source: str, target: str) -> None:
    job = spec.job()
    stream = StreamSpec(
        spec.stream, source, job.source, target, job.target_table, spec.slot, spec.publication, Tuning()
    )
    with RunningStream(stream) as running, connect(source) as session:
        if not running.wait_for(mark(session), 120):
            raise SystemExit(f"the stream did not catch up: {running.status().sentence()}")


def _planted(spec: TransferSpec, target: str, rows: int) -> bool:
    began = time.monotonic()
    before = run_verification(spec)
    clean_seconds = time.monotonic() - began
    numbers = sorted(np.random.default_rng(7).choice(rows, _PLANTED, replace=False).tolist())
    planted, others = {}, ", ".join(COLUMNS[1:])
    with psycopg.connect(target, autocommit=True) as connection:
        statements = {
            "changed": "UPDATE memories SET metadata = metadata || '{\"planted\": true}' WHERE id = %s",
            "missing": "DELETE FROM memories WHERE id = %s",
            "extra": f"INSERT INTO memories (id, {others}) SELECT id || 'x', {others} FROM memories WHERE id = %s",
        }
        for number, name in zip(numbers, ["changed"] * 5 + ["missing"] * 3 + ["extra"] * 2, strict=True):
            id_ = f"id-{number:08}"
            if connection.execute(statements[name], [id_]).rowcount != 1:
                raise SystemExit(f"{id_} is not on the target: nothing could be planted")
            planted[f"{id_}x" if name == "extra" else id_] = name
    began = time.monotonic()
    after = run_verification(spec)
    found = {difference.id: difference.kind for difference in after.named}
    print(
        f"  verification of {before.source_rows:,} rows: {before.differing} differ, {clean_seconds:.1f} s; with "
        f"{len(planted)} rows planted {after.differing} differ, {time.monotonic() - began:.1f} s"
    )
    print(f"  {', '.join(f'{id_} ({kind})' for id_, kind in found.items())}", flush=True)
    return before.differing == 0 and found == planted


def _told(run: TransferRun) -> str:
    ends = ", ".join(f"{attempt.exit_code} after {attempt.seconds:.1f} s" for attempt in run.attempts)
    return f"{len(run.attempts)} attempts ({ends}), {run.seconds:.1f} s in all"


def _emptied(spec: TransferSpec, source: str, target: str, dimension: int) -> None:
    """An empty target, nothing known of the transfer, no slot."""
    with psycopg.connect(source, autocommit=True) as connection:
        drop_slot(connection, spec.slot)
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS memories")
        connection.execute("DROP SCHEMA IF EXISTS orchestra_stream CASCADE")
        connection.execute(create_table(dimension=dimension))
        connection.execute("CHECKPOINT")


@contextmanager
def _stores(rows: int, dimension: int) -> Iterator[tuple[str, str, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="orchestra-large-"))
    folder.chmod(0o755)  # the servers' user has to enter it
    started = []
    try:
        for name in ("source", "target"):
            server = postgres.start(folder / name, f"the {name}", _SETTINGS)
            started.append(name)
            conninfo = server.conninfo()
            (folder / f"{name}.dsn").write_text(conninfo)
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
        source, target = ((folder / f"{name}.dsn").read_text() for name in ("source", "target"))
        _fill(source, rows, dimension)
        yield source, target, folder
    finally:
        for name in started:
            postgres.stop(folder / name, f"the {name}")
        shutil.rmtree(folder)


def _fill(conninfo: str, rows: int, dimension: int, chunk: int = 20_000) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(create_table(dimension=dimension))
        register_vector(connection)
        vectors = unit_vectors(chunk, dimension=dimension)
        statement = sql.SQL("COPY memories ({}) FROM STDIN (FORMAT binary)").format(
            sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        )
        for first in range(0, rows, chunk):
            with connection.cursor().copy(statement) as into:
                into.set_types(list(COLUMN_TYPES.values()))
                for number in range(first, min(rows, first + chunk)):
                    # The same vectors again and again, in other orders of their numbers: what is moved is bytes.
                    into.write_row(row(number, np.roll(vectors[number % chunk], first // chunk)))
        connection.execute("ANALYZE memories")


if __name__ == "__main__":
    sys.exit(main())
