"""Building a vector index: the memory is checked first, the progress is shown, what was built is read back."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import psutil
import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError, GateFailed
from orchestra_lib.vectors.forms import Form, Method, Storage, hnsw, ivfflat
from orchestra_lib.vectors.memory import BuildMemory, build_memory
from orchestra_lib.vectors.truth import OPERATORS

_MIB = 1 << 20
_SECONDS_BETWEEN_READINGS = 0.5
_ANY_OPCLASS = "vector_cosine_ops"  # of bits, whose distance is none of the vectors'
_METHODS = tuple(method.value for method in Method if method is not Method.EXACT)
_DEFAULT_LISTS, _DEFAULT_M, _DEFAULT_EF_CONSTRUCTION = 100, 16, 64  # pgvector's, of an index that names none


@dataclass(frozen=True)
class IndexSpec:
    """The index that is wanted on a column of ``table``: its form, and the distance by its class for ``vector``.

    ``given_name`` is for an index that cannot have the name of its form, because another one has it.
    """

    table: str
    form: Form
    opclass: str
    dimension: int
    maintenance_work_mem_mib: int | None = None
    column: str = "embedding"
    given_name: str | None = None

    @property
    def name(self) -> str:
        """The index's name; it carries the form's numbers, so that two forms never share one name."""
        return self.given_name or self.form.index_name(self.table, self.column)

    def create_statement(self, *, concurrently: bool) -> sql.Composed:
        """The statement that makes it. Raises ParameterError when no server could."""
        return self.form.create_statement(
            self.table, self.column, self.dimension, self.opclass, concurrently=concurrently, name=self.name
        )


@dataclass(frozen=True)
class LiveIndex:
    """A vector index as the server has it. ``opclass`` is the distance's class for ``vector``, None for bits.

    ``definition`` is the statement that makes it again.
    """

    name: str
    form: Form
    opclass: str | None
    dimension: int | None
    valid: bool
    size_bytes: int
    definition: str


@dataclass(frozen=True)
class BuiltIndex:
    """An index as it is on the server. ``build_seconds`` is None when it was there already."""

    name: str
    form: Form
    size_bytes: int
    build_seconds: float | None
    memory: BuildMemory


def planned_memory(connection: psycopg.Connection, spec: IndexSpec) -> BuildMemory:
    """What the build needs at the table's present size (rows counted, blocks as on disk).

    Raises GateFailed when the server has no such indexes at all.
    """
    if connection.execute("SELECT FROM pg_am WHERE amname = %s", [spec.form.method.value]).fetchone() is None:
        extension = "vector" if spec.form.runs_on_postgresql else "alloydb_scann, which only AlloyDB has"
        raise GateFailed(f"the server knows no {spec.form.method} indexes; CREATE EXTENSION {extension}")
    statement = sql.SQL("SELECT (SELECT count(*) FROM {table}), pg_relation_size({name}) / 8192").format(
        table=sql.Identifier(spec.table), name=sql.Literal(spec.table)
    )
    row = connection.execute(statement).fetchone()
    if row is None:
        raise DataError(f"the table {spec.table} cannot be counted")
    return build_memory(spec.form, row[0], spec.dimension, max(1, row[1]))


def check_memory(memory: BuildMemory, spec: IndexSpec, available_mib: int | None) -> None:
    """Refuse a build that cannot succeed, before it starts, with the numbers.

    ``available_mib`` is the memory of the machine that runs the server, None when that is not this machine.
    Raises GateFailed.
    """
    given = spec.maintenance_work_mem_mib
    if given is not None and given < memory.required_mib:
        raise GateFailed(
            f"{spec.form.label} needs maintenance_work_mem of {memory.required_mib:,} MiB, "
            f"memory.index.maintenance_work_mem_mib allows {given:,}; raise it or choose a smaller form"
        )
    if available_mib is not None and memory.resident_mib > available_mib:
        raise GateFailed(
            f"{spec.form.label} touches {memory.resident_mib:,} MiB while it is built, "
            f"this machine has {available_mib:,} MiB available; choose a smaller form or a larger machine"
        )


def available_memory_mib() -> int:
    """Memory that this machine can give without swapping, in MiB."""
    return int(psutil.virtual_memory().available // _MIB)


def build_index(
    address: Address,
    spec: IndexSpec,
    available_mib: int | None,
    progress: Callable[[str], None],
    *,
    concurrently: bool = False,
) -> BuiltIndex:
    """Build the index unless a valid one of that name and form is there, and read back what is there then.

    ``concurrently`` leaves the table writable meanwhile. ``progress`` gets the server's own words for the phase it is
    in; an interrupt ends the build on the server, too. Others on the column stay, see ``drop_others``. Raises
    GateFailed when memory does not suffice.
    """
    wanted = _Wanted(spec, spec.create_statement(concurrently=concurrently), concurrently)
    with connect(address, role="target") as connection:
        memory = planned_memory(connection, spec)
        seconds = None
        if not is_built(connection, spec):
            check_memory(memory, spec, available_mib)
            seconds = _create(connection, address, wanted, memory, progress)
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(spec.table)))
        found = _read_back(connection, spec)
    return BuiltIndex(found.name, found.form, found.size_bytes, seconds, memory)


def rebuild_index(
    address: Address,
    table: str,
    column: str,
    index: LiveIndex,
    available_mib: int | None,
    progress: Callable[[str], None],
    maintenance_work_mem_mib: int | None = None,
) -> BuiltIndex:
    """Build an index by its recorded definition, concurrently, as ``build_index`` does.

    ``maintenance_work_mem_mib`` bounds what the build may take, None lets it have what it needs. Raises GateFailed
    when memory does not suffice, DataError when the result differs from what was recorded.
    """
    statement = sql.SQL(index.definition.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1))
    spec = IndexSpec(
        table,
        index.form,
        index.opclass or _ANY_OPCLASS,
        index.dimension or 0,
        maintenance_work_mem_mib,
        column,
        index.name,
    )
    with connect(address, role="target") as connection:
        memory = planned_memory(connection, spec)
        check_memory(memory, spec, available_mib)
        seconds = _create(connection, address, _Wanted(spec, sql.Composed([statement]), True), memory, progress)
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table)))
        found = _read_back(connection, spec)
    return BuiltIndex(found.name, found.form, found.size_bytes, seconds, memory)


def drop_others(address: Address, spec: IndexSpec) -> tuple[str, ...]:
    """Drop the other indexes of the same method and storage on the column; the names of those that were dropped.

    Two IVFFlat indexes on a column share one probes setting, and the planner takes the one with more lists.
    """
    with connect(address, role="target") as connection:
        others = tuple(
            index.name
            for index in vector_indexes(connection, sql.Identifier(spec.table), spec.column)
            if index.name != spec.name and _same_kind(index.form, spec.form)
        )
        for name in others:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
    return others


def is_built(connection: psycopg.Connection, spec: IndexSpec) -> bool:
    """Whether a valid index of that name and form is on the table. A table that is not there has none."""
    if connection.execute("SELECT to_regclass(%s)", [f'"{spec.table}"']).fetchone() == (None,):
        return False
    return any(
        index.name == spec.name and index.valid and _differences(index, spec) == ()
        for index in vector_indexes(connection, sql.Identifier(spec.table), spec.column)
    )


def vector_indexes(
    connection: psycopg.Connection, table: sql.Composable, column: str = "embedding"
) -> tuple[LiveIndex, ...]:
    """The vector indexes on a column, by name, whatever their form; those that a killed build left have valid False."""
    rows = connection.execute(
        """
        SELECT c.relname, m.amname, o.opcname, format_type(k.atttypid, k.atttypmod), i.indisvalid,
               pg_relation_size(c.oid), pg_get_indexdef(c.oid),
               (SELECT json_object_agg(option_name, option_value) FROM pg_options_to_table(c.reloptions))
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am m ON m.oid = c.relam
        JOIN pg_opclass o ON o.oid = i.indclass[0]
        JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = 1
        WHERE i.indrelid = %s::regclass AND m.amname = ANY(%s) AND EXISTS (
            SELECT FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjid = i.indrelid AND a.attname = %s)
        ORDER BY c.relname
        """,
        [table.as_string(connection), list(_METHODS), column],
    ).fetchall()
    return tuple(_live(*row) for row in rows)


def serving_index(connection: psycopg.Connection, table: sql.Composable, column: str = "embedding") -> LiveIndex | None:
    """The index that answers searches of the column; None without one. Of two IVFFlat ones that with more lists."""
    valid = [index for index in vector_indexes(connection, table, column) if index.valid]
    plain = [index for index in valid if index.form.storage is Storage.VECTOR] or valid
    return max(plain, key=lambda index: index.form.lists or 0, default=None)


@dataclass(frozen=True)
class _Wanted:
    spec: IndexSpec
    statement: sql.Composed
    concurrently: bool


def _create(
    connection: psycopg.Connection,
    address: Address,
    wanted: _Wanted,
    memory: BuildMemory,
    progress: Callable[[str], None],
) -> float:
    setting = wanted.spec.maintenance_work_mem_mib or (memory.setting_mib if memory.is_known else None)
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="build-index") as pool:
        building = pool.submit(_create_with, connection, wanted, setting)
        try:
            _report_until(building, address, connection.info.backend_pid, progress)
        except BaseException:
            connection.cancel_safe()  # without this an interrupt would wait for the whole build
            raise
    return time.monotonic() - started


def _create_with(connection: psycopg.Connection, wanted: _Wanted, maintenance_work_mem_mib: int | None) -> None:
    # An invalid index of that name, left by a concurrent build that was killed, may be in the way.
    drop = sql.SQL("DROP INDEX {concurrently}IF EXISTS {name}").format(
        concurrently=sql.SQL("CONCURRENTLY " if wanted.concurrently else ""), name=sql.Identifier(wanted.spec.name)
    )
    if maintenance_work_mem_mib is not None:
        connection.execute("SELECT set_config('maintenance_work_mem', %s, false)", [f"{maintenance_work_mem_mib}MB"])
    # PostgreSQL does not allow a concurrent build in a transaction.
    with nullcontext() if wanted.concurrently else connection.transaction():
        connection.execute(drop)
        connection.execute(wanted.statement)
    connection.execute("RESET maintenance_work_mem")


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


def _read_back(connection: psycopg.Connection, spec: IndexSpec) -> LiveIndex:
    found = [
        index
        for index in vector_indexes(connection, sql.Identifier(spec.table), spec.column)
        if index.name == spec.name
    ]
    if not found:
        raise DataError(f"the index {spec.name} is not on the server after its build")
    differences = _differences(found[0], spec)
    if differences:
        raise DataError(f"{spec.name} is not as it was asked for: {'; '.join(differences)}; drop it and run again")
    return found[0]


def _differences(index: LiveIndex, spec: IndexSpec) -> tuple[str, ...]:
    opclass = spec.opclass if index.opclass is not None else None
    compared = (
        ("form", index.form.label, spec.form.label),
        ("operator class", index.opclass, opclass),
        ("validity", index.valid, True),
    )
    return tuple(f"its {name} is {has}, not {wanted}" for name, has, wanted in compared if has != wanted)


def _live(
    name: str,
    method: str,
    opclass: str,
    stored: str,
    valid: bool,
    size_bytes: int,
    definition: str,
    options: dict[str, str] | None,
) -> LiveIndex:
    numbers = {option: int(value) for option, value in (options or {}).items() if value.isdigit()}
    kind, _, rest = stored.partition("(")
    storage = Storage(kind) if kind in set(Storage) else Storage.VECTOR
    form = {
        Method.IVFFLAT: lambda: ivfflat(numbers.get("lists", _DEFAULT_LISTS), storage),
        Method.HNSW: lambda: hnsw(
            numbers.get("m", _DEFAULT_M), numbers.get("ef_construction", _DEFAULT_EF_CONSTRUCTION), storage
        ),
        Method.SCANN: lambda: Form(Method.SCANN, lists=numbers.get("num_leaves")),
    }[Method(method)]()
    distance = next((known for known in OPERATORS if form.index_opclass(known) == opclass), None)
    dimension = int(rest.rstrip(")")) if rest.rstrip(")").isdigit() else None
    return LiveIndex(name, form, None if storage is Storage.BIT else distance, dimension, valid, size_bytes, definition)


def _same_kind(one: Form, other: Form) -> bool:
    return (one.method, one.storage) == (other.method, other.storage)
