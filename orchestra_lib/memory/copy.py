"""The bulk copy: COPY BINARY from source to target in parallel key ranges under one exported snapshot.

Each range is one transaction on the target, so a range is there whole or not at all. A range that has rows already is
left alone if its checksum agrees, and emptied and loaded again otherwise: what proves a range is the data.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import psycopg
from psycopg import sql
from psycopg.abc import Buffer

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError
from orchestra_lib.memory.checksum import (
    Checksum,
    binary_columns,
    record_digest,
    require_equal_digests,
    row_digest,
)
from orchestra_lib.memory.parallel import RowCount, shared_out
from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.memory.source import SourceTable
from orchestra_lib.memory.throttle import Throttle

# Rows are handed to the target in pieces of this size: one call per row costs more than the copy of the bytes. From
# 128 kB malloc maps and unmaps memory for every piece.
_BLOCK_BYTES = 64 * 1024
_HEADER_BYTES = 19  # signature (11), flags (4) and header extension length (4) of a COPY BINARY stream
_TRAILER = b"\xff\xff"
# How the source's tuples start (number of fields, length of the first one, the digest), and how the target's do.
_START_READ = struct.Struct(">hiq")
_START_SENT = struct.pack(">h", len(COLUMNS))
_SHAPE_READ = (len(COLUMNS) + 1, 8)


@dataclass(frozen=True)
class CopiedRange:
    """One range after the copy: the checksum of what the source sent, and whether it had to be sent."""

    key_range: KeyRange
    source: Checksum
    sent: bool
    bytes: int


@dataclass(frozen=True)
class CopyResult:
    """What a copy did. ``rows`` and ``bytes`` count what was sent now, ``rows_kept`` what was already there."""

    snapshot: str
    lsn: str
    ranges: tuple[CopiedRange, ...]
    rows: int
    rows_kept: int
    bytes: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Rate of the rows that were sent; 0 when none were."""
        return self.rows / self.seconds if self.rows and self.seconds else 0.0


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that other sessions can import; all that it shows was written before this position of the log."""

    identifier: str
    lsn: str


@contextmanager
def exported_snapshot(connection: psycopg.Connection) -> Iterator[Snapshot]:
    """Hold a read-only snapshot open and exported; it ends with the block. The session must be idle meanwhile."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        row = connection.execute("SELECT pg_export_snapshot(), pg_current_wal_insert_lsn()::text").fetchone()
        if row is None:
            raise DataError("the source exported no snapshot")
        yield Snapshot(*row)
    finally:
        connection.execute("ROLLBACK")


@dataclass(frozen=True)
class CopyJob:
    """Where a copy reads and writes. Connection strings are used, never shown."""

    source_conninfo: Address
    source: SourceTable
    target_conninfo: Address
    target_table: sql.Identifier


Kept = Callable[[psycopg.Connection, CopiedRange], None]
"""Called with the target's session and a range, inside the transaction that the range is part of."""


def copy(
    job: CopyJob,
    snapshot: Snapshot,
    ranges: Sequence[KeyRange],
    workers: int,
    progress: Callable[[int], None],
    *,
    kept: Kept = lambda _target, _copied: None,
    rows_per_second: int | None = None,
) -> CopyResult:
    """Copy every range and return what was sent, with the source's checksum of each range in key order.

    ``progress`` is called with the number of rows done so far, in the caller's thread. The target table must exist.
    When a range fails, ranges under way finish, no new one starts, and the error is raised; running the copy again
    carries on. ``rows_per_second`` holds for all workers together.
    """
    started = time.monotonic()
    count = RowCount()
    throttle = Throttle(rows_per_second)

    def counted(rows: int) -> None:
        count.add(rows)
        throttle.take(rows)

    copied = shared_out(
        ranges,
        workers,
        lambda: _worker_sessions(job, snapshot),
        lambda sessions, key_range: copy_range(job, *sessions, key_range, counted, kept),
        lambda: progress(count.rows),
    )
    return CopyResult(
        snapshot.identifier,
        snapshot.lsn,
        tuple(copied),
        sum(item.source.rows for item in copied if item.sent),
        sum(item.source.rows for item in copied if not item.sent),
        sum(item.bytes for item in copied),
        time.monotonic() - started,
    )


def copy_range(
    job: CopyJob,
    source: psycopg.Connection,
    target: psycopg.Connection,
    key_range: KeyRange,
    progress: Callable[[int], None],
    kept: Kept,
) -> CopiedRange:
    """Copy one range by two sessions, as one transaction on the target; what it reads is what the source's sees.

    The servers' digests have to be equal (``checksum.require_equal_digests``). ``progress`` is called with rows, as
    they go over.
    """
    with target.transaction():
        copied = _unchanged(job, source, target, key_range, progress)
        if copied is None:
            target.execute(sql.SQL("DELETE FROM {} WHERE {}").format(job.target_table, key_range.condition()))
            copied = _send(job, source, target, key_range, progress)
        kept(target, copied)
        return copied


def checksum(connection: psycopg.Connection, rows: sql.Composable, key_range: KeyRange) -> Checksum:
    """Row count and checksum of a range, computed by the server; ``rows`` is a SELECT that yields our columns."""
    statement = sql.SQL("SELECT count(*), coalesce(sum({}), 0) FROM ({}) AS rows WHERE {}").format(
        row_digest(), rows, key_range.condition()
    )
    row = connection.execute(statement).fetchone()
    return Checksum(row[0], int(row[1])) if row else Checksum(0, 0)


def target_rows(table: sql.Identifier) -> sql.Composed:
    """The SELECT over the target table that corresponds to a source's."""
    return sql.SQL("SELECT {} FROM {}").format(_column_list(), table)


@contextmanager
def _worker_sessions(job: CopyJob, snapshot: Snapshot) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    with connect(job.source_conninfo, role="source") as source, connect(job.target_conninfo, role="target") as target:
        source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        source.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot.identifier)))
        require_equal_digests(source, target)
        yield source, target


@dataclass(frozen=True)
class _Block:
    """A piece of the stream as the target wants it: how many rows it ends, and the sum of their digests."""

    stream: bytes
    rows: int
    total: int


def _unchanged(
    job: CopyJob,
    source: psycopg.Connection,
    target: psycopg.Connection,
    key_range: KeyRange,
    progress: Callable[[int], None],
) -> CopiedRange | None:
    """The range if the target has exactly its rows already."""
    if not _holds_rows(target, job.target_table, key_range):
        return None
    wanted = checksum(source, job.source.select, key_range)
    if checksum(target, target_rows(job.target_table), key_range) != wanted:
        return None
    progress(wanted.rows)
    return CopiedRange(key_range, wanted, sent=False, bytes=0)


def _send(
    job: CopyJob,
    source: psycopg.Connection,
    target: psycopg.Connection,
    key_range: KeyRange,
    progress: Callable[[int], None],
) -> CopiedRange:
    write = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(job.target_table, _column_list())
    rows = total = size = 0
    with source.cursor().copy(_read_statement(job, key_range)) as reader, target.cursor().copy(write) as writer:
        for block in _blocks(iter(reader)):
            writer.write(block.stream)
            rows += block.rows
            total += block.total
            size += len(block.stream)
            progress(block.rows)
    return CopiedRange(key_range, Checksum(rows, total), sent=True, bytes=size)


def _blocks(messages: Iterator[Buffer]) -> Iterator[_Block]:
    """A COPY stream without its first column, in blocks; the first column is each row's digest."""
    # One message a row: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY. The header comes with
    # the first.
    first = memoryview(next(messages))
    pieces: list[Buffer] = [first[:_HEADER_BYTES]]
    rows = total = size = 0
    for row in chain((first[_HEADER_BYTES:],), map(memoryview, messages)):
        if len(row) > len(_TRAILER):
            fields, length, digest = _START_READ.unpack_from(row)
            if (fields, length) != _SHAPE_READ:
                raise DataError(
                    f"the source sent a row of {fields} fields whose first is {length} bytes long; expected were "
                    f"{_SHAPE_READ[0]} and a digest of {_SHAPE_READ[1]}"
                )
            total += digest
            pieces += (_START_SENT, row[_START_READ.size :])
            rows += 1
            size += len(row)
            if size >= _BLOCK_BYTES:
                yield _Block(b"".join(pieces), rows, total)
                pieces, rows, total, size = [], 0, 0, 0
        else:
            pieces.append(row)
    yield _Block(b"".join(pieces), rows, total)


def _read_statement(job: CopyJob, key_range: KeyRange) -> sql.Composed:
    # The source hashes the very values that it sends, in one scan. OFFSET 0 keeps the subquery as it is: without it the
    # vector would be turned into bytes twice, a quarter of what reading a row costs.
    statement = """
        COPY (
            SELECT {digest}, sent.*
            FROM (SELECT {columns} FROM ({rows}) AS rows WHERE {condition} OFFSET 0) AS sent
        ) TO STDOUT (FORMAT binary)
    """
    return sql.SQL(statement).format(
        digest=record_digest(sql.Identifier("sent")),
        columns=binary_columns(),
        rows=job.source.select,
        condition=key_range.condition(),
    )


def _holds_rows(target: psycopg.Connection, table: sql.Identifier, key_range: KeyRange) -> bool:
    statement = sql.SQL("SELECT EXISTS (SELECT 1 FROM {} WHERE {})").format(table, key_range.condition())
    row = target.execute(statement).fetchone()
    return bool(row and row[0])


def _column_list() -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column) for column in COLUMNS)
