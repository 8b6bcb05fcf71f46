"""What the target knows of a transfer: its ranges, and which of them are there.

The tables are those of the memory phase's own copy, so that a stream goes on from either. A range is noted in the
transaction that moves it and once only: whoever comes second finds it done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psycopg

from orchestra_lib.memory.checksum import Checksum
from orchestra_lib.memory.copy import CopiedRange
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.ranges import KeyRange


class AlreadyThere(Exception):
    """Somebody else has noted this range meanwhile: what was written in this transaction is not wanted."""


def note_begin(
    source: psycopg.Connection,
    target: psycopg.Connection,
    *,
    stream: str,
    slot: str,
    publication: str,
    table: str,
    start_lsn: int,
    ranges: Sequence[KeyRange],
) -> None:
    """Note a transfer with its ranges, none of which is there yet. ``table`` is the source's, as SQL names it."""
    identity = source.execute(
        "SELECT system_identifier::text, %s::regclass::oid::bigint FROM pg_control_system()", [table]
    ).fetchone()
    system, oid = identity or ("", 0)
    with target.transaction():
        target.execute(
            "INSERT INTO orchestra_stream.stream "
            "(name, source_system, source_table, source_table_oid, slot, publication, start_lsn) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [stream, system, table, oid, slot, publication, lsn_text(start_lsn)],
        )
        target.cursor().executemany(
            "INSERT INTO orchestra_stream.copied_range (stream, number, low, high) VALUES (%s, %s, %s, %s)",
            [(stream, one.number, one.low, one.high) for one in ranges],
        )


def missing_ranges(target: psycopg.Connection, stream: str) -> tuple[KeyRange, ...]:
    """The ranges that are not there yet, in key order."""
    rows = target.execute(
        "SELECT number, low, high FROM orchestra_stream.copied_range WHERE stream = %s AND copied_at IS NULL "
        "ORDER BY number",
        [stream],
    ).fetchall()
    return tuple(KeyRange(*row) for row in rows)


def all_ranges(target: psycopg.Connection, stream: str) -> tuple[KeyRange, ...]:
    """Every range of a transfer, in key order."""
    rows = target.execute(
        "SELECT number, low, high FROM orchestra_stream.copied_range WHERE stream = %s ORDER BY number", [stream]
    ).fetchall()
    return tuple(KeyRange(*row) for row in rows)


def noted(target: psycopg.Connection, stream: str, number: int) -> Checksum | None:
    """What the source sent for a range, if the range is there."""
    row = target.execute(
        "SELECT rows, total FROM orchestra_stream.copied_range "
        "WHERE stream = %s AND number = %s AND copied_at IS NOT NULL",
        [stream, number],
    ).fetchone()
    return Checksum(row[0], int(row[1])) if row else None


def note_range(target: psycopg.Connection, stream: str, lsn: str, copied: CopiedRange) -> None:
    """Note a range inside the transaction that moves it. Raises AlreadyThere if it is noted, which undoes that."""
    done = target.execute(
        "UPDATE orchestra_stream.copied_range SET lsn = %s, rows = %s, total = %s, copied_at = now() "
        "WHERE stream = %s AND number = %s AND copied_at IS NULL",
        [lsn, copied.source.rows, copied.source.total, stream, copied.key_range.number],
    )
    if done.rowcount != 1:
        raise AlreadyThere(f"{copied.key_range} of {stream}")


def note_done(target: psycopg.Connection, stream: str) -> bool:
    """Note that the whole transfer is there, unless a range is missing; returns whether it is there."""
    done = target.execute(
        "UPDATE orchestra_stream.stream SET copy_done_at = now(), copied_until = "
        "(SELECT max(lsn) FROM orchestra_stream.copied_range WHERE stream = name) "
        "WHERE name = %s AND NOT EXISTS "
        "(SELECT 1 FROM orchestra_stream.copied_range WHERE stream = name AND copied_at IS NULL)",
        [stream],
    )
    return done.rowcount == 1


@contextmanager
def range_lock(target: psycopg.Connection, stream: str, number: int) -> Iterator[None]:
    """Work on a range alone: a second attempt at the same range waits, and then finds it done.

    It saves work, nothing more: what keeps a range whole is its transaction. It goes with the session of a worker that
    dies.
    """
    key = [f"orchestra_stream {stream} range {number}"]
    target.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", key)
    try:
        yield
    finally:
        with suppress(psycopg.OperationalError):  # the lock went with its session
            target.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", key)
