"""Building an IVFFlat index: the memory is checked first, the progress is shown, what was built is read back."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import psutil
import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError, GateFailed
from orchestra_lib.vectors.memory import BuildMemory, ivfflat_build_memory

_MIB = 1 << 20
_SECONDS_BETWEEN_READINGS = 0.5


@dataclass(frozen=True)
class IndexSpec:
    """The index that is wanted on ``table.embedding``."""

    table: str
    lists: int
    opclass: str
    dimension: int
    maintenance_work_mem_mib: int | None = None

    @property
    def name(self) -> str:
        """The index's name; it carries the lists, so that two settings never share one name."""
        return f"{self.table}_embedding_ivfflat_{self.lists}"


@dataclass(frozen=True)
class BuiltIndex:
    """An index as it is on the server. ``build_seconds`` is None when it was there already."""

    name: str
    lists: int
    size_bytes: int
    build_seconds: float | None
    memory: BuildMemory


def planned_memory(connection: psycopg.Connection, spec: IndexSpec) -> BuildMemory:
    """What the build needs at the table's present size (rows counted, blocks as on disk)."""
    statement = sql.SQL("SELECT (SELECT count(*) FROM {table}), pg_relation_size({name}) / 8192").format(
        table=sql.Identifier(spec.table), name=sql.Literal(spec.table)
    )
    row = connection.execute(statement).fetchone()
    if row is None:
        raise DataError(f"the table {spec.table} cannot be counted")
    return ivfflat_build_memory(spec.lists, row[0], spec.dimension, max(1, row[1]))


def check_memory(memory: BuildMemory, spec: IndexSpec, available_mib: int | None) -> None:
    """Refuse a build that cannot succeed, before it starts, with the numbers.

    ``available_mib`` is the memory of the machine that runs the server, None when that is not this machine.
    Raises GateFailed.
    """
    given = spec.maintenance_work_mem_mib
    if given is not None and given < memory.required_mib:
        raise GateFailed(
            f"an index with {spec.lists:,} lists needs maintenance_work_mem of {memory.required_mib:,} MiB, "
            f"memory.index.maintenance_work_mem_mib allows {given:,}; raise it or use fewer lists"
        )
    if available_mib is not None and memory.resident_mib > available_mib:
        raise GateFailed(
            f"an index with {spec.lists:,} lists touches {memory.resident_mib:,} MiB while it is built, "
            f"this machine has {available_mib:,} MiB available; use fewer lists or a larger machine"
        )


def available_memory_mib() -> int:
    """Memory that this machine can give without swapping, in MiB."""
    return int(psutil.virtual_memory().available // _MIB)


def build_index(
    address: Address, spec: IndexSpec, available_mib: int | None, progress: Callable[[str], None]
) -> BuiltIndex:
    """Build the index unless a valid one of that name is there, drop other IVFFlat indexes on the column, analyse.

    ``progress`` gets the server's own words for the phase it is in. Raises GateFailed when memory does not suffice.
    """
    with connect(address, role="target") as connection:
        memory = planned_memory(connection, spec)
        if not is_built(connection, spec):
            check_memory(memory, spec, available_mib)
            seconds: float | None = _create(connection, address, spec, memory, progress)
        else:
            seconds = None
        _drop_others(connection, spec)
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(spec.table)))
        lists, size = _read_back(connection, spec.name)
    if lists != spec.lists:
        raise DataError(f"{spec.name} was built with {lists} lists, {spec.lists} were asked for; drop it and run again")
    return BuiltIndex(spec.name, lists, size, seconds, memory)


def is_built(connection: psycopg.Connection, spec: IndexSpec) -> bool:
    """Whether a valid index of that name and operator class is on the table."""
    row = connection.execute(
        "SELECT i.indisvalid AND i.indrelid = to_regclass(%s) AND o.opcname = %s "
        "FROM pg_index i JOIN pg_opclass o ON o.oid = i.indclass[0] WHERE i.indexrelid = to_regclass(%s)",
        [f'"{spec.table}"', spec.opclass, f'"{spec.name}"'],
    ).fetchone()
    return bool(row and row[0])


def ivfflat_index(connection: psycopg.Connection, table: sql.Composable) -> tuple[str, int, int] | None:
    """Name, lists and size in bytes of the IVFFlat index on a table that the planner would use, None without one."""
    row = connection.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE i.indrelid = %s::regclass AND a.amname = 'ivfflat' AND i.indisvalid ORDER BY c.relname LIMIT 1",
        [table.as_string(connection)],
    ).fetchone()
    return (row[0], *_read_back(connection, row[0])) if row else None


def _create(
    connection: psycopg.Connection,
    address: Address,
    spec: IndexSpec,
    memory: BuildMemory,
    progress: Callable[[str], None],
) -> float:
    setting = spec.maintenance_work_mem_mib or memory.setting_mib
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="build-index") as pool:
        building = pool.submit(_create_in_transaction, connection, spec, setting)
        try:
            _report_until(building, address, connection.info.backend_pid, progress)
        except BaseException:
            connection.cancel_safe()  # without this an interrupt would wait for the whole build
            raise
    return time.monotonic() - started


def _create_in_transaction(connection: psycopg.Connection, spec: IndexSpec, maintenance_work_mem_mib: int) -> None:
    with connection.transaction():
        # An invalid index of that name, left by a concurrent build that was killed, may be in the way.
        connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(spec.name)))
        connection.execute(
            sql.SQL("SET LOCAL maintenance_work_mem = {}").format(sql.Literal(f"{maintenance_work_mem_mib}MB"))
        )
        connection.execute(
            sql.SQL("CREATE INDEX {name} ON {table} USING ivfflat (embedding {opclass}) WITH (lists = {lists})").format(
                name=sql.Identifier(spec.name),
                table=sql.Identifier(spec.table),
                opclass=sql.Identifier(spec.opclass),
                lists=sql.Literal(spec.lists),
            )
        )


def _report_until(building: Future[None], address: Address, backend_pid: int, progress: Callable[[str], None]) -> None:
    with connect(address, role="target") as reader:
        while True:
            try:
                return building.result(timeout=_SECONDS_BETWEEN_READINGS)
            except TimeoutError:
                row = reader.execute(
                    "SELECT phase, tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE pid = %s",
                    [backend_pid],
                ).fetchone()
                if row:
                    progress(f"{row[0]}, {row[1]:,} of {row[2]:,} rows" if row[2] else str(row[0]))


def _drop_others(connection: psycopg.Connection, spec: IndexSpec) -> None:
    # Two IVFFlat indexes on a column share one probes setting, and the planner takes the one with more lists.
    rows = connection.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE i.indrelid = to_regclass(%s) AND a.amname = 'ivfflat' AND c.relname <> %s",
        [f'"{spec.table}"', spec.name],
    ).fetchall()
    for (name,) in rows:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))


def _read_back(connection: psycopg.Connection, name: str) -> tuple[int, int]:
    row = connection.execute(
        "SELECT (SELECT option_value::int FROM pg_options_to_table(c.reloptions) WHERE option_name = 'lists'), "
        "pg_relation_size(c.oid) FROM pg_class c WHERE c.oid = to_regclass(%s)",
        [f'"{name}"'],
    ).fetchone()
    if row is None:
        raise DataError(f"the index {name} is not on the server after its build")
    return row[0] or 100, row[1]  # an index without the option has pgvector's default of 100 lists


def persist_probes(address: Address, probes: int) -> int:
    """Make ``probes`` the database's default and return what a new session then has. Needs to own the database."""
    with connect(address, role="target") as connection:
        connection.execute("SELECT '[1]'::vector <=> '[1]'::vector")  # loads the library, which knows the setting
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET ivfflat.probes = {}").format(
                sql.Identifier(connection.info.dbname), sql.Literal(probes)
            )
        )
    with connect(address, role="target") as fresh:
        row = fresh.execute("SELECT '[1]'::vector <=> '[1]'::vector, current_setting('ivfflat.probes')").fetchone()
    return int(row[1]) if row else 0
