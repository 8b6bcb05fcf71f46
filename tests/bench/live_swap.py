"""A swap of indexes under way: what the application notices of it, that writes and searches meanwhile.

The application opens a session for every few searches, as a pool that recycles does, and sets nothing but
enable_seqscan; its probes are the database's default. What it writes lies far from what it asks, so that the exact
answers stay what they are.

.venv/bin/python tests/bench/live_swap.py [--rows 20000] [--old 20] [--old-probes 6] [--new 200] [--new-probes 20]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common import hardware, servers
from pgvector import Vector
from psycopg import sql
from psycopg.types.json import Jsonb
from stores import EPOCH, fill, unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.vectors.forms import Effort, ivfflat
from orchestra_lib.vectors.index import IndexSpec, build_index
from orchestra_lib.vectors.search import Searchable, recalls, search
from orchestra_lib.vectors.session_defaults import persist
from orchestra_lib.vectors.swap import swap
from orchestra_lib.vectors.truth import Truth, exact_neighbours

TABLE, COSINE, K = sql.Identifier("memories"), "vector_cosine_ops", 10
QUERIES, A_SESSION, QUIET_SECONDS = 60, 10, 8.0
SEARCH = "SELECT id FROM memories ORDER BY embedding <=> %b LIMIT 10"
INSERT = (
    "INSERT INTO memories VALUES (%s, 'agent', 'user', 'session', 'Cherry', 'note', 'new', %s, %b, 'test/1', 1, "
    "%s, %s, NULL)"
)


@dataclass
class Application:
    """What the application did, each with its moment: seconds of each write, recall of each search."""

    conninfo: str
    queries: np.ndarray
    truth: Truth
    stopping: threading.Event = field(default_factory=threading.Event)
    writes: list[tuple[float, float]] = field(default_factory=list)
    searches: list[tuple[float, float, float]] = field(default_factory=list)

    def write(self) -> None:
        """Insert a row, update another, until it is stopped."""
        far = unit_vectors(500, seed=99, clusters=500)
        with connect(self.conninfo) as connection:
            number = 0
            while not self.stopping.is_set():
                began = time.monotonic()
                row = (f"new-{number:08}", Jsonb({}), Vector(far[number % 500]), EPOCH, EPOCH)
                connection.execute(INSERT, row)
                connection.execute("UPDATE memories SET version = version + 1 WHERE id = %s", [f"id-{number % 500:08}"])
                self.writes.append((began, time.monotonic() - began))
                number += 1

    def search(self) -> None:
        """Search in short sessions until it is stopped."""
        number = 0
        while not self.stopping.is_set():
            with connect(self.conninfo) as connection:
                connection.execute("SET enable_seqscan = off")
                for _ in range(A_SESSION):
                    query = number % len(self.queries)
                    began = time.monotonic()
                    rows = connection.execute(SEARCH, [Vector(self.queries[query])]).fetchall()
                    elapsed = time.monotonic() - began
                    right = self.truth.accepted(query).intersection(key for (key,) in rows)
                    self.searches.append((began, elapsed, len(right) / K))
                    number += 1


def main() -> None:
    """Print what the application noticed before, during and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 20_000), ("old", 20), ("old-probes", 6), ("new", 200), ("new-probes", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with servers() as (_, conninfo, _folder), tempfile.TemporaryDirectory() as folder:
        fill(conninfo, given.rows, clusters=given.rows // 10)
        build_index(conninfo, _spec(given.old), None, lambda _: None)
        persist(conninfo, ivfflat(given.old).settings(Effort(given.old_probes)))
        queries = unit_vectors(given.rows + QUERIES, clusters=given.rows // 10)[given.rows :]
        with connect(conninfo) as connection:
            truth = exact_neighbours(connection, TABLE, queries, K, COSINE)
        application = Application(conninfo, queries, truth)
        moments = _swapped(application, given, Path(folder) / "swap.jsonl")
    print(hardware())
    for what, start, end in moments:
        print(_noticed(application, what, start, end))


def _swapped(application: Application, given: argparse.Namespace, journal: Path) -> list[tuple[str, float, float]]:
    """Run the swap with the application beside it; the name, start and end of each stretch of time."""
    threads = [threading.Thread(target=target, daemon=True) for target in (application.write, application.search)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    time.sleep(QUIET_SECONDS)
    certifying: list[float] = []
    starting = time.monotonic()
    swap(
        application.conninfo,
        _spec(given.new),
        Effort(given.new_probes),
        _certifier(application, given, certifying),
        journal_path=journal,
    )
    ended = time.monotonic()
    time.sleep(QUIET_SECONDS)
    application.stopping.set()
    for thread in threads:
        thread.join()
    steps = [json.loads(line)["event"] for line in journal.read_text().splitlines()]
    assert steps[-1] == "swap ended", steps
    return [
        ("before", began, starting),
        ("guard and build", starting, certifying[0]),
        ("certificate", certifying[0], certifying[1]),
        ("drop and persist", certifying[1], ended),
        ("after", ended, time.monotonic()),
    ]


@dataclass(frozen=True)
class Measured:
    """A certificate that only looks at the recall."""

    holds: bool
    reasons: tuple[str, ...]


def _certifier(application: Application, given: argparse.Namespace, moments: list[float]) -> Callable[[str], Measured]:
    def certify(name: str) -> Measured:
        moments.append(time.monotonic())
        target = Searchable(TABLE, COSINE, K, ivfflat(given.new), only=name)
        with connect(application.conninfo) as connection:
            run = search(connection, target, application.queries, Effort(given.new_probes))
        moments.append(time.monotonic())
        recall = float(recalls(run, application.truth).mean())
        print(f"the new index, beside the old one: recall {recall:.3f}")
        return Measured(holds=True, reasons=(f"recall {recall:.3f}",))

    return certify


def _spec(lists: int) -> IndexSpec:
    return IndexSpec("memories", ivfflat(lists), COSINE, 1536)


def _noticed(application: Application, what: str, start: float, end: float) -> str:
    writes = [seconds for moment, seconds in application.writes if start <= moment < end]
    searches = [(seconds, recall) for moment, seconds, recall in application.searches if start <= moment < end]
    told = f"{what:>16}: {end - start:6.1f} s, {len(writes) / (end - start):7.1f} writes/s"
    if writes:
        told += f", slowest {max(writes) * 1e3:6.1f} ms"
    if searches:
        elapsed, recall = np.asarray(searches).T
        told += f"; search p50 {np.median(elapsed) * 1e3:5.2f} ms, recall {recall.mean():.3f} ({len(searches):,})"
    return told


if __name__ == "__main__":
    main()
