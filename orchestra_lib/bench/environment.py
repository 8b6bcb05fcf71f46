"""Where figures were taken: without the machine, its load and the server's settings a latency says nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from orchestra_lib.bench.fingerprint import TableFingerprint, table_fingerprint
from orchestra_lib.record import open_record

SETTINGS = (
    "server_version",
    "shared_buffers",
    "effective_cache_size",
    "work_mem",
    "maintenance_work_mem",
    "max_parallel_workers_per_gather",
    "max_parallel_maintenance_workers",
    "random_page_cost",
    "seq_page_cost",
    "effective_io_concurrency",
    "jit",
    "plan_cache_mode",
    "enable_seqscan",
    "max_connections",
    "wal_level",
    "synchronous_commit",
    "fsync",
    "max_wal_size",
    "huge_pages",
    "ivfflat.probes",
    "hnsw.ef_search",
)
"""What bears on a search or a load, by the server's own names; one that a server does not have is left out."""


@dataclass(frozen=True)
class Environment:
    """The machine that measured, the server that was measured, and what it held.

    ``host`` is this machine (operating system, kernel, CPU, cores, memory in bytes), which is the server's only where
    the server runs beside us: ``same_machine`` says so, None where it is not known. ``load_average`` is that of the
    last 1, 5 and 15 minutes. ``indexes`` maps each index of the table to its definition.
    """

    taken_at: str
    host: Mapping[str, str | int]
    load_average: tuple[float, float, float]
    commit: str | None
    dirty: bool | None
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    extensions: Mapping[str, str]
    same_machine: bool | None
    table: TableFingerprint | None
    indexes: Mapping[str, str]


def environment(connection: psycopg.Connection | None = None, table: sql.Composable | None = None) -> Environment:
    """Read the environment; without a connection only this machine's. The table is scanned once for its fingerprint.

    Raises DataError when there is no such table.
    """
    here = open_record("bench", None, None)
    return Environment(
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        host=here.host,
        load_average=os.getloadavg(),
        commit=here.git.commit,
        dirty=here.git.dirty,
        versions=here.versions,
        settings=_settings(connection) if connection else {},
        extensions=_extensions(connection) if connection else {},
        same_machine=_same_machine(connection) if connection else None,
        table=table_fingerprint(connection, table) if connection and table else None,
        indexes=_indexes(connection, table) if connection and table else {},
    )


def _settings(connection: psycopg.Connection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s) ORDER BY name", [[*SETTINGS]]
    )
    return dict(rows.fetchall())


def _extensions(connection: psycopg.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT extname, extversion FROM pg_extension ORDER BY extname").fetchall())


def _indexes(connection: psycopg.Connection, table: sql.Composable) -> dict[str, str]:
    rows = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
        "WHERE indrelid = to_regclass(%s) ORDER BY 1",
        [table.as_string(connection)],
    )
    return dict(rows.fetchall())


def _same_machine(connection: psycopg.Connection) -> bool | None:
    """A Unix socket ends on this machine; what is behind an address or a proxy is not known from here."""
    return True if connection.info.host.startswith("/") else None
