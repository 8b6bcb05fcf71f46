"""What is in memory when a measurement starts: warm, cold, or as it is after a restart.

A page of an index lies in the server's buffers, in the operating system's cache, or on the disk. What of a state could
not be brought about, or not be seen, is said with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psycopg

from orchestra_lib.bench.page_cache import cached_share, drop
from orchestra_lib.database import Address, connect

_READ_BYTES = 16 << 20
_SEGMENT_BYTES = 1 << 30
_COLD_SHARE = 0.01
"""So little may be in memory of what is called cold: the server reads some pages of its own accord."""


class Cache(StrEnum):
    """The three states.

    After a restart is not warm: IVFFlat's scans read the lists through a ring of 256 kB (BAS_BULKREAD in pgvector's
    ivfscan.c), so queries alone do not bring them into the server's buffers.
    """

    WARM = "warm"
    COLD = "cold"
    AFTER_RESTART = "after restart"


@dataclass(frozen=True)
class Prepared:
    """The state that was wanted, what was done for it, and what is missing from it, each a short sentence.

    ``os_cached_share`` is the share of the relations' pages that the operating system has in memory, None where that
    cannot be seen from here.
    """

    state: Cache
    done: tuple[str, ...]
    missing: tuple[str, ...]
    os_cached_share: float | None

    @property
    def is_reached(self) -> bool:
        """Whether nothing is missing from the state."""
        return not self.missing


def warm(address: Address, relations: Sequence[str], run_pass: Callable[[], object]) -> Prepared:
    """Bring tables and indexes, with their TOAST, into memory; then ``run_pass`` runs the queries once.

    With the extension pg_prewarm they come into the server's buffers. Without it the server reads its files, so that
    they are in the operating system's cache. Raises TargetUnreachable, and what the server says of a relation.
    """
    with connect(address) as connection:
        names = _with_toast(connection, relations)
        missing = _prewarm(connection, names)
        run_pass()
        share = _seen(connection, names)
    done = ("every page of the relations was read", "the queries were run once")
    return Prepared(Cache.WARM, done, tuple(missing), share)


def cold(address: Address, relations: Sequence[str], restart: Callable[[], object] | None) -> Prepared:
    """Restart the server, then let the operating system forget what it caches of the relations' files.

    ``restart`` is None where the server is not ours to restart; the files have to lie on this machine and be readable
    by us. What is not so is missing. Raises TargetUnreachable.
    """
    done, missing = _restarted(restart)
    with connect(address) as connection:
        names = _with_toast(connection, relations)
        files, reason = _files(connection, names)
    if reason:
        return Prepared(Cache.COLD, tuple(done), (*missing, reason), None)
    drop(files)
    done.append("the operating system was told to forget the relations' files")
    share = cached_share(files)
    if share is None:
        missing.append("the kernel does not tell us what of the files is in memory: they are another user's")
    elif share > _COLD_SHARE:
        missing.append(f"the operating system still has {share:.0%} of the relations in memory")
    return Prepared(Cache.COLD, tuple(done), tuple(missing), share)


def after_restart(address: Address, relations: Sequence[str], restart: Callable[[], object] | None) -> Prepared:
    """Restart the server and leave the rest as it is. ``restart`` is None where the server is not ours to restart."""
    done, missing = _restarted(restart)
    with connect(address) as connection:
        share = _seen(connection, _with_toast(connection, relations))
    return Prepared(Cache.AFTER_RESTART, tuple(done), tuple(missing), share)


def _restarted(restart: Callable[[], object] | None) -> tuple[list[str], list[str]]:
    if restart is None:
        return [], ["the server cannot be restarted from here: its buffers hold what they held"]
    restart()
    return ["the server was restarted"], []


def _with_toast(connection: psycopg.Connection, relations: Sequence[str]) -> list[str]:
    """The relations, and the TOAST tables of those that have one with that one's index. Raises psycopg.Error.

    By their numbers: a name in pg_toast may be looked up by superusers alone.
    """
    rows = connection.execute(
        "WITH wanted AS (SELECT name::regclass AS oid FROM unnest(%s::text[]) AS name), "
        "toast AS (SELECT reltoastrelid AS oid FROM pg_class JOIN wanted USING (oid) WHERE reltoastrelid <> 0) "
        "SELECT oid::oid::text FROM wanted UNION SELECT oid::text FROM toast "
        "UNION SELECT indexrelid::text FROM pg_index JOIN toast ON indrelid = toast.oid ORDER BY 1",
        [[*relations]],
    )
    return [name for (name,) in rows]


def _prewarm(connection: psycopg.Connection, names: Sequence[str]) -> list[str]:
    """Read every page; what is missing when that does not bring it into the server's buffers."""
    if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'pg_prewarm'").fetchone():
        for name in names:
            connection.execute("SELECT pg_prewarm(%s::oid::regclass, 'buffer')", [name])
        return []
    unread = "pg_prewarm is not installed (CREATE EXTENSION pg_prewarm, where the server has it): "
    try:
        for name in names:
            _read_files(connection, name)
    except psycopg.errors.InsufficientPrivilege:
        return [f"{unread}only what the queries touch was read, and this role may not read the server's files"]
    return [f"{unread}what the queries do not touch is in the operating system's cache, not in the server's buffers"]


def _read_files(connection: psycopg.Connection, name: str) -> None:
    connection.execute(
        "SELECT sum(length(pg_read_binary_file(pg_relation_filepath(relation) || "
        "CASE WHEN start < %(segment)s THEN '' ELSE '.' || start / %(segment)s END, start %% %(segment)s, %(read)s))) "
        "FROM (SELECT %(name)s::oid::regclass AS relation) AS named, "
        "generate_series(0, pg_relation_size(relation) - 1, %(read)s) AS start",
        {"name": name, "segment": _SEGMENT_BYTES, "read": _READ_BYTES},
    )


def _seen(connection: psycopg.Connection, names: Sequence[str]) -> float | None:
    """The share of the relations that the operating system caches, None where it is not known."""
    files, _ = _files(connection, names)
    return cached_share(files)


def _files(connection: psycopg.Connection, names: Sequence[str]) -> tuple[list[Path], str | None]:
    """The relations' files on this machine; without them, why there are none."""
    if not connection.info.host.startswith("/"):
        return [], "the server's files are not on this machine: what its operating system caches is not known"
    # The setting is hidden from a role that may not read all of them.
    rows = connection.execute(
        "SELECT setting || '/' || pg_relation_filepath(relation::oid) "
        "FROM pg_settings, unnest(%s::text[]) AS relation WHERE name = 'data_directory'",
        [[*names]],
    ).fetchall()
    if not rows:
        return [], "this role may not see where the server's files are (GRANT pg_read_all_settings)"
    try:
        found = [file for (first,) in rows for file in _segments(Path(first))]
    except OSError as error:
        return [], f"the server's files cannot be read from here ({error.strerror}): their cache is not ours to empty"
    return found, None


def _segments(first: Path) -> list[Path]:
    """The files of a relation: one a gibibyte. Raises OSError when they cannot be read."""
    found = [first, *first.parent.glob(f"{first.name}.[0-9]*")]
    for file in found:
        file.open("rb").close()
    return found
