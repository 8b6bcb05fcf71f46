"""What a stream remembers, in a schema of its own beside the rows that it applies.

It stands in the database that is written to, so that a position and the rows that lead to it are one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

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
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS orchestra_stream.checkpoint (
    stream text NOT NULL,
    partition int NOT NULL,
    partitions int NOT NULL,
    lsn pg_lsn NOT NULL,
    touched_until pg_lsn NOT NULL,
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
    resolved_at timestamptz
);
-- By a hash: a key may be too long for an index, which may be why it is here.
CREATE UNIQUE INDEX IF NOT EXISTS quarantine_once
    ON orchestra_stream.quarantine (stream, md5(key), commit_lsn);
"""
_TABLES = ("quarantine", "copied_range", "checkpoint")


@dataclass(frozen=True)
class Checkpoint:
    """How far a partition is.

    Everything that commits before ``lsn`` is applied. What commits until ``touched_until`` may be applied in part: a
    batch may end inside a large transaction.
    """

    lsn: int
    touched_until: int


def create(connection: psycopg.Connection) -> None:
    """Make the schema and its tables unless they are there. Needs the right to CREATE in the database."""
    with connection.transaction():
        # Two that find nothing at the same moment would both make it.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('orchestra_stream', 0))")
        connection.execute(_DDL)


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

    It is the session's, so it goes with a mover that dies. Raises LockHeld with the other's process.
    """
    key = ["orchestra_stream " + stream]
    row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", key).fetchone()
    if row is None or not row[0]:
        raise LockHeld(
            f"the stream {stream} is in other hands: {_holder(connection, key)}. Stop that one, or wait until it ends"
        )
    try:
        yield
    finally:
        with suppress(psycopg.OperationalError):  # the lock went with its session
            connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", key)


def prepare_checkpoints(connection: psycopg.Connection, stream: str, partitions: int) -> None:
    """Give every partition a checkpoint: those that are there, or the beginning of the stream.

    With another number of partitions keys fall to others: all begin at the least checkpoint again. Raises DataError
    when nothing is known of the stream.
    """
    with connection.transaction():
        row = connection.execute(
            "SELECT start_lsn FROM orchestra_stream.stream WHERE name = %s FOR UPDATE", [stream]
        ).fetchone()
        if row is None:
            raise DataError(f"the target knows no stream {stream}: make the initial copy first")
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
            {"stream": stream, "start": row[0], "partitions": partitions},
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
        "SELECT lsn::text, touched_until::text FROM orchestra_stream.checkpoint "
        "WHERE stream = %s AND partition = %s FOR UPDATE",
        [stream, partition],
    ).fetchone()
    if row is None:
        raise DataError(f"the stream {stream} has no checkpoint of partition {partition}: prepare its checkpoints")
    return Checkpoint(lsn_number(row[0]), lsn_number(row[1]))


def swap_checkpoint(
    connection: psycopg.Connection, stream: str, partition: int, expected: int, new: Checkpoint
) -> psycopg.Cursor:
    """Move a checkpoint on from where it is expected to be. No row is changed when it is somewhere else."""
    return connection.execute(
        "UPDATE orchestra_stream.checkpoint SET lsn = %s::pg_lsn, touched_until = %s::pg_lsn, applied_at = now() "
        "WHERE stream = %s AND partition = %s AND lsn = %s::pg_lsn",
        [lsn_text(new.lsn), lsn_text(new.touched_until), stream, partition, lsn_text(expected)],
        prepare=True,
    )


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
