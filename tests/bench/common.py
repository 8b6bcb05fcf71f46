"""What the benchmarks share: two servers of their own, alternated repetitions, and the line that says the ratio."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/stores.py

from orchestra_lib.local import databases
from orchestra_lib.record import open_record


@contextmanager
def servers() -> Iterator[tuple[str, str, Path]]:
    """Connection strings of an empty source and target with pgvector, and a folder that the servers may read."""
    directory = Path(tempfile.mkdtemp(prefix="orchestra-bench-"))
    directory.chmod(0o755)
    try:
        up = databases.up(directory).databases
        for database in up.values():
            with psycopg.connect(database.conninfo, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
        yield up["source"].conninfo, up["target"].conninfo, directory
    finally:
        databases.down(directory)
        shutil.rmtree(directory)


def hardware() -> str:
    """One line about this machine."""
    host = open_record("bench", None, None).host
    memory_gib = int(host["memory_bytes"]) / 2**30
    return f"{host['cores']} cores, {host['cpu']}, {memory_gib:.0f} GiB, load {os.getloadavg()[0]:.1f}"


def timed(work: Callable[[], object]) -> float:
    """Seconds that a piece of work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternated(sides: dict[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Run every side in turn, again and again, so that a slow minute of the machine hits all of them."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, side in sides.items():
            found[name].append(side())
    return found


def told(name: str, values: list[float], unit: str) -> str:
    """Median and range of one side."""
    return f"{name:44} {statistics.median(values):12,.3f} {unit}  [{min(values):,.3f} to {max(values):,.3f}]"


def ratio(name: str, value: float, goal: float) -> str:
    """The closing line: a ratio from one run, and whether it reaches the goal."""
    return f"ratio {name}: {value:.2f} (goal >= {goal}): {'reached' if value >= goal else 'below the goal'}"
