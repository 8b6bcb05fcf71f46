"""The replication slot on the side that is read: what it keeps there, how much of it may be kept, and when to worry.

A slot keeps the write-ahead log until the stream has confirmed it. That is what makes an absent target harmless, and
what fills the source's disk; ``max_slot_wal_keep_size`` decides which of the two gives way.
https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory.lsn import lsn_number

_MIB = 2**20


@dataclass(frozen=True)
class SlotState:
    """A slot as its server sees it. Sizes are bytes; ``limit_bytes`` is None where the server sets no limit.

    ``wal_status`` is ``reserved``, ``extended``, ``unreserved`` (about to be lost) or ``lost``. ``active_pid`` is the
    server process of whoever reads the slot now.
    """

    name: str
    wal_status: str
    active_pid: int | None
    restart_lsn: int
    confirmed_lsn: int
    retained_bytes: int
    limit_bytes: int | None

    @property
    def is_lost(self) -> bool:
        """Whether what it kept is gone: the stream cannot go on, only a new copy can."""
        return self.wal_status == "lost"

    def used(self) -> float | None:
        """Which part of the limit is used; None where there is none."""
        return None if self.limit_bytes is None else self.retained_bytes / max(1, self.limit_bytes)

    def sentence(self) -> str:
        """What it keeps, in words."""
        kept = f"slot {self.name} keeps {self.retained_bytes / _MIB:,.0f} MiB of the write-ahead log"
        if self.is_lost:
            return f"{kept} no longer: it went past max_slot_wal_keep_size; run the copy again"
        of = "without a limit" if self.limit_bytes is None else f"of {self.limit_bytes / _MIB:,.0f} MiB allowed"
        return f"{kept} {of}"

    def evidence(self, alert_ratio: float) -> Evidence:
        """The claim that what is kept stays below the part of the limit at which somebody has to act."""
        used = self.used()
        if used is None:
            note = f"{self.sentence()}: set max_slot_wal_keep_size, or a target that is away fills the source's disk"
            return Evidence("write-ahead log that the slot keeps", Source.OBSERVED, self.retained_bytes, "B", note=note)
        claim = "part of the allowed write-ahead log that the slot keeps"
        value = 1.0 if self.is_lost else round(used, 4)
        return Evidence(claim, Source.OBSERVED, value, "", Bound("<=", alert_ratio), note=self.sentence())


def slot_state(connection: psycopg.Connection, name: str) -> SlotState | None:
    """The slot of that name; None when there is none."""
    row = connection.execute(
        """
        SELECT coalesce(wal_status, 'lost'), active_pid, coalesce(restart_lsn, '0/0')::text,
               coalesce(confirmed_flush_lsn, '0/0')::text,
               coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint,
               (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size')
        FROM pg_replication_slots WHERE slot_name = %s
        """,
        [name],
    ).fetchone()
    if row is None:
        return None
    status, pid, restart, confirmed, retained, limit_mib = row
    limit = None if limit_mib is None or limit_mib < 0 else limit_mib * _MIB
    return SlotState(name, status, pid, lsn_number(restart), lsn_number(confirmed), max(0, retained), limit)


def drop_slot(connection: psycopg.Connection, name: str) -> bool:
    """Drop the slot if it is there, once nobody reads it; returns whether it was there."""
    row = connection.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [name]
    ).fetchone()
    return row is not None


def publish(connection: psycopg.Connection, publication: str, table: sql.Composable) -> None:
    """Make the publication of one table anew unless it is there with exactly that table.

    All columns are published: a column that is added later has to be noticed, not left behind.
    """
    name = sql.Identifier(publication)
    with connection.transaction():
        row = connection.execute(
            "SELECT NOT puballtables AND pubinsert AND pubupdate AND pubdelete AND pubtruncate AND ARRAY("
            "SELECT prrelid FROM pg_publication_rel WHERE prpubid = pg_publication.oid) = ARRAY[%s::regclass::oid] "
            "FROM pg_publication WHERE pubname = %s",
            [table.as_string(connection), publication],
        ).fetchone()
        if row == (True,):
            return
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(name))
        connection.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(name, table))


def current_lsn(connection: psycopg.Connection) -> int:
    """The end of the write-ahead log as it is being written: everything committed so far lies before it."""
    row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    return lsn_number(row[0]) if row else 0


def mark(connection: psycopg.Connection) -> int:
    """Write a message into the log and return its position: a stream that has passed it has passed all before it."""
    row = connection.execute("SELECT pg_logical_emit_message(true, 'orchestra', 'mark')::text").fetchone()
    return lsn_number(row[0]) if row else 0
