"""The drill of a restore to a moment: rows are written, the moment is noted, they are destroyed, and brought back.

A restore on AlloyDB is always a new cluster, so nothing of the live one is touched but the drill's own table. The whole
memory table is compared too: it has to be in the restored cluster as it was at the moment.
https://cloud.google.com/alloydb/docs/backup/restore
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.drills.clusters import Clusters
from orchestra_lib.drills.journal import DrillJournal
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory.checksum import Checksum
from orchestra_lib.memory.copy import checksum, target_rows
from orchestra_lib.memory.ranges import KeyRange

DRILL = "point in time"
MARKERS = 200
_TABLE = sql.Identifier("orchestra_drill")
_EVERYTHING = KeyRange(1, None, None)
# The moment lies between the rows that have to come back and those that must not, and clocks are read in microseconds.
_MARGIN_SECONDS = 0.05


@dataclass(frozen=True)
class PointInTimeDrill:
    """What came back. ``missing``, ``extra`` and ``changed`` count marker rows; times are seconds."""

    moment: datetime
    markers: int
    missing: int
    extra: int
    changed: int
    table_before: Checksum
    table_restored: Checksum
    restore_seconds: float

    def evidence(self, source: Source) -> tuple[Evidence, ...]:
        """The claims of an exact restore; the time is ``source``'s, the rows are MEASURED."""
        none, note = Bound("==", 0), f"of {self.markers} marker rows, restored to {self.moment.isoformat()}"
        same = self.table_restored == self.table_before
        rows = f"{self.table_restored.rows:,} rows restored, {self.table_before.rows:,} at the moment"
        return (
            Evidence("marker rows that a restore lost", Source.MEASURED, self.missing, "rows", none, note=note),
            Evidence("marker rows written after the moment that came back", Source.MEASURED, self.extra, "rows", none),
            Evidence("marker rows that came back changed", Source.MEASURED, self.changed, "rows", none),
            Evidence(
                "the memory table restored as it was",
                Source.MEASURED,
                int(same),
                "",
                Bound("==", 1),
                note=f"{rows}; checksums {'agree' if same else 'differ'}",
            ),
            Evidence("time from the request to the restored rows", source, round(self.restore_seconds, 1), "s"),
        )


@dataclass(frozen=True)
class Restorable:
    """Paths of the live cluster, its instance and the cluster that the drill makes; how to reach an instance."""

    cluster: str
    instance: str
    restored: str
    address: Callable[[str], Address]


def point_in_time_drill(
    clusters: Clusters, wanted: Restorable, table: sql.Identifier, journal: DrillJournal, say: Callable[[str], None]
) -> PointInTimeDrill:
    """Write, destroy, restore, compare, and delete the restored cluster again.

    Nothing else may write to ``table`` meanwhile. Raises GateFailed before anything is written when there is a cluster
    of that name already; CloudRefused, TargetUnreachable. What was made is deleted all the same, and :func:`clear`
    deletes what a killed drill has left.
    """
    clear(clusters, journal)
    if clusters.get(wanted.restored) is not None:
        raise GateFailed(
            f"{wanted.restored} is there already, and no drill in the journal has made it: look what it is, and delete "
            "it if nobody needs it"
        )
    with connect(wanted.address(wanted.instance), role="target") as live:
        say("writing marker rows")
        moment, before = _write_and_destroy(live, table)
    journal.begin(DRILL, {"cluster": wanted.restored})
    try:
        say("restoring to a moment before they were destroyed")
        started = time.monotonic()
        instance = clusters.restore(wanted.cluster, wanted.instance, wanted.restored, moment)
        with connect(wanted.address(instance), role="restored") as restored:
            seconds = time.monotonic() - started
            say("comparing")
            return _compared(restored, table, moment, before, seconds)
    finally:
        say("deleting the restored cluster")
        clear(clusters, journal)
        with connect(wanted.address(wanted.instance), role="target") as live:
            live.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_TABLE))


def clear(clusters: Clusters, journal: DrillJournal) -> str | None:
    """Delete the cluster that a drill has left; returns its path if one was begun and not ended."""
    left = journal.open(DRILL)
    if left is None:
        return None
    clusters.delete(left["cluster"])
    journal.end(DRILL)
    return left["cluster"]


def _write_and_destroy(live: psycopg.Connection, table: sql.Identifier) -> tuple[datetime, Checksum]:
    """Marker rows, the moment at which they are there, and the memory table's checksum at that moment."""
    live.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_TABLE))
    live.execute(sql.SQL("CREATE TABLE {} (number int PRIMARY KEY, content text NOT NULL)").format(_TABLE))
    _write(live, 0)
    before = checksum(live, target_rows(table), _EVERYTHING)
    time.sleep(_MARGIN_SECONDS)
    row = live.execute("SELECT clock_timestamp()").fetchone()
    time.sleep(_MARGIN_SECONDS)
    live.execute(sql.SQL("DELETE FROM {} WHERE number % 2 = 0").format(_TABLE))
    live.execute(sql.SQL("UPDATE {} SET content = 'overwritten'").format(_TABLE))
    _write(live, MARKERS)
    if row is None:
        raise psycopg.DataError("the server told no time")
    return row[0], before


def _write(live: psycopg.Connection, first: int) -> None:
    statement = sql.SQL("INSERT INTO {} SELECT n, {} FROM generate_series(%s::int, %s::int) AS n").format(
        _TABLE, _content()
    )
    live.execute(statement, [first, first + MARKERS - 1])


def _content() -> sql.SQL:
    return sql.SQL("md5(n::text)")


def _compared(
    restored: psycopg.Connection, table: sql.Identifier, moment: datetime, before: Checksum, seconds: float
) -> PointInTimeDrill:
    statement = sql.SQL(
        "SELECT count(*) FILTER (WHERE n IS NOT NULL AND marker.number IS NULL), "
        "count(*) FILTER (WHERE n IS NULL), "
        "count(*) FILTER (WHERE n IS NOT NULL AND marker.content <> {content}) "
        "FROM generate_series(0, %s::int - 1) AS n FULL JOIN {table} AS marker ON marker.number = n"
    ).format(table=_TABLE, content=_content())
    missing, extra, changed = restored.execute(statement, [MARKERS]).fetchone() or (MARKERS, 0, 0)
    found = checksum(restored, target_rows(table), _EVERYTHING)
    return PointInTimeDrill(moment, MARKERS, missing, extra, changed, before, found, seconds)
