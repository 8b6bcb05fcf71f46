"""Our stream against PostgreSQL's own logical replication: the same changes, applied by both, one after the other.

.venv/bin/python tests/bench/sustained_apply.py [--quick] [--json FILE] [--part cases|tuning|connections]

Both read one source, each from its own slot, into databases of one target server that began as copies of each other,
vector index included. Three measures of each:

backlog     what lies in the slot is applied while nobody writes: the rate of the apply alone
saturation  written as fast as the source can while it is applied: the rate of all of it together
offered     one row a transaction, at a rate below saturation, in an open loop: how old changes are when they arrive

Backlog and saturation have ten rows a transaction.

Figures (ours / native, 2026-11-25, two cores, medians of three; backlog and saturation, inserts and then mixed): 1,000
lists 1.71 and 1.44, 1.37 and 1.77; 4,000 lists 1.75 and 0.96 (between 0.6 and 2.1: the machine was disturbed; 1.82 a
day later), 2.36 and 1.73; HNSW 1.8 and 1.75, 1.83 and 1.54; no vector index 0.57 and 0.85, 0.63 and 0.99.

Without a vector index the backlog is below native's, and on two cores it has to be. A row costs native 56 microseconds
of CPU, 32 of them in its slowest process: 30,000 rows a second. It costs ours 89: 19 on the source, 40 on the target,
and 30 in our own process, which native does not have. Two cores need 45 for that, which is 22,000 a second; 17,300 were
measured. What makes the goal possible is a vector index, whose work (350 microseconds at 1,000 lists, 2,700 at 4,000)
two sessions share, or more cores: our slowest process takes 30. Three or four sessions gain nothing over two on two
cores (1.47 and 1.51 times what one does, against 1.56).

The strategy's 0.1 s / 500 applied 3,634 rows a second into 1,000 lists, 0.5 s / 100 0.94 times that, the best of nine
(0.1 s / 1000) 1.18. A shorter wait makes rows visible sooner: p95 37 ms at 0.02 s / 500 against 147 at 0.1 s / 500.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psycopg
from common import Cost, cost, hardware, paired, ratio, told, told_cpu
from psycopg import sql
from sides import PUBLICATION, Native, Ours, Side
from stores import fill
from workload import INSERTS, MIXED, WORKLOADS, Mark, Writer, freshness, prepare

from orchestra_lib.local import postgres
from orchestra_lib.memory.checksum import row_digest
from orchestra_lib.memory.stream import Tuning
from orchestra_lib.stream_process import calm_collector

LOGICAL = {"wal_level": "logical", "max_replication_slots": "20", "max_wal_senders": "20"}
SOURCE_SETTINGS = {**postgres.SETTINGS, **LOGICAL, "track_commit_timestamp": "on"}
TARGET_SETTINGS = {**postgres.SETTINGS, **LOGICAL, "max_logical_replication_workers": "8"}
STRATEGY = Tuning(debounce_seconds=0.1, batch_size=500)
ALTERNATIVE = Tuning(debounce_seconds=0.5, batch_size=100)
OFFERED_ROWS_PER_SECOND = 1_500
"""What the strategy expects of the store; less where one of the two sides could not follow."""
BELOW_SATURATION = 0.6
ROWS_IN_A_TRANSACTION = 10


@dataclass(frozen=True)
class Index:
    """A vector index, and how many changes a measurement has: seconds of work for a server with that index."""

    name: str
    ddl: str
    changes: int


INDEXES = (
    Index("none", "", 30_000),
    Index("ivfflat-1000", "ivfflat (embedding vector_cosine_ops) WITH (lists = 1000)", 10_000),
    Index("ivfflat-4000", "ivfflat (embedding vector_cosine_ops) WITH (lists = 4000)", 4_000),
    Index("hnsw-16-64", "hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)", 2_500),
)


@dataclass(frozen=True)
class Figure:
    """Repeated values of one measure."""

    index: str
    workload: str
    measure: str
    side: str
    unit: str
    values: list[float]

    def line(self) -> str:
        """It in words."""
        return told(f"{self.index} {self.workload} {self.measure}: {self.side}", self.values, self.unit)


@dataclass
class Report:
    """Everything measured; a figure is printed when it is added."""

    figures: list[Figure] = field(default_factory=list)
    ratios: list[dict[str, object]] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        print(figure.line(), flush=True)

    def compare(self, name: str, value: float, goal: float) -> None:
        """A ratio of ours to theirs (higher is better)."""
        self.ratios.append({"name": name, "value": value, "goal": goal})
        print(ratio(name, value, goal), flush=True)

    def within(self, name: str, value: float, limit: float) -> None:
        """A value that has to stay below a limit."""
        self.ratios.append({"name": name, "value": value, "limit": limit})
        print(f"{name}: {value:,.3f} (goal <= {limit:g}): {'reached' if value <= limit else 'above the goal'}")


@dataclass(frozen=True)
class Servers:
    """Two servers of their own, with the rows and the changes of every case in a database to be copied."""

    source: postgres.Running
    target: postgres.Running
    target_data: Path

    def database(self, side: str, name: str) -> str:
        """How to connect to a database of the source or the target."""
        return f"{getattr(self, side).conninfo()} dbname={name}"

    def copy_database(self, side: str, template: str, name: str) -> str:
        """Make a database as a copy of another; returns how to connect to it."""
        with psycopg.connect(self.database(side, "postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.database(side, name)

    def drop_database(self, side: str, name: str) -> None:
        with psycopg.connect(self.database(side, "postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def checkpoint(self) -> None:
        """Every side begins with the same distance to the next checkpoint."""
        for side in ("source", "target"):
            with psycopg.connect(self.database(side, "postgres"), autocommit=True) as connection:
                connection.execute("CHECKPOINT")


@dataclass(frozen=True)
class Arena:
    """One index's source, and one target database for each side."""

    servers: Servers
    index: Index
    source: str
    targets: Mapping[str, str]
    writer: Writer


def main() -> None:
    """Print every figure, the ratios, and what a row costs."""
    options = _options()
    report = Report()
    calm_collector()  # as in the process of a stream
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers go with it
    print(hardware())
    with _servers(options.rows, options.vectors) as servers:
        settings = {side: _settings(servers.database(side, "postgres")) for side in ("source", "target")}
        for part in options.parts:
            PARTS[part](servers, options, report)
    if options.json:
        environment = {"hardware": hardware(), "postgresql": settings, "options": vars(options)}
        content = {"environment": environment, "figures": report.figures, "ratios": report.ratios}
        options.json.write_text(json.dumps(content, default=_plain, indent=1))


# --- the cases --------------------------------------------------------------------------------------------------------


def cases(servers: Servers, options: argparse.Namespace, report: Report) -> None:
    """Every index and workload, ours against native."""
    for index in options.indexes:
        with _arena(servers, index, ("native", "ours")) as arena, ExitStack() as stack:
            native = Native(arena.source, arena.targets["native"])
            stack.callback(native.drop)
            ours = Ours(arena.source, arena.targets["ours"], options.tuning)
            stack.callback(ours.drop)
            for workload in options.workloads:
                _case(arena, workload, (ours, native), options, report)
            _require_equal(arena, (ours, native))


def _case(arena: Arena, workload: str, sides: Sequence[Side], options: argparse.Namespace, report: Report) -> None:
    """The three measures of both sides, in turn there and back."""
    changes = int(arena.index.changes * options.scale)
    name = (arena.index.name, workload)

    def add(measure: str, unit: str, values: Mapping[str, list[float]]) -> Mapping[str, list[float]]:
        for side, found in values.items():
            report.add(Figure(*name, measure, side, unit, found))
        return values

    costs: dict[str, list[Cost]] = {side.name: [] for side in sides}
    rates: dict[str, list[float]] = {side.name: [] for side in sides}
    rows = 0
    for repetition in range(options.repetitions):
        rows = arena.writer.write(workload, changes, ROWS_IN_A_TRANSACTION).rows + 1
        mark = arena.writer.mark()
        for side in _there_and_back(sides, repetition):
            costs[side.name].append(_backlog(arena, side, mark))
            rates[side.name].append(rows / costs[side.name][-1].seconds)
    add("backlog", "rows/s", rates)
    for side in sides:
        print(told_cpu(f"  CPU, {side.name}", costs[side.name], rows))
    report.compare(f"{' '.join(name)} backlog: ours / native", _rate_ratio(rates), 1.0)

    saturated = {side.name: [] for side in sides}
    ages: dict[str, list[np.ndarray]] = {side.name: [] for side in sides}
    for repetition in range(options.repetitions):
        for side in _there_and_back(sides, repetition):
            rate, age = _live(arena, side, workload, changes, 0.0)
            saturated[side.name].append(rate)
            ages[side.name].append(age)
    add("saturation", "rows/s", saturated)
    report.compare(f"{' '.join(name)} saturation: ours / native", _rate_ratio(saturated), 1.0)
    for side in sides:
        _add_ages(report, name, "saturation", side.name, ages[side.name])

    slowest = min(statistics.median(values) for values in saturated.values())
    offered = min(OFFERED_ROWS_PER_SECOND, BELOW_SATURATION * slowest)
    for repetition in range(options.repetitions):
        for side in _there_and_back(sides, repetition):
            count = int(offered * options.seconds)
            ages[side.name][repetition] = _live(arena, side, workload, count, offered)[1]
    for side in sides:
        _add_ages(report, name, f"offered {offered:,.0f}/s", side.name, ages[side.name])
    found = statistics.median(float(np.quantile(values, 0.95)) for values in ages["ours"])
    limit = options.tuning.debounce_seconds + 0.1
    report.within(f"{' '.join(name)} offered {offered:,.0f}/s: p95 of freshness, seconds", found, limit)


def _add_ages(report: Report, name: tuple[str, str], measure: str, side: str, ages: Sequence[np.ndarray]) -> None:
    for part in (50, 95, 99):
        values = [float(np.quantile(found, part / 100)) * 1000 for found in ages]
        report.add(Figure(*name, f"{measure} freshness p{part}", side, "ms", values))


def _there_and_back(sides: Sequence[Side], repetition: int) -> Sequence[Side]:
    """ABBA: what drifts over the run hits both alike."""
    return sides if repetition % 2 == 0 else sides[::-1]


def _rate_ratio(rates: Mapping[str, list[float]]) -> float:
    return paired(rates["native"], rates["ours"])


def _backlog(arena: Arena, side: Side, mark: Mark) -> Cost:
    """What it costs to apply all that lies in the slot; connecting is not counted, deciding what to skip is."""
    arena.servers.checkpoint()
    side.start()
    found = cost(lambda: side.wait_until(mark), source=arena.source, target=arena.targets[side.name])
    side.stop()
    return found


def _live(arena: Arena, side: Side, workload: str, count: int, rate: float) -> tuple[float, np.ndarray]:
    """Rows a second from the first write to the last row's arrival, and the age of every row when it arrived."""
    arena.servers.checkpoint()
    side.start()
    side.wait_until(arena.writer.mark())
    target = arena.targets[side.name]
    since, lsn = time.time(), _flushed(target)
    started = time.perf_counter()
    written = arena.writer.write(workload, count, 1 if rate else ROWS_IN_A_TRANSACTION, rate)
    side.wait_until(arena.writer.mark())
    seconds = time.perf_counter() - started
    age = freshness(arena.source, target, arena.servers.target_data, since, lsn)
    side.stop()
    return (written.rows + 1) / seconds, age


# --- tunings ----------------------------------------------------------------------------------------------------------


def tunings(servers: Servers, options: argparse.Namespace, report: Report) -> None:
    """The strategy's debounce and batch, its alternative, and a small grid."""
    grid = [Tuning(debounce, batch) for debounce in (0.02, 0.05, 0.1) for batch in (250, 500, 1_000)]
    variants = {
        f"{tuning.debounce_seconds:g} s / {tuning.batch_size}": tuning for tuning in (STRATEGY, ALTERNATIVE, *grid)
    }
    _variants(servers, options, report, variants, f"{STRATEGY.debounce_seconds:g} s / {STRATEGY.batch_size}")


def connections(servers: Servers, options: argparse.Namespace, report: Report) -> None:
    """One to four sessions of the target."""
    variants = {f"{count} connections": replace(options.tuning, connections=count) for count in (1, 2, 3, 4)}
    _variants(servers, options, report, variants, "1 connections")


def _variants(
    servers: Servers, options: argparse.Namespace, report: Report, variants: Mapping[str, Tuning], against: str
) -> None:
    """Ours with several tunings, each with a backlog and an offered rate of its own."""
    for index in options.indexes:
        with _arena(servers, index, ("ours",)) as arena, ExitStack() as stack:
            ours = Ours(arena.source, arena.targets["ours"], options.tuning)
            stack.callback(ours.drop)
            rates: dict[str, list[float]] = {name: [] for name in variants}
            ages: dict[str, list[np.ndarray]] = {name: [] for name in variants}
            for repetition in range(options.repetitions):
                for name in _there_and_back(list(variants), repetition):
                    ours.tuning = variants[name]
                    rows = (
                        arena.writer.write(INSERTS, int(index.changes * options.scale), ROWS_IN_A_TRANSACTION).rows + 1
                    )
                    rates[name].append(rows / _backlog(arena, ours, arena.writer.mark()).seconds)
                offered = min(OFFERED_ROWS_PER_SECOND, BELOW_SATURATION * min(min(found) for found in rates.values()))
                for name in _there_and_back(list(variants), repetition):
                    ours.tuning = variants[name]
                    ages[name].append(_live(arena, ours, INSERTS, int(offered * options.seconds), offered)[1])
            for name in variants:
                report.add(Figure(index.name, INSERTS, "backlog", name, "rows/s", rates[name]))
                _add_ages(report, (index.name, INSERTS), "offered", name, ages[name])
            for name in variants:
                report.compare(f"{index.name} {name} / {against}", paired(rates[against], rates[name]), 1.0)


PARTS: Mapping[str, Callable[[Servers, argparse.Namespace, Report], None]] = {
    "cases": cases,
    "tuning": tunings,
    "connections": connections,
}


# --- servers ----------------------------------------------------------------------------------------------------------


@contextmanager
def _servers(rows: int, vectors: int) -> Iterator[Servers]:
    directory = Path(tempfile.mkdtemp(prefix="orchestra-bench-"))
    directory.chmod(0o755)
    try:
        source = postgres.start(directory / "source", "the benchmark's source", SOURCE_SETTINGS)
        target = postgres.start(directory / "target", "the benchmark's target", TARGET_SETTINGS)
        servers = Servers(source, target, directory / "target")
        for side in ("source", "target"):
            conninfo = servers.copy_database(side, "template1", "base")
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
            fill(conninfo, rows)
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE memories")
        prepare(servers.database("source", "base"), vectors)
        yield servers
    finally:
        for name in ("source", "target"):
            postgres.stop(directory / name, f"the benchmark's {name}")
        shutil.rmtree(directory)


@contextmanager
def _arena(servers: Servers, index: Index, sides: Sequence[str]) -> Iterator[Arena]:
    source = servers.copy_database("source", "base", "source")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE memories")
    indexed = servers.copy_database("target", "base", "indexed")
    started = time.perf_counter()
    if index.ddl:
        with psycopg.connect(indexed, autocommit=True) as connection:
            connection.execute("SET maintenance_work_mem = '4GB'")
            connection.execute(f"CREATE INDEX ON memories USING {index.ddl}")
    print(f"\n{index.name}: index built in {time.perf_counter() - started:.1f} s", flush=True)
    targets = {side: servers.copy_database("target", "indexed", side) for side in sides}
    servers.drop_database("target", "indexed")
    yield Arena(servers, index, source, targets, Writer(source))
    servers.drop_database("source", "source")
    for side in sides:
        servers.drop_database("target", side)


def _require_equal(arena: Arena, sides: Sequence[Side]) -> None:
    """Both targets have to become what the source is: otherwise no figure is worth printing."""
    mark = arena.writer.mark()
    for side in sides:
        side.start()
        side.wait_until(mark)
        side.stop()
    statement = sql.SQL("SELECT count(*), sum({}) FROM memories").format(row_digest())
    found = {}
    for name, conninfo in {"source": arena.source, **arena.targets}.items():
        with psycopg.connect(conninfo) as connection:
            found[name] = connection.execute(statement).fetchone()
    if len(set(found.values())) != 1:
        raise SystemExit(f"the sides differ: {found}: no figure is worth printing")


def _flushed(conninfo: str) -> str:
    with psycopg.connect(conninfo) as connection:
        return str(connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()[0])


def _settings(conninfo: str) -> dict[str, str]:
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE source = 'configuration file' "
            "UNION SELECT 'version', version()"
        ).fetchall()
    return dict(sorted(rows))


def _plain(value: object) -> object:
    return vars(value) if hasattr(value, "__dict__") else str(value)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [index.name for index in INDEXES]
    parser.add_argument("--quick", action="store_true", help="under a minute: no index and 1,000 lists, once each")
    parser.add_argument("--part", dest="parts", action="append", choices=PARTS, help="default: cases")
    parser.add_argument("--index", dest="indexes", action="append", choices=names, help="default: all")
    parser.add_argument("--workload", dest="workloads", action="append", choices=WORKLOADS, help="default: both")
    parser.add_argument("--rows", type=int, default=20_000, help="in the store before the first change")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of changes")
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0, help="of the offered rate")
    parser.add_argument("--connections", type=int, default=STRATEGY.connections)
    parser.add_argument("--json", type=Path, help="where all of it is written to")
    options = parser.parse_args()
    options.vectors = options.rows
    if options.quick:
        options.repetitions, options.scale, options.seconds, options.rows, options.vectors = 2, 0.2, 1.0, 10_000, 5_000
        options.indexes = options.indexes or names[:2]
        options.workloads = options.workloads or [INSERTS]
    options.parts = options.parts or ["cases"]
    options.indexes = [index for index in INDEXES if index.name in (options.indexes or names)]
    options.workloads = options.workloads or [INSERTS, MIXED]
    options.tuning = replace(STRATEGY, connections=options.connections)
    return options


if __name__ == "__main__":
    main()
