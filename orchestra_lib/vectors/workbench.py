"""Where a tuning builds: unlogged copies of the table's ids and vectors, so that the table itself is left alone.

One stays without an index: it is read exactly, and the others are made of it. There are two others, so that the best
index so far stays while the next one is tried: two IVFFlat indexes on one column would share one setting of probes and
hide one another from the planner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.vectors.forms import Form
from orchestra_lib.vectors.goals import Goals
from orchestra_lib.vectors.index import IndexSpec, build_index, planned_memory, vector_indexes
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.seeded import build_seeded

_PREFIX = "orchestra_tuning"


@dataclass(frozen=True)
class Bench:
    """An index on a copy: where it is and what it took. ``index`` is None for the exact scan.

    ``made_seconds`` is how long it took to have it. ``build_seconds`` is what CREATE INDEX took, None where its
    centroids were given: ``create_seconds`` says then from how much to how much it is to take.
    """

    table: str
    index: str | None
    form: Form
    made_seconds: float
    build_seconds: float | None
    index_bytes: int
    build_memory_mib: int
    create_seconds: tuple[float, float] | None = None


class Workbench:
    """The copies of one table for one tuning. Made by ``workbench``."""

    def __init__(
        self,
        address: Address,
        names: tuple[str, str, str],
        make: Callable[[str], None],
        goals: Goals,
        dimension: int,
        available_mib: int | None,
        own_rows: bool,
    ) -> None:
        self._address, self._names, self._make = address, names, make
        self._goals, self._dimension, self._available_mib = goals, dimension, available_mib
        self._asked = goals.k + own_rows  # a query that is a row finds itself first
        self.best: Bench | None = None

    @property
    def table(self) -> str:
        """The copy that is always there, without an index."""
        return self._names[0]

    def searchable(self, bench: Bench, filters: tuple[str, ...] = ()) -> Searchable:
        """What a search of that copy by its index is."""
        return Searchable(
            sql.Identifier(bench.table),
            self._goals.opclass,
            self._asked,
            bench.form,
            dimension=self._dimension,
            filters=filters,
        )

    def build(self, form: Form, progress: Callable[[str], None]) -> Bench:
        """Build the index on the copy that does not hold the best one; what else is on that copy goes first.

        Raises GateFailed when memory does not suffice, and whatever ``progress`` raises, after ending the build.
        """
        table = self.spare
        self._make(table)
        return self._build_on(table, form, progress)

    def build_from(self, form: Form, centroids: Matrix, progress: Callable[[str], None]) -> Bench:
        """The same for an IVFFlat index whose centroids, float32 (lists, dimension), were trained already.

        Its lists are those that the centroids make, and not those of another training. Raises as ``build`` does.
        """
        spec = self._spec(self.spare, form)
        made = build_seeded(self._address, spec, self.table, centroids, self._available_mib, progress)
        return Bench(
            spec.table,
            made.index.name,
            form,
            made.seconds,
            None,
            made.index.size_bytes,
            made.index.memory.required_mib,
            made.create_seconds,
        )

    def build_on_sample(self, form: Form, rows: int, progress: Callable[[str], None]) -> Bench:
        """Build the index on a copy of so many rows, the same ones each time. Raises as ``build`` does."""
        name = _sample_name(self.table)
        source = sql.SQL("SELECT id, embedding FROM {} ORDER BY md5(id::text) LIMIT {}").format(
            sql.Identifier(self.table), sql.Literal(rows)
        )
        with connect(self._address, role="target") as connection:
            _copy(connection, name, source, f"{self.table} {rows}")
        return self._build_on(name, form, progress)

    def _build_on(self, table: str, form: Form, progress: Callable[[str], None]) -> Bench:
        spec = self._spec(table, form)
        with connect(self._address, role="target") as connection:
            for other in vector_indexes(connection, sql.Identifier(table)):
                if other.name != spec.name:
                    connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(other.name)))
        built = build_index(self._address, spec, self._available_mib, progress)
        seconds = built.build_seconds or 0.0
        return Bench(table, built.name, form, seconds, seconds, built.size_bytes, built.memory.required_mib)

    def _spec(self, table: str, form: Form) -> IndexSpec:
        return IndexSpec(table, form, self._goals.opclass, self._dimension, self._goals.memory_limit_mib)

    def exact(self, form: Form) -> Bench:
        """The copy without an index."""
        return Bench(self.table, None, form, 0.0, None, 0, 0)

    def needed_mib(self, form: Form) -> int:
        """What maintenance_work_mem the build of a form takes, in MiB."""
        spec = IndexSpec(self.table, form, self._goals.opclass, self._dimension)
        with connect(self._address, role="target") as connection:
            return planned_memory(connection, spec).required_mib

    def keep(self, bench: Bench) -> None:
        """Let this index be the best so far: the next build leaves it alone."""
        self.best = bench

    @property
    def spare(self) -> str:
        """The copy that the next build takes: the one that does not hold the best index."""
        _, first, second = self._names
        return second if self.best is not None and self.best.table == first else first


@contextmanager
def workbench(
    address: Address,
    table: str,
    digest: str,
    goals: Goals,
    dimension: int,
    *,
    available_mib: int | None,
    own_rows: bool,
) -> Iterator[Workbench]:
    """Copy ids, vectors and the columns that are filtered by; drop the copies at the end, whatever happens.

    They are named by the question's digest: a run that was killed leaves them, the next one of the same question
    takes them over.
    """
    first, second, third = (f"{_PREFIX}_{digest[:8]}_{letter}" for letter in "abc")
    names = (first, second, third)

    def make(name: str) -> None:
        with connect(address, role="target") as connection:
            wanted = ["id", "embedding", *_version(connection, table), *goals.filters]
            columns = sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys(wanted)))
            source = sql.SQL("SELECT {} FROM {} WHERE embedding IS NOT NULL").format(columns, sql.Identifier(table))
            _copy(connection, name, source, digest)

    try:
        make(names[0])
        yield Workbench(address, names, make, goals, dimension, available_mib, own_rows)
    finally:
        with connect(address, role="target") as connection:
            for name in (*names, _sample_name(names[0])):
                connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))


def _copy(connection: psycopg.Connection, name: str, source: sql.Composable, content: str) -> None:
    """Make an unlogged table of what ``source`` selects, unless it is there already, complete."""
    if _is_complete(connection, name, content):
        return
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))
    with connection.transaction():
        connection.execute(sql.SQL("CREATE UNLOGGED TABLE {} AS {}").format(sql.Identifier(name), source))
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(sql.Identifier(name), sql.Literal(content)))
    connection.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(name)))


def _version(connection: psycopg.Connection, table: str) -> list[str]:
    """The column that a fingerprint knows a row's version by: with it the copy's content has the table's name."""
    row = connection.execute(
        "SELECT true FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'version' AND NOT attisdropped",
        [f'"{table}"'],
    ).fetchone()
    return ["version"] if row else []


def _sample_name(copy: str) -> str:
    return f"{copy}_sample"


def _is_complete(connection: psycopg.Connection, name: str, content: str) -> bool:
    row = connection.execute("SELECT obj_description(to_regclass(%s), 'pg_class')", [f'"{name}"']).fetchone()
    return row is not None and row[0] == content
