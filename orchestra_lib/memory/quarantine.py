"""Rows that the stream put aside, and bringing them in order: the source's row, as it is now, is the truth.

A change in quarantine is one that the target refused, so from there on its row may differ from the source's. Whether it
still does is seen by comparing the rows themselves: a later change may have healed it, or a fix of the target's table
may now let it in.

A row that is brought is ahead of the checkpoint. Each entry keeps the position of the source up to which its row may be
ahead, so that the stream takes nothing from the row for changes of before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from orchestra_lib.database import connect
from orchestra_lib.memory.compare import Store, key_comparison
from orchestra_lib.memory.lsn import lsn_number, lsn_text
from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.memory.slot import current_lsn
from orchestra_lib.memory.state_tables import stream_lock, supersede
from orchestra_lib.memory.writing import POISON


@dataclass(frozen=True)
class Quarantined:
    """A change that was put aside: of which row, what it was to do, and why it was not done."""

    number: int
    key: str
    verb: str
    error: str
    commit_lsn: int
    quarantined_at: datetime


@dataclass(frozen=True)
class Resolution:
    """Keys by what became of them. ``equal`` rows were alike already; ``remaining`` ones the target still refuses."""

    equal: tuple[str, ...]
    written: tuple[str, ...]
    deleted: tuple[str, ...]
    remaining: tuple[Quarantined, ...]


def unresolved(target: psycopg.Connection, stream: str) -> tuple[Quarantined, ...]:
    """The changes of a stream that still lie in quarantine, in the order of the log."""
    rows = target.execute(
        "SELECT number, key, verb, error, commit_lsn::text, quarantined_at FROM orchestra_stream.quarantine "
        "WHERE stream = %s AND resolved_at IS NULL ORDER BY quarantine.commit_lsn, number",
        [stream],
    ).fetchall()
    return tuple(
        Quarantined(number, key, verb, error, lsn_number(lsn), moment) for number, key, verb, error, lsn, moment in rows
    )


def resolve(source: Store, target: Store, stream: str) -> Resolution:
    """Make the target's rows in quarantine what the source's are now, whatever their versions.

    Only while the stream does not run: raises LockHeld if it does. What the target refuses again stays, with its new
    error. Raises DataError and TargetUnreachable; called again it goes on.
    """
    with (
        connect(source.address, role=source.role) as theirs,
        connect(target.address, role=target.role) as ours,
        stream_lock(ours, stream),
    ):
        supersede(ours, stream)
        keys = list(dict.fromkeys(item.key for item in unresolved(ours, stream)))
        with key_comparison(source, target) as comparison:
            differing = {row.id for row in comparison.differences(keys)}
        equal, compared_at = [key for key in keys if key not in differing], current_lsn(theirs)
        for key in equal:
            _settle(ours, stream, key, compared_at)
        written: list[str] = []
        deleted: list[str] = []
        for key in sorted(differing):
            try:
                with ours.transaction():
                    there = _bring(theirs, ours, source, target, key)
                    _settle(ours, stream, key, current_lsn(theirs))
            except POISON as error:
                _still(ours, stream, key, str(error).strip())
            else:
                (written if there else deleted).append(key)
        return Resolution(tuple(equal), tuple(written), tuple(deleted), unresolved(ours, stream))


def _bring(theirs: psycopg.Connection, ours: psycopg.Connection, source: Store, target: Store, key: str) -> bool:
    """Replace the target's row by the source's, as bytes; returns whether the source has one."""
    ours.execute(sql.SQL("DELETE FROM {} WHERE id = %s").format(target.table.table), [key])
    read = sql.SQL("COPY ({} WHERE {} = {}) TO STDOUT (FORMAT binary)").format(
        source.table.select, sql.Identifier(source.table.id_column), sql.Literal(key)
    )
    columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    write = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(target.table.table, columns)
    with theirs.cursor().copy(read) as reader:
        row = b"".join(reader)
    with ours.cursor() as writing:
        with writing.copy(write) as writer:
            writer.write(row)
        return writing.rowcount == 1


def _settle(target: psycopg.Connection, stream: str, key: str, lsn: int) -> None:
    """Note that the row is the source's, as it was at some moment before ``lsn``."""
    target.execute(
        "UPDATE orchestra_stream.quarantine SET resolved_at = now(), resolved_lsn = %s::pg_lsn "
        "WHERE stream = %s AND key = %s AND resolved_at IS NULL",
        [lsn_text(lsn), stream, key],
    )


def _still(target: psycopg.Connection, stream: str, key: str, error: str) -> None:
    target.execute(
        "UPDATE orchestra_stream.quarantine SET error = %s WHERE stream = %s AND key = %s AND resolved_at IS NULL",
        [error, stream, key],
    )
