"""The applier alone, without a log to read: rows a second of each kind of change, by one and by two partitions.

.venv/bin/python tests/bench/apply_rows.py [--rows 20000] [--batch 500] [--repetitions 5] [--lists N]

The other side is what psycopg offers: executemany of INSERT … ON CONFLICT in pipeline mode, from values that are in
Python already. ``--lists`` puts an IVFFlat index with so many lists on the target.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
from common import Cost, alternated, cost, hardware, servers, told, told_cpu
from psycopg import sql
from psycopg.types.json import Jsonb
from stores import fill

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "memory"))  # changes.py

from changes import Log, appliers, rows_of, without

from orchestra_lib.database import connect
from orchestra_lib.memory.apply import Applier
from orchestra_lib.memory.coalesce import Net, partition_of
from orchestra_lib.memory.schema import COLUMNS, create_table

EMBEDDING = COLUMNS.index("embedding")
Work = Callable[[], object]


def main() -> None:
    """Print rates, the CPU that a row costs, and the ratios."""
    options = _options()
    with servers() as (source, target, _):
        fill(source, options.rows)
        with connect(target) as session:
            session.execute(create_table())
        with connect(source) as session:
            bench = Bench(target, session, options)
            print(hardware() + f", batches of {options.batch}, IVFFlat lists {options.lists or 'none'}")
            costs = alternated(bench.sides(), options.repetitions)
    for name, values in costs.items():
        print(told(name, [options.rows / value.seconds for value in values], "rows/s"))
    for name, values in costs.items():
        print(told_cpu(name, values, options.rows))
    for partitions in (1, 2):
        for kind in ("inserts", "updates of all"):
            theirs, ours = costs[f"executemany, {kind}, {partitions}"], costs[f"ours, {kind}, {partitions}"]
            pairs = [(b.seconds / a.seconds, _cpu(b) / _cpu(a)) for a, b in zip(ours, theirs, strict=True)]
            clock, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
            print(f"ratio executemany / ours, {kind}, {partitions}: {clock:.2f} by the clock, {cpu:.2f} by CPU time")


class Bench:
    """The sides of the comparison, over one set of rows."""

    def __init__(self, target: str, source: psycopg.Connection, options: argparse.Namespace) -> None:
        self.target, self.options = target, options
        self.log = log = Log(source)
        query = "SELECT * FROM memories ORDER BY md5(id)"
        rows = rows_of(source, query)
        self.values = [
            tuple(Jsonb(value) if isinstance(value, dict) else value for value in row)
            for row in source.cursor(binary=True).execute(query).fetchall()
        ]
        turned = _with_the_next_vector(rows)
        self.nets = {
            "inserts": log.nets(*map(log.insert, rows)),
            "updates of all": log.nets(*map(log.update, turned)),
            "updates without the vector": log.nets(*(log.update(without(row, EMBEDDING)) for row in rows)),
            "deletes": log.nets(*map(log.delete, rows)),
        }

    def sides(self) -> dict[str, Callable[[], Cost]]:
        """Each side makes its own beginning: an empty table for inserts, a full one for the others."""
        found: dict[str, Callable[[], Cost]] = {}
        for partitions in (1, 2):
            for kind in self.nets:
                found[f"ours, {kind}, {partitions}"] = partial(self._ours, kind, partitions)
                if kind in ("inserts", "updates of all"):
                    found[f"executemany, {kind}, {partitions}"] = partial(self._executemany, kind, partitions)
        return found

    def _ours(self, kind: str, partitions: int) -> Cost:
        self._begin(kind)
        made = appliers(self.target, self.log.layout, partitions)
        shares = _cut(self.nets[kind], lambda net: net.key, partitions, self.options.batch)
        try:
            return cost(lambda: _in_parallel(_apply, made, shares), target=self.target)
        finally:
            for applier in made:
                applier.close()

    def _executemany(self, kind: str, partitions: int) -> Cost:
        self._begin(kind)
        values = self.values if kind == "inserts" else _with_the_next_vector(self.values)
        shares = _cut(values, lambda row: row[0].encode(), partitions, self.options.batch)
        sessions = [connect(self.target) for _ in range(partitions)]
        try:
            return cost(lambda: _in_parallel(_upsert, sessions, shares), target=self.target)
        finally:
            for session in sessions:
                session.close()

    def _begin(self, kind: str) -> None:
        with connect(self.target) as session:
            session.execute("DROP SCHEMA IF EXISTS orchestra_stream CASCADE")
            session.execute("DROP TABLE memories")
            session.execute(create_table())
        if kind != "inserts" or self.options.lists:
            (applier,) = appliers(self.target, self.log.layout)
            _apply(applier, [self.nets["inserts"]])
            applier.close()
        with connect(self.target) as session:
            session.execute("DROP SCHEMA IF EXISTS orchestra_stream CASCADE")
            if self.options.lists:
                session.execute("SET maintenance_work_mem = '1GB'")
                session.execute(
                    "CREATE INDEX ON memories USING ivfflat (embedding vector_cosine_ops) "
                    f"WITH (lists = {self.options.lists})"
                )
                if kind == "inserts":
                    session.execute("DELETE FROM memories")
            session.execute("VACUUM ANALYZE memories")
            session.execute("CHECKPOINT")


def _with_the_next_vector(rows: Sequence[tuple]) -> list[tuple]:
    return [
        (*row[:EMBEDDING], after[EMBEDDING], *row[EMBEDDING + 1 :])
        for row, after in zip(rows, [*rows[1:], rows[0]], strict=True)
    ]


def _apply(applier: Applier, batches: Sequence[Sequence[Net]]) -> None:
    for batch in batches:
        applier.apply(batch, batch[-1].lsn + 1)


def _upsert(session: psycopg.Connection, batches: Sequence[Sequence[tuple]]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    statement = sql.SQL("INSERT INTO memories ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
        names,
        sql.SQL(", ").join([sql.SQL("%b")] * len(COLUMNS)),
        sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(one)) for one in COLUMNS[1:]),
    )
    for batch in batches:
        with session.transaction(), session.cursor() as cursor:
            cursor.executemany(statement, batch)


def _cut(items: Sequence, key: Callable, partitions: int, batch: int) -> list[list[Sequence]]:
    """Each partition's share of every batch, as the stream cuts them."""
    shares: list[list[Sequence]] = [[] for _ in range(partitions)]
    for start in range(0, len(items), batch):
        for number, share in enumerate(shares):
            share.append([one for one in items[start : start + batch] if partition_of(key(one), partitions) == number])
    return shares


def _in_parallel(work: Callable, sessions: Sequence, shares: Sequence) -> None:
    with ThreadPoolExecutor(len(sessions)) as pool:
        list(pool.map(work, sessions, shares))


def _cpu(value: Cost) -> float:
    return sum(value.cpu_seconds.values())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--lists", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
