"""Comparing two live stores: whole, while a stream runs from one to the other, or key by key when it has come to rest.

A range is read by one statement on each side, at two moments: rows that were written in between differ without being
wrong. So what differs is only suspected. A suspect is read again once the stream has passed the moment at which the
source was read, and is really different when the source's row did not change meanwhile and the target's is not it.
Rows that are written all the time stay unsettled; whoever follows the stream knows them.

Nothing is held in memory but sums of buckets, one row of each side where buckets differ, and the suspects.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory.checksum import Checksum, require_equal_digests, row_digest
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.parallel import RowCount, shared_out
from orchestra_lib.memory.ranges import KeyRange
from orchestra_lib.memory.slot import mark
from orchestra_lib.memory.source import SourceTable

MISSING, EXTRA, CHANGED = "missing", "extra", "changed"

_BUCKETS = 256
"""Of a range: a busy store has a few rows on the way in every range, and only their buckets are read again."""
_MOST_SUSPECTS = 100_000
_KEYS_AT_ONCE = 5_000
_ROUNDS = 20
_ROWS_NAMED = 20


@dataclass(frozen=True)
class Difference:
    """One row that is not the same on both sides: ``missing`` on the target, ``extra`` on it, or ``changed``."""

    id: str
    kind: str


@dataclass(frozen=True)
class Store:
    """A side of a comparison. ``role`` names it in messages: "source", "target"."""

    role: str
    address: Address
    table: SourceTable


@dataclass(frozen=True)
class LiveComparison:
    """What a comparison of everything came to.

    ``suspects`` counts the rows that differed at first, ``differences`` are those that really do, ``unsettled`` the
    keys of those that were written again and again while they were looked at.
    """

    source_rows: int
    target_rows: int
    ranges: int
    suspects: int
    differences: tuple[Difference, ...]
    unsettled: frozenset[str]

    def evidence(self) -> tuple[Evidence, ...]:
        """The claim that the stream has brought everything; MEASURED, because every byte was read on both sides."""
        named = ", ".join(f"{row.id} ({row.kind})" for row in self.differences[:_ROWS_NAMED])
        looked_at = (
            f"{self.source_rows:,} rows against {self.target_rows:,} in {self.ranges} key ranges; {self.suspects:,} "
            f"were on their way and were looked at again, {len(self.unsettled):,} are written all the time"
        )
        return (
            Evidence(
                "rows that differ between source and target while the stream runs",
                Source.MEASURED,
                len(self.differences),
                "rows",
                Bound("==", 0),
                note=f"{named}; {looked_at}" if named else looked_at,
            ),
        )


class KeyComparison:
    """Compares rows by their keys, over sessions that are open and statements that are prepared."""

    def __init__(self, source: Store, target: Store, sessions: tuple[psycopg.Connection, psycopg.Connection]) -> None:
        require_equal_digests(*sessions)
        self._source = KeyReader(sessions[0], source.table, row_digest())
        self._target = KeyReader(sessions[1], target.table, row_digest())
        self._tables = source.table.table, target.table.table
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compare")

    def differences(self, keys: Collection[str]) -> tuple[Difference, ...]:
        """The rows of these keys that are not the same on both sides now, in key order. Both sides are read at once."""
        ordered = sorted(set(keys))
        ours = self._pool.submit(_digests, self._target, ordered)
        return tuple(_compared(_digests(self._source, ordered), ours.result(), ordered))

    def counts(self) -> tuple[int, int]:
        """How many rows there are on the source and on the target now. Both sides count at once."""
        ours = self._pool.submit(_count, self._target.connection, self._tables[1])
        return _count(self._source.connection, self._tables[0]), ours.result()

    def settle(
        self,
        keys: Collection[str],
        wait_for: Callable[[int, float], bool],
        timeout_seconds: float,
        rounds: int = _ROUNDS,
    ) -> tuple[tuple[Difference, ...], frozenset[str]]:
        """The rows of these keys that really differ, and the keys that were written all along and cannot be judged.

        ``rounds``: how often a row that was written meanwhile is looked at again.
        ``wait_for(lsn, timeout_seconds)`` returns whether everything before ``lsn`` is on the target. Raises DataError
        when the stream does not get there in time.
        """
        waiting, real = sorted(set(keys)), list[Difference]()
        for _ in range(rounds):
            if not waiting:
                break
            moving: list[str] = []
            for chunk in _chunks(waiting):
                different, moved = self._judge(chunk, wait_for, timeout_seconds)
                real += different
                moving += moved
            waiting = moving
        if not real:
            return (), frozenset(waiting)
        # Once more: a row that came and went while only the target was being read looked as if it had stood still.
        real, moved = self._judge([row.id for row in real], wait_for, timeout_seconds)
        return tuple(real), frozenset((*waiting, *moved))

    def close(self) -> None:
        """Let the second thread go; the sessions belong to the caller."""
        self._pool.shutdown()

    def _judge(
        self, keys: Sequence[str], wait_for: Callable[[int, float], bool], timeout_seconds: float
    ) -> tuple[list[Difference], list[str]]:
        before = _digests(self._source, keys)
        lsn = mark(self._source.connection)
        if not wait_for(lsn, timeout_seconds):
            raise DataError(
                f"the stream did not pass {lsn_text(lsn)} within {timeout_seconds:g} s: look at its state and its lag, "
                "then compare again"
            )
        suspected = list(_compared(before, _digests(self._target, keys), keys))
        after = _digests(self._source, [row.id for row in suspected])
        stood_still = [row for row in suspected if before.get(row.id) == after.get(row.id)]
        return stood_still, [row.id for row in suspected if before.get(row.id) != after.get(row.id)]


@contextmanager
def key_comparison(source: Store, target: Store) -> Iterator[KeyComparison]:
    """A comparison by keys over two sessions of its own."""
    with connect(source.address, role=source.role) as theirs, connect(target.address, role=target.role) as ours:
        comparison = KeyComparison(source, target, (theirs, ours))
        try:
            yield comparison
        finally:
            comparison.close()


def compare_live(
    source: Store,
    target: Store,
    ranges: Sequence[KeyRange],
    workers: int,
    wait_for: Callable[[int, float], bool],
    progress: Callable[[int], None],
    timeout_seconds: float = 60.0,
) -> LiveComparison:
    """Compare everything while a stream runs from source to target.

    ``wait_for(lsn, timeout_seconds)`` returns whether the stream has brought everything before ``lsn``; ``progress`` is
    called with the number of source rows read so far, in the caller's thread. A row that is written after its range was
    read is not covered: keys that the stream applies from before the call on have to be compared once more.
    Raises DataError when so many rows differ that the one store is no copy of the other.
    """
    count, suspects = RowCount(), _Suspects()

    def compare(sessions: tuple[psycopg.Connection, psycopg.Connection], key_range: KeyRange) -> tuple[int, int]:
        reads = (sessions[0], source.table.select), (sessions[1], target.table.select)
        theirs, ours = (_bucket_checksums(*read, key_range) for read in reads)
        count.add(_rows(theirs))
        differing = [bucket for bucket in range(_BUCKETS) if theirs.get(bucket) != ours.get(bucket)]
        if differing:
            with closing(differences(*reads, key_range, differing)) as found:
                suspects.take(found)
        return _rows(theirs), _rows(ours)

    rows = shared_out(ranges, workers, lambda: _both(source, target), compare, lambda: progress(count.rows))
    with key_comparison(source, target) as by_key:
        real, unsettled = by_key.settle(suspects.keys, wait_for, timeout_seconds)
    return LiveComparison(
        sum(theirs for theirs, _ in rows),
        sum(ours for _, ours in rows),
        len(ranges),
        len(suspects.keys),
        real,
        unsettled,
    )


class _Suspects:
    """Keys of rows that differ, found by several threads; so many that they must fit into memory, or none."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._lock = threading.Lock()

    def take(self, found: Iterator[Difference]) -> None:
        """Add them. Raises DataError when there are too many."""
        for row in found:
            with self._lock:
                self.keys.append(row.id)
                if len(self.keys) > _MOST_SUSPECTS:
                    raise DataError(
                        f"more than {_MOST_SUSPECTS:,} rows differ: either the stream is far behind, then compare "
                        "again when it has caught up, or the target is no copy of the source, then copy it again"
                    )


def differences(
    source: tuple[psycopg.Connection, sql.Composable],
    target: tuple[psycopg.Connection, sql.Composable],
    key_range: KeyRange,
    buckets: Sequence[int] | None = None,
) -> Generator[Difference, None, None]:
    """The rows of a range that differ, in key order, by running through both sides at once.

    Each side is a session and a SELECT of our columns. ``buckets``: only the rows of these. Close it when it is not
    run through to its end: until then the sessions are busy.
    """
    with ExitStack() as stack:
        theirs, ours = (
            stack.enter_context(_digest_stream(connection, rows, key_range, buckets))
            for connection, rows in (source, target)
        )
        yield from _merged(theirs, ours)


def _merged(theirs: Iterator[tuple[str, int]], ours: Iterator[tuple[str, int]]) -> Iterator[Difference]:
    """Differences of two runs of keys and digests that are both in order."""
    sides = ((("source", *row) for row in theirs), (("target", *row) for row in ours))
    for key, rows in groupby(heapq.merge(*sides, key=itemgetter(1)), key=itemgetter(1)):
        digests = {side: digest for side, _, digest in rows}
        their, our = digests.get("source"), digests.get("target")
        if their != our:
            yield Difference(key, _kind(their, our))


def _kind(their: int | None, our: int | None) -> str:
    return MISSING if our is None else EXTRA if their is None else CHANGED


@contextmanager
def _digest_stream(
    connection: psycopg.Connection, rows: sql.Composable, key_range: KeyRange, buckets: Sequence[int] | None
) -> Iterator[Iterator[tuple[str, int]]]:
    """Key and digest of each row, in byte order of the keys."""
    within = (
        sql.SQL("true") if buckets is None else sql.SQL("{} = ANY({})").format(_bucket(), sql.Literal(list(buckets)))
    )
    statement = sql.SQL(
        'COPY (SELECT id, {} FROM ({}) AS rows WHERE {} AND {} ORDER BY id COLLATE "C") TO STDOUT (FORMAT binary)'
    ).format(row_digest(), rows, key_range.condition(), within)
    with connection.cursor().copy(statement) as copy:
        copy.set_types(["text", "int8"])
        yield copy.rows()


def _bucket_checksums(connection: psycopg.Connection, rows: sql.Composable, key_range: KeyRange) -> dict[int, Checksum]:
    statement = sql.SQL("SELECT {}, count(*), sum({}) FROM ({}) AS rows WHERE {} GROUP BY 1").format(
        _bucket(), row_digest(), rows, key_range.condition()
    )
    return {bucket: Checksum(count, int(total)) for bucket, count, total in connection.execute(statement).fetchall()}


def _bucket() -> sql.Composed:
    return sql.SQL('(hashtextextended(id COLLATE "C", 0) & {})::int').format(sql.Literal(_BUCKETS - 1))


class KeyReader:
    """Reads something of the rows of some keys. Keys are compared as the table's own type: its index is used."""

    def __init__(self, connection: psycopg.Connection, table: SourceTable, expressions: sql.Composable) -> None:
        self.connection = connection
        row = connection.execute(
            "SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
            [table.table.as_string(connection), table.id_column],
        ).fetchone()
        if row is None:
            raise DataError(f"{table.table.as_string(connection)} has no column {table.id_column} any more")
        self.statement = sql.SQL("SELECT id, {} FROM ({} WHERE {} = ANY(%b::text[]::{}[])) AS rows").format(
            expressions, table.select, sql.Identifier(table.id_column), sql.SQL(row[0])
        )

    def read(self, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Key and values of the rows that are there, in no order."""
        with self.connection.cursor(binary=True) as cursor:
            for chunk in _chunks(keys):
                yield from cursor.execute(self.statement, [list(chunk)], prepare=True).fetchall()


def _digests(reader: KeyReader, keys: Sequence[str]) -> dict[str, int]:
    return dict(reader.read(keys))


def _count(connection: psycopg.Connection, table: sql.Composable) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table), prepare=True).fetchone()
    return int(row[0]) if row else 0


def _compared(theirs: dict[str, int], ours: dict[str, int], keys: Sequence[str]) -> Iterator[Difference]:
    for key in keys:
        their, our = theirs.get(key), ours.get(key)
        if their != our:
            yield Difference(key, _kind(their, our))


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + _KEYS_AT_ONCE] for start in range(0, len(keys), _KEYS_AT_ONCE))


def _rows(buckets: dict[int, Checksum]) -> int:
    return sum(bucket.rows for bucket in buckets.values())


@contextmanager
def _both(source: Store, target: Store) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    with connect(source.address, role=source.role) as theirs, connect(target.address, role=target.role) as ours:
        require_equal_digests(theirs, ours)
        yield theirs, ours
