"""Which ranges of a transfer are there and which are missing, and working on one of them alone.

The notes are those of the memory phase's own copy (``memory.copied_ranges``), so that a stream goes on from either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from orchestra_lib.memory.checksum import Checksum
from orchestra_lib.memory.ranges import KeyRange


def missing_ranges(target: psycopg.Connection, stream: str) -> tuple[KeyRange, ...]:
    """The ranges that are not there yet, in key order."""
    rows = target.execute(
        "SELECT number, low, high FROM orchestra_stream.copied_range WHERE stream = %s AND copied_at IS NULL "
        "ORDER BY number",
        [stream],
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
