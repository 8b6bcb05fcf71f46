"""What the target knows of a copy: its table and slot, the ranges into which that was cut, and which are there.

The memory phase's own copy and the pipelines of ``scale`` note the same, so a stream goes on from either, and either
goes on with what the other began. A range is noted in the transaction that moves it and once only.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from orchestra_lib.errors import DataError
from orchestra_lib.memory.copy import CopiedRange
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.ranges import KeyRange


class AlreadyThere(DataError):
    """Somebody else has noted this range meanwhile: what was written in this transaction is not wanted."""


def identity(source: psycopg.Connection, table: str) -> tuple[str, int]:
    """Which server and which table: one that was dropped and made again is another. ``table`` as SQL names it."""
    row = source.execute(
        "SELECT system_identifier::text, %s::regclass::oid::bigint FROM pg_control_system()", [table]
    ).fetchone()
    return (row[0], row[1]) if row else ("", 0)


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
    """Note a copy with its ranges, none of which is there yet. ``table`` is the source's, as SQL names it."""
    system, oid = identity(source, table)
    with target.transaction():
        target.execute(
            "INSERT INTO orchestra_stream.stream "
            "(name, source_system, source_table, source_table_oid, slot, publication, start_lsn, confirmed) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            [stream, system, table, oid, slot, publication, lsn_text(start_lsn), lsn_text(start_lsn)],
        )
        target.cursor().executemany(
            "INSERT INTO orchestra_stream.copied_range (stream, number, low, high) VALUES (%s, %s, %s, %s)",
            [(stream, one.number, one.low, one.high) for one in ranges],
        )


def all_ranges(target: psycopg.Connection, stream: str) -> tuple[KeyRange, ...]:
    """Every range of a copy, in key order."""
    rows = target.execute(
        "SELECT number, low, high FROM orchestra_stream.copied_range WHERE stream = %s ORDER BY number", [stream]
    ).fetchall()
    return tuple(KeyRange(*row) for row in rows)


def begun_at(target: psycopg.Connection, stream: str) -> str:
    """Where in the log the stream of a copy begins, by which one copy is told from another: for :func:`note_range`.

    Raises DataError when no copy has begun.
    """
    row = target.execute("SELECT start_lsn::text FROM orchestra_stream.stream WHERE name = %s", [stream]).fetchone()
    if row is None:
        raise DataError(f"no copy of {stream} has begun, or it was given up: run the copy again")
    return str(row[0])


def note_range(target: psycopg.Connection, stream: str, begun: str, lsn: str, copied: CopiedRange) -> None:
    """Note a range inside the transaction that moves it, as one of the copy that began at ``begun``.

    That has to be read before the snapshot under which the rows are read: a copy that was begun anew meanwhile has a
    slot that knows nothing of what is older. Raises AlreadyThere if the range is noted or the copy another one, which
    undoes the transaction.
    """
    key_range = copied.key_range
    done = target.execute(
        "UPDATE orchestra_stream.copied_range SET lsn = %s, rows = %s, total = %s, copied_at = now() "
        "WHERE stream = %s AND number = %s AND copied_at IS NULL "
        "AND low IS NOT DISTINCT FROM %s AND high IS NOT DISTINCT FROM %s "
        "AND EXISTS (SELECT FROM orchestra_stream.stream WHERE name = %s AND start_lsn = %s)",
        [
            *(lsn, copied.source.rows, copied.source.total),
            *(stream, key_range.number, key_range.low, key_range.high),
            *(stream, begun),
        ],
    )
    if done.rowcount != 1:
        raise AlreadyThere(
            f"{key_range} of {stream} was brought by somebody else meanwhile, or the copy was begun anew; run the copy "
            "again, it goes on with the ranges that are missing"
        )
