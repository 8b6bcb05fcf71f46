"""Today's store: reachable, readable, of the right dimension, and ready to stream its changes."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Source
from orchestra_lib.memory.source import readable, source_table
from orchestra_lib.preflight.check import Check, judged, none_of, noted, warned
from orchestra_lib.settings.memory import Memory

AREA = "today's store"
_SAMPLE_ROWS = 1_000
# Bundled pgvector of AlloyDB's documentation, and the first with parallel builds of what we build.
_OLDEST_PGVECTOR = (0, 5, 0)


def source_checks(address: Address, memory: Memory, *, is_rehearsal: bool) -> Iterator[Check]:
    """What can be read of the source in moments. Raises TargetUnreachable when it cannot be reached."""
    with connect(address, role="source") as connection:
        yield judged(AREA, f"{AREA} can be reached", Source.OBSERVED, True, f"as {connection.info.user}")
        yield from _extension(connection, is_rehearsal)
        yield from _table(connection, memory, is_rehearsal)
        yield from _streaming(connection)


def _extension(connection: psycopg.Connection, is_rehearsal: bool) -> Iterator[Check]:
    row = connection.execute(
        "SELECT installed_version, default_version FROM pg_available_extensions WHERE name = 'vector'"
    ).fetchone()
    version = (row[0] or (row[1] if is_rehearsal else None)) if row else None
    claim = f"pgvector of {AREA} is {'.'.join(map(str, _OLDEST_PGVECTOR))} or newer"
    if version is None:
        yield judged(AREA, claim, Source.OBSERVED, False, "CREATE EXTENSION vector, or name the database that has it")
        return
    new_enough = tuple(map(int, version.split("."))) >= _OLDEST_PGVECTOR
    yield judged(
        AREA, claim, Source.OBSERVED, new_enough, version + ("" if new_enough else ": ALTER EXTENSION vector UPDATE")
    )


def _table(connection: psycopg.Connection, memory: Memory, is_rehearsal: bool) -> Iterator[Check]:
    name = memory.source.table
    if is_rehearsal and not _is_there(connection, name):
        yield noted(
            AREA, f"the table {name}", Source.OBSERVED, "not there", note="the rehearsal's own: phase 3 makes it"
        )
        return
    try:
        source = source_table(connection, name, memory.source.columns)
        with readable(name):
            statement = sql.SQL(
                "SELECT vector_dims(embedding), count(*) FROM (SELECT * FROM ({select}) AS rows "
                "WHERE embedding IS NOT NULL LIMIT {limit}) AS sample GROUP BY 1 ORDER BY 1"
            ).format(select=source.select, limit=sql.Literal(_SAMPLE_ROWS))
            dimensions: dict[int, int] = dict(connection.execute(statement).fetchall())
    except (DataError, psycopg.Error) as error:
        yield judged(AREA, f"the table {name} can be read", Source.OBSERVED, False, " ".join(str(error).split()))
        return
    yield judged(AREA, f"the table {name} can be read", Source.OBSERVED, True)
    wrong = [f"{rows:,} of {size}" for size, rows in dimensions.items() if size != memory.dimension]
    remedy = "embed them again, or set memory.dimension: vectors of two dimensions cannot be compared" if wrong else ""
    yield none_of(
        AREA,
        f"dimensions other than {memory.dimension} among the first {_SAMPLE_ROWS:,} rows",
        Source.OBSERVED,
        wrong,
        remedy,
    )


def _is_there(connection: psycopg.Connection, name: str) -> bool:
    identifier = sql.Identifier(*name.split(".")).as_string(connection)
    return connection.execute("SELECT to_regclass(%s)", [identifier]).fetchone() != (None,)


def _streaming(connection: psycopg.Connection) -> Iterator[Check]:
    """What the stream of changes wants. The bulk copy does without, so it only warns."""
    row = connection.execute(
        "SELECT current_setting('wal_level'), current_setting('max_replication_slots')::int "
        "- (SELECT count(*) FROM pg_replication_slots), (SELECT rolsuper OR rolreplication FROM pg_roles "
        "WHERE rolname = current_user)"
    ).fetchone()
    if row is None:
        raise DataError("the source answers nothing about its own settings")
    wal_level, free_slots, may_replicate = row
    for holds, claim, note in (
        (
            wal_level == "logical",
            f"wal_level of {AREA} is logical",
            f"it is {wal_level}: set it and restart the server",
        ),
        (
            free_slots > 0,
            f"a replication slot of {AREA} is free",
            "drop one that nobody reads, or raise max_replication_slots",
        ),
        (
            may_replicate,
            f"our role may replicate from {AREA}",
            "ALTER ROLE ... REPLICATION, or the provider's own role for it",
        ),
    ):
        if holds:
            yield judged(AREA, claim, Source.OBSERVED, True)
        else:
            yield warned(AREA, claim, Source.OBSERVED, f"{note}; without it changes cannot be streamed, only copied")
