"""The drill of the other region: it takes over, is counted, and gives back. Row counts on each side, each time.

https://cloud.google.com/alloydb/docs/cross-region-replication/work-with-cross-region-replication
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from psycopg import sql

from orchestra_lib.database import Address, connect
from orchestra_lib.drills.clusters import Clusters
from orchestra_lib.drills.journal import DrillJournal
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory.checksum import Checksum
from orchestra_lib.memory.copy import checksum, target_rows
from orchestra_lib.memory.ranges import KeyRange

DRILL = "switchover"
PRIMARY = "PRIMARY"
_EVERYTHING = KeyRange(1, None, None)
_PROBE = sql.Identifier("orchestra_drill")


@dataclass(frozen=True)
class Leg:
    """One switchover: which region serves now, what its table holds, whether it takes writes, seconds it took."""

    region: str
    table: Checksum
    takes_writes: bool
    seconds: float


@dataclass(frozen=True)
class SwitchoverDrill:
    """There and back: the table before, and after each of the two."""

    before: Checksum
    there: Leg
    back: Leg

    def evidence(self, source: Source) -> tuple[Evidence, ...]:
        """The claims of a switchover that loses nothing; the times are ``source``'s, the rows are MEASURED."""
        rows: list[Evidence] = []
        for leg in (self.there, self.back):
            counted = f"{leg.table.rows:,} rows, {self.before.rows:,} before"
            rows += (
                Evidence(
                    f"rows that {leg.region} has less than before",
                    Source.MEASURED,
                    self.before.rows - leg.table.rows,
                    "rows",
                    Bound("==", 0),
                    note=f"{counted}; checksums {'agree' if leg.table == self.before else 'differ'}",
                ),
                yes_or_no(
                    f"{leg.region} has every row as before and takes writes",
                    Source.MEASURED,
                    leg.takes_writes and leg.table == self.before,
                ),
                Evidence(f"switchover to {leg.region}", source, round(leg.seconds, 1), "s"),
            )
        return tuple(rows)


@dataclass(frozen=True)
class Regions:
    """Paths of both clusters and of their instances, and how to reach an instance."""

    primary: str
    primary_instance: str
    secondary: str
    secondary_instance: str
    address: Callable[[str], Address]


def switchover_drill(
    clusters: Clusters, regions: Regions, table: sql.Identifier, journal: DrillJournal, say: Callable[[str], None]
) -> SwitchoverDrill:
    """Switch over to the secondary region and back. Nothing else may write to ``table`` meanwhile.

    Raises CloudRefused, TargetUnreachable; :func:`clear` switches back what a killed drill has left.
    """
    clear(clusters, journal)
    with connect(regions.address(regions.primary_instance), role="target") as session:
        before = checksum(session, target_rows(table), _EVERYTHING)
    journal.begin(DRILL, {"primary": regions.primary})
    try:
        say("the other region takes over")
        there = _leg(clusters, regions, regions.secondary, regions.secondary_instance, table)
    finally:
        say("the region of before takes over again")
        started = time.monotonic()
        clear(clusters, journal)
    back = _looked_at(regions, regions.primary, regions.primary_instance, table, started)
    return SwitchoverDrill(before, there, back)


def clear(clusters: Clusters, journal: DrillJournal) -> str | None:
    """Switch back what a drill has left; returns the path of the cluster that is primary again."""
    left = journal.open(DRILL)
    if left is None:
        return None
    live = clusters.get(left["primary"])
    if live is not None and live["clusterType"] != PRIMARY:
        clusters.switch_over(left["primary"])
    journal.end(DRILL)
    return left["primary"]


def _leg(clusters: Clusters, regions: Regions, cluster: str, instance: str, table: sql.Identifier) -> Leg:
    started = time.monotonic()
    clusters.switch_over(cluster)
    return _looked_at(regions, cluster, instance, table, started)


def _looked_at(regions: Regions, cluster: str, instance: str, table: sql.Identifier, started: float) -> Leg:
    with connect(regions.address(instance), role=cluster) as session:
        seconds = time.monotonic() - started
        found = checksum(session, target_rows(table), _EVERYTHING)
        row = session.execute("SELECT NOT pg_is_in_recovery()").fetchone()
        if takes_writes := row == (True,):
            session.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_PROBE))
            session.execute(sql.SQL("CREATE TABLE {} (number int)").format(_PROBE))
            session.execute(sql.SQL("DROP TABLE {}").format(_PROBE))
    return Leg(cluster.split("/")[3], found, takes_writes, seconds)
