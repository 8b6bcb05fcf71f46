"""Writing net changes inside a transaction of the target: what to send, and what became of it.

A row that the target's table refuses goes to quarantine alone, and so does one that would go back to an earlier
version, unless it is a replay of what has been applied.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql

from orchestra_lib.memory.coalesce import Kind, Net, Rekey
from orchestra_lib.memory.layout import Layout
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.pgoutput import Row
from orchestra_lib.memory.staging import BinaryParameter, Staging

POISON = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
"""The row is at fault, not the target: bad values, constraints, and limits such as that of an index entry."""

NOT_THERE = "the row to change is not there"
_NOT_SENT = struct.pack(">i", -2)


@dataclass(frozen=True)
class Applied:
    """What became of net changes. ``stale``: the target was ahead, as expected up to the horizon and after a repair."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    stale: int = 0
    quarantined: int = 0
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """The rows that were written."""
        return self.inserted + self.updated + self.deleted

    def __add__(self, other: Applied) -> Applied:
        return Applied(
            self.inserted + other.inserted,
            self.updated + other.updated,
            self.deleted + other.deleted,
            self.stale + other.stale,
            self.quarantined + other.quarantined,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Sent:
    """A statement that was sent for some rows. ``counts`` is the field of Applied that its rows are, or none."""

    nets: Sequence[Net]
    counts: str
    cursor: psycopg.Cursor


class Writer:
    """Writes rows of one layout to one table over one session; transactions are the caller's."""

    def __init__(self, connection: psycopg.Connection, stream: str, layout: Layout, table: sql.Identifier) -> None:
        """Raises DataError when the target does not know a type of the source."""
        self._connection, self._stream = connection, stream
        self._staging = Staging(connection, layout, table)

    def send(self, nets: Sequence[Net], *, guarded: bool) -> list[Sent]:
        """Send the statements for these rows; a row that is replaced goes before it comes.

        ``guarded``: rows that come may be there already. Without it such a row is a UniqueViolation, and one that is
        not there costs a tenth less.
        """
        by_kind: dict[Kind, list[Net]] = {kind: [] for kind in Kind}
        for net in nets:
            by_kind[net.kind].append(net)
        staging = self._staging
        sent = [
            self._send(some, counts, staging.delete, staging.ids(_rows(some)))
            for some, counts in ((by_kind[Kind.DELETE], "deleted"), (by_kind[Kind.REPLACE], ""))
            if some
        ]
        coming = by_kind[Kind.INSERT] + by_kind[Kind.REPLACE]
        whole = (
            (coming, "inserted", staging.upsert if guarded else staging.insert),
            (by_kind[Kind.UPSERT], "updated", staging.upsert),
        )
        sent += [
            self._send(some, counts, statement, staging.parameters(_rows(some)))
            for some, counts, statement in whole
            if some
        ]
        return sent + [self._send_patch(columns, some) for columns, some in _by_columns(by_kind[Kind.PATCH]).items()]

    def outcome(self, sent: Sequence[Sent], horizon: int) -> Applied:
        """Count what the statements did; what a guard refused is stale, or quarantined above the horizon."""
        applied = Applied()
        for one in sent:
            if not one.counts:
                continue
            applied += Applied(**{one.counts: one.cursor.rowcount})
            if one.counts != "deleted" and one.cursor.rowcount < len(one.nets):
                applied += self._refused(one.nets, horizon)
        return applied

    def write(self, nets: Sequence[Net], horizon: int) -> Applied:
        """Write rows, one half after the other down to those that the target refuses; they go to quarantine."""
        try:
            with self._connection.transaction():  # inside the caller's: a savepoint
                return self.outcome(self.send(nets, guarded=True), horizon)
        except POISON as error:
            if len(nets) == 1:
                self.quarantine(nets[0], nets[0].kind.value, str(error).strip())
                return Applied(quarantined=1)
        middle = len(nets) // 2
        return self.write(nets[:middle], horizon) + self.write(nets[middle:], horizon)

    def rekey(self, change: Rekey) -> bool:
        """Give a row its new id, keeping what was not sent.

        Returns False if there is no such row, or one of the new id already. Raises one of POISON.
        """
        columns = sent_columns(change.new.row)
        parameters = self._staging.parameters([change.new.row], _positions(columns))
        parameters += self._staging.ids([change.old.row])
        with self._connection.transaction():
            return self._connection.execute(self._staging.rekey(columns), parameters).rowcount == 1

    def is_aside(self, net: Net) -> bool:
        """Whether an earlier change of this row lies in quarantine: the row is not what the source's was."""
        return self._any(net, "resolved_at IS NULL")

    def brought_later(self, net: Net) -> bool:
        """Whether the row was repaired, and is as the source's was later than this change."""
        return self._any(net, "resolved_lsn > %s::pg_lsn", lsn_text(net.lsn))

    def holds(self, net: Net) -> bool:
        """Whether the target has a row of this id."""
        found = self._connection.execute(
            self._staging.refused, self._staging.versions([net.row]), prepare=True
        ).fetchall()
        return all(theirs is not None for _, theirs, _ in found)

    def quarantine(self, net: Net, verb: str, error: str) -> None:
        """Put a change aside, once for a key and a commit."""
        self._connection.execute(
            """
            INSERT INTO orchestra_stream.quarantine (stream, key, verb, change, error, commit_lsn)
            VALUES (%s, %s, %s, %s, %s, %s::pg_lsn)
            ON CONFLICT (stream, md5(key), commit_lsn) DO UPDATE
            SET verb = excluded.verb, change = excluded.change, error = excluded.error,
                quarantined_at = now(), resolved_at = NULL
            """,
            [self._stream, key_text(net.key), verb, packed(net.row), error, lsn_text(net.lsn)],
        )

    def _any(self, net: Net, condition: LiteralString, *values: str) -> bool:
        """Whether an entry of the row in quarantine meets the condition."""
        key = key_text(net.key)
        entries = sql.SQL(
            "SELECT EXISTS (SELECT FROM orchestra_stream.quarantine "
            "WHERE stream = %s AND md5(key) = md5(%s) AND key = %s AND {})"
        ).format(sql.SQL(condition))
        return self._connection.execute(entries, [self._stream, key, key, *values]).fetchone() == (True,)

    def _send(self, nets: Sequence[Net], counts: str, statement: bytes, parameters: Sequence[BinaryParameter]) -> Sent:
        return Sent(nets, counts, self._connection.execute(statement, parameters, prepare=True))

    def _send_patch(self, columns: tuple[bool, ...], nets: Sequence[Net]) -> Sent:
        parameters = self._staging.parameters(_rows(nets), _positions(columns))
        return self._send(nets, "updated", self._staging.patch(columns), parameters)

    def _refused(self, nets: Sequence[Net], horizon: int) -> Applied:
        """Rows that were to be written and are ahead on the target, or not there to be changed."""
        found = self._connection.execute(
            self._staging.refused, self._staging.versions(_rows(nets)), prepare=True
        ).fetchall()
        stale = 0
        for number, theirs, ours in found:
            net = nets[number - 1]
            if net.lsn <= horizon or self.brought_later(net):
                stale += 1
            else:
                reason = NOT_THERE if theirs is None else f"version went back from {theirs} to {ours}"
                self.quarantine(net, net.kind.value, reason)
        return Applied(stale=stale, quarantined=len(found) - stale)


def packed(row: Row) -> bytes:
    """A row as it came: the number of fields and the fields, as in COPY BINARY; the length -2 is "not sent"."""
    return b"".join((struct.pack(">h", len(row)), *(_NOT_SENT if field is None else field for field in row)))


def key_text(key: bytes) -> str:
    """The key for people and for the quarantine; bytes that are no UTF-8 are spelled out."""
    return key.decode(errors="backslashreplace")


def sent_columns(row: Row) -> tuple[bool, ...]:
    """Which columns the log sent."""
    return tuple(field is not None for field in row)


def _by_columns(nets: Sequence[Net]) -> dict[tuple[bool, ...], list[Net]]:
    found: dict[tuple[bool, ...], list[Net]] = {}
    for net in nets:
        found.setdefault(sent_columns(net.row), []).append(net)
    return found


def _positions(columns: tuple[bool, ...]) -> list[int]:
    return [position for position, there in enumerate(columns) if there]


def _rows(nets: Sequence[Net]) -> list[Row]:
    return [net.row for net in nets]
