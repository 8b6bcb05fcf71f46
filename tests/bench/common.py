"""What the benchmarks share: two servers of their own, alternated repetitions, and the line that says the ratio."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/stores.py

from orchestra_lib.local import databases
from orchestra_lib.record import open_record

Value = TypeVar("Value")


@dataclass(frozen=True)
class Cost:
    """What a piece of work took: seconds by the clock, and CPU seconds of this program (with its children) and servers.

    On a machine that others use too the clock tells about them, CPU time about the work.
    """

    seconds: float
    cpu_seconds: dict[str, float]


@contextmanager
def servers() -> Iterator[tuple[str, str, Path]]:
    """Connection strings of an empty source and target with pgvector, and a folder that the servers may read."""
    directory = Path(tempfile.mkdtemp(prefix="orchestra-bench-"))
    directory.chmod(0o755)
    try:
        up = databases.up(directory, names=("source", "target")).databases
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


def cost(work: Callable[[], object], **conninfos: str) -> Cost:
    """What a piece of work costs; ``conninfos`` names the servers whose CPU time counts."""
    postmasters = {name: _postmaster(conninfo) for name, conninfo in conninfos.items()}
    before = _cpu_seconds(postmasters)
    seconds = timed(work)
    after = _cpu_seconds(postmasters)
    return Cost(seconds, {name: after[name] - before[name] for name in after})


def _postmaster(conninfo: str) -> psutil.Process:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
    return psutil.Process(int(row[0].split()[0]))


def _cpu_seconds(postmasters: dict[str, psutil.Process]) -> dict[str, float]:
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found = {"client": sum(usage.ru_utime + usage.ru_stime for usage in own)}
    time.sleep(0.1)  # a session that has just been closed is gone by then, and not counted in its end
    for name, postmaster in postmasters.items():
        # Sessions that have ended are in the postmaster's own account of its children, the others are its children.
        running = list(_running_times(postmaster.children()))
        found[name] = sum(postmaster.cpu_times()[:4]) + sum(times.user + times.system for times in running)
    return found


def _running_times(children: list[psutil.Process]) -> Iterator[Any]:
    for child in children:
        with suppress(psutil.NoSuchProcess):  # ended just now, and in the postmaster's account
            yield child.cpu_times()


def told_cpu(name: str, costs: list[Cost], rows: int) -> str:
    """Median CPU time of a row in each process, in microseconds."""
    medians = {
        process: statistics.median(cost.cpu_seconds[process] for cost in costs) / rows * 1e6
        for process in costs[0].cpu_seconds
    }
    parts = " + ".join(f"{process} {value:.1f}" for process, value in medians.items())
    return f"{name:44} {sum(medians.values()):12,.1f} us of CPU a row = {parts}"


def alternated(sides: dict[str, Callable[[], Value]], repetitions: int) -> dict[str, list[Value]]:
    """Run every side in turn, again and again, so that a slow minute of the machine hits all of them."""
    found: dict[str, list[Value]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, side in sides.items():
            found[name].append(side())
    return found


def told(name: str, values: list[float], unit: str) -> str:
    """Median and range of one side."""
    return f"{name:44} {statistics.median(values):12,.3f} {unit}  [{min(values):,.3f} to {max(values):,.3f}]"


def paired(ours: list[float], theirs: list[float]) -> float:
    """The median of theirs / ours, each pair measured one right after the other."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def ratio(name: str, value: float, goal: float) -> str:
    """The closing line: a ratio from one run, and whether it reaches the goal."""
    return f"ratio {name}: {value:.2f} (goal >= {goal}): {'reached' if value >= goal else 'below the goal'}"
