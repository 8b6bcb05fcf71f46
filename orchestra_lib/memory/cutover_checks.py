"""What has to hold before a cutover may begin: nothing of it is found out while nobody may write."""

from __future__ import annotations

import psycopg

from orchestra_lib.database import connect
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory.sides import Direction
from orchestra_lib.memory.stream_status import StreamStatus
from orchestra_lib.memory.writers import writer_checks


def cutover_checks(direction: Direction, status: StreamStatus, lag_seconds: float) -> tuple[Evidence, ...]:
    """The checks, in the order in which one would put things right. Raises TargetUnreachable."""
    here, there = direction.here, direction.there
    with connect(here.address, role=here.role) as from_here, connect(there.address, role=there.role) as to_there:
        return (
            *_stream_checks(status, lag_seconds),
            _quarantine(to_there, direction.stream.name),
            *writer_checks(from_here, here.table.table, here.writers, here.role),
            *writer_checks(to_there, there.table.table, there.writers, there.role),
            *_way_back(direction, to_there),
        )


def _stream_checks(status: StreamStatus, lag_seconds: float) -> tuple[Evidence, ...]:
    told = status.trouble or status.sentence()
    return (
        yes_or_no("the stream runs, its breaker closed", Source.OBSERVED, _runs(status), note=told),
        Evidence(
            "how far the stream is behind", Source.MEASURED, round(status.lag_seconds, 3), "s", Bound("<=", lag_seconds)
        ),
    )


def _runs(status: StreamStatus) -> bool:
    return status.state == "streaming" and status.breaker == "closed"


def _quarantine(there: psycopg.Connection, stream: str) -> Evidence:
    rows = there.execute(
        "SELECT key, error FROM orchestra_stream.quarantine WHERE stream = %s AND resolved_at IS NULL ORDER BY number",
        [stream],
    ).fetchall()
    told = "; ".join(f"{key}: {error.splitlines()[0]}" for key, error in rows[:5])
    if rows:
        told += "; stop the stream, and repair them by `python -m orchestra_lib stream resolve`"
    return Evidence("rows in quarantine", Source.OBSERVED, len(rows), "rows", Bound("==", 0), note=told)


def _way_back(direction: Direction, there: psycopg.Connection) -> tuple[Evidence, ...]:
    """What the stream back needs: a log that can be read, and a table that holds all that it brings."""
    if direction.back is None:
        return (Evidence("a stream back after the cutover", Source.ASSUMED, "none", note="what is written is one-way"),)
    level = there.execute("SHOW wal_level").fetchone()
    here = direction.here.table
    strange = [ours for ours, theirs in here.columns.items() if ours != theirs]
    lacking = [*here.defaulted, *strange]
    return (
        yes_or_no(
            f"the log of the {direction.there.role} can be streamed back",
            Source.OBSERVED,
            level == ("logical",),
            note=f"wal_level is {level[0] if level else 'unknown'}",
        ),
        Evidence(
            f"columns that the {direction.here.role} could not take back",
            Source.OBSERVED,
            len(lacking),
            "columns",
            Bound("==", 0),
            note=", ".join(lacking),
        ),
    )
