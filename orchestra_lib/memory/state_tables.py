"""What a stream remembers, in a schema of its own beside the rows that it applies.

It stands in the database that is written to, so that a position and the rows that lead to it are one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from secrets import randbits

import psycopg

from orchestra_lib.errors import DataError, LockHeld
from orchestra_lib.memory.lsn import lsn_number, lsn_text

_DDL = """
CREATE SCHEMA IF NOT EXISTS orchestra_stream;
CREATE TABLE IF NOT EXISTS orchestra_stream.stream (
    name text PRIMARY KEY,
    source_system text NOT NULL,
    source_table text NOT NULL,
    source_table_oid bigint NOT NULL,
    slot text NOT NULL,
    publication text NOT NULL,
    start_lsn pg_lsn NOT NULL,
    copied_until pg_lsn,
    copy_done_at timestamptz,
    confirmed pg_lsn,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS orchestra_stream.checkpoint (
    stream text NOT NULL,
    partition int NOT NULL,
    partitions int NOT NULL,
    lsn pg_lsn NOT NULL,
    touched_until pg_lsn NOT NULL,
    token bigint NOT NULL DEFAULT 0,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, partition)
);
CREATE TABLE IF NOT EXISTS orchestra_stream.copied_range (
    stream text NOT NULL,
    number int NOT NULL,
    low text COLLATE "C",
    high text COLLATE "C",
    lsn pg_lsn,
    rows bigint,
    total numeric,
    copied_at timestamptz,
    PRIMARY KEY (stream, number)
);
CREATE TABLE IF NOT EXISTS orchestra_stream.quarantine (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream text NOT NULL,
    key text COLLATE "C" NOT NULL,
    verb text NOT NULL,
    change bytea NOT NULL,
    error text NOT NULL,
    commit_lsn pg_lsn NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    resolved_lsn pg_lsn
);
-- By a hash: a key may be too long for an index, which may be why it is here.
CREATE UNIQUE INDEX IF NOT EXISTS quarantine_once
    ON orchestra_stream.quarantine (stream, md5(key), commit_lsn);
"""
_TABLES = ("quarantine", "copied_range", "checkpoint")
# Columns that tables made by an earlier version lack.
_ADDED = {
    ("stream", "confirmed"): "pg_lsn",
    ("checkpoint", "token"): "bigint NOT NULL DEFAULT 0",
    ("quarantine", "resolved_lsn"): "pg_lsn",
}
_TOKEN_BITS = 62


@dataclass(frozen=True)
class Checkpoint:
    """How far a partition is.

    Everything that commits before ``lsn`` is applied. What commits until ``touched_until`` may be applied in part: a
    batch may end inside a large transaction. ``token`` is drawn with each move: who finds another one than their own
    was superseded, also where the positions are the same, as from one part of a large transaction to the next.
    """

    lsn: int
    touched_until: int
    token: int = field(default_factory=lambda: randbits(_TOKEN_BITS))


def create(connection: psycopg.Connection) -> None:
    """Make the schema and its tables unless they are there as this version wants them.

    Needs the right to CREATE in the database, unless there is nothing to make.
    """
    with connection.transaction():
        # Two that find nothing at the same moment would both make it.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('orchestra_stream', 0))")
        if _lacking(connection):
            connection.execute(_DDL)
        for table, column in _lacking(connection):
            kind = _ADDED[table, column]
            connection.execute(f"ALTER TABLE orchestra_stream.{table} ADD COLUMN {column} {kind}")


def _lacking(connection: psycopg.Connection) -> list[tuple[str, str]]:
    there = connection.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'orchestra_stream'"
    ).fetchall()
    return [added for added in _ADDED if added not in there]


def forget(connection: psycopg.Connection, stream: str) -> None:
    """Remove everything of a stream: a copy begins anew."""
    with connection.transaction():
        for table in _TABLES:
            connection.execute(
                psycopg.sql.SQL("DELETE FROM orchestra_stream.{} WHERE stream = %s").format(
                    psycopg.sql.Identifier(table)
                ),
                [stream],
            )
        connection.execute("DELETE FROM orchestra_stream.stream WHERE name = %s", [stream])


@contextmanager
def stream_lock(connection: psycopg.Connection, stream: str) -> Iterator[None]:
    """Hold the stream's lock inside: who moves rows or repairs them has it, one at a time.

    It is the session's, so it goes with a mover that dies; the server is told not to end a session that has nothing to
    say. Raises LockHeld with the other's process.
    """
    key = ["orchestra_stream " + stream]
    row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", key).fetchone()
    if row is None or not row[0]:
        raise LockHeld(
            f"the stream {stream} is in other hands: {_holder(connection, key)}. Stop that one, or wait until it ends"
        )
    try:
        connection.execute("SET idle_session_timeout = 0")
        yield
    finally:
        with suppress(psycopg.OperationalError):  # the lock went with its session
            connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", key)


def prepare_checkpoints(connection: psycopg.Connection, stream: str, partitions: int) -> None:
    """Give every partition a checkpoint: those that are there, or the beginning of the stream.

    With another number of partitions keys fall to others: all begin at the least checkpoint again. Raises DataError
    when nothing is known of the stream, or its copy is not finished: rows that are copied after changes of theirs were
    passed would be older than those.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT start_lsn, copy_done_at IS NOT NULL, (SELECT count(*) FROM orchestra_stream.copied_range "
            "WHERE stream = name AND copied_at IS NULL) FROM orchestra_stream.stream WHERE name = %s FOR UPDATE",
            [stream],
        ).fetchone()
        if row is None:
            raise DataError(f"the target knows no stream {stream}: make the initial copy first")
        start, is_copied, missing = row
        if not is_copied:
            raise DataError(
                f"the copy for the stream {stream} is not finished, {missing} of its key ranges are missing: run the "
                "copy again, it goes on with those; then start the stream"
            )
        counted = connection.execute(
            "SELECT count(*), max(partitions) FROM orchestra_stream.checkpoint WHERE stream = %s", [stream]
        ).fetchone()
        if counted == (partitions, partitions):
            return
        connection.execute(
            """
            WITH before AS (DELETE FROM orchestra_stream.checkpoint WHERE stream = %(stream)s RETURNING *),
                 least AS (
                     SELECT coalesce(min(lsn), %(start)s::pg_lsn) AS lsn,
                            coalesce(greatest(max(lsn), max(touched_until)), '0/0') AS touched_until
                     FROM before
                 )
            INSERT INTO orchestra_stream.checkpoint (stream, partition, partitions, lsn, touched_until)
            SELECT %(stream)s, number, %(partitions)s, lsn, touched_until
            FROM least, generate_series(0, %(partitions)s - 1) AS number
            """,
            {"stream": stream, "start": start, "partitions": partitions},
        )


def unresolved(connection: psycopg.Connection, stream: str) -> int:
    """How many changes are in quarantine and have not been put right."""
    row = connection.execute(
        "SELECT count(*) FROM orchestra_stream.quarantine WHERE stream = %s AND resolved_at IS NULL", [stream]
    ).fetchone()
    return int(row[0]) if row else 0


def copied_until(connection: psycopg.Connection, stream: str) -> int:
    """Where in the log the copy of a stream ends: rows may be as they were there. 0 where nothing was copied."""
    row = connection.execute(
        "SELECT copied_until::text FROM orchestra_stream.stream WHERE name = %s", [stream]
    ).fetchone()
    return lsn_number(row[0]) if row and row[0] else 0


def read_checkpoint(connection: psycopg.Connection, stream: str, partition: int) -> Checkpoint:
    """A partition's checkpoint, once whoever is just writing it has come to an end.

    That may be an earlier session of our own, whose COMMIT was on its way when the connection broke. Raises DataError
    where there is none.
    """
    row = connection.execute(
        "SELECT lsn::text, touched_until::text, token FROM orchestra_stream.checkpoint "
        "WHERE stream = %s AND partition = %s FOR UPDATE",
        [stream, partition],
    ).fetchone()
    if row is None:
        raise DataError(f"the stream {stream} has no checkpoint of partition {partition}: prepare its checkpoints")
    return Checkpoint(lsn_number(row[0]), lsn_number(row[1]), row[2])


def swap_checkpoint(
    connection: psycopg.Connection, stream: str, partition: int, expected: Checkpoint, new: Checkpoint
) -> psycopg.Cursor:
    """Move a checkpoint on from the one that is expected. No row is changed when it is another."""
    return connection.execute(
        "UPDATE orchestra_stream.checkpoint "
        "SET lsn = %s::pg_lsn, touched_until = %s::pg_lsn, token = %s, applied_at = now() "
        "WHERE stream = %s AND partition = %s AND lsn = %s::pg_lsn AND touched_until = %s::pg_lsn AND token = %s",
        [
            *(lsn_text(new.lsn), lsn_text(new.touched_until), new.token),
            *(stream, partition),
            *(lsn_text(expected.lsn), lsn_text(expected.touched_until), expected.token),
        ],
        prepare=True,
    )


def supersede(connection: psycopg.Connection, stream: str) -> None:
    """Have a mover that lost the stream's lock without noticing change nothing any more. For who has the lock now."""
    connection.execute(
        "UPDATE orchestra_stream.checkpoint SET token = %s WHERE stream = %s", [randbits(_TOKEN_BITS), stream]
    )


def confirmed(connection: psycopg.Connection, stream: str) -> int | None:
    """Until where the source may have been told that everything is here; None where no version noted it yet.

    Raises DataError when nothing is known of the stream.
    """
    row = connection.execute("SELECT confirmed::text FROM orchestra_stream.stream WHERE name = %s", [stream]).fetchone()
    if row is None:
        raise DataError(f"the target knows no stream {stream}: make the initial copy first")
    return None if row[0] is None else lsn_number(row[0])


def note_confirmed(connection: psycopg.Connection, stream: str, noted: int, lsn: int) -> bool:
    """Note what the source is about to be told, after ``noted``; returns whether that was still there."""
    done = connection.execute(
        "UPDATE orchestra_stream.stream SET confirmed = greatest(confirmed, %s::pg_lsn) "
        "WHERE name = %s AND coalesce(confirmed >= %s::pg_lsn, true)",
        [lsn_text(lsn), stream, lsn_text(noted)],
    )
    return done.rowcount == 1


def _holder(connection: psycopg.Connection, key: list[str]) -> str:
    row = connection.execute(
        """
        SELECT a.pid, a.application_name, coalesce(a.client_addr::text, 'this machine'), a.backend_start::text
        FROM pg_locks l JOIN pg_stat_activity a USING (pid), hashtextextended(%s, 0) AS wanted
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.classid::bigint = (wanted >> 32) & 4294967295 AND l.objid::bigint = wanted & 4294967295
        """,
        key,
    ).fetchone()
    if row is None:
        return "of a session that has just ended"
    return f"server process {row[0]} ({row[1]} from {row[2]}, since {row[3]})"
