"""The drills of runbook 03 on AlloyDB itself: a restore to a moment, and the other region."""

from __future__ import annotations

from psycopg import sql

from orchestra_lib import stream_process
from orchestra_lib.database import Address
from orchestra_lib.display import Progress, Table
from orchestra_lib.drills import point_in_time, switchover
from orchestra_lib.drills.clusters import Clusters
from orchestra_lib.drills.journal import DrillJournal
from orchestra_lib.drills.point_in_time import Restorable, point_in_time_drill
from orchestra_lib.drills.switchover import Regions, switchover_drill
from orchestra_lib.evidence import Evidence, Source
from orchestra_lib.move import TARGET_TABLE
from orchestra_lib.phases.memory_stores import Stores

_TABLE = sql.Identifier(TARGET_TABLE)
_RESTORED_SUFFIX = "-drill"


class DrillSteps:
    """Each drill undoes what it did; what a killed one has left is cleared away by the next run.

    While a drill lasts nothing may come to the target: a stream that runs is stopped, and its slot keeps the changes.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores, self._run = stores, stores.run
        self._journal = DrillJournal(stores.journal("drills"))

    def clear(self) -> None:
        """Clear away what a drill of an earlier run has left, if it was cut off; a run that only plans tells of it."""
        if self._stores.cloud is None:
            return
        if self._run.settings.run.mode == "plan":
            for drill in (point_in_time.DRILL, switchover.DRILL):
                if details := self._journal.open(drill):
                    told = ", ".join(f"{what} {name}" for what, name in details.items())
                    self._run.note(f"drill {drill} was cut off ({told}): a run in mode apply clears up after it first")
            return
        clusters = Clusters(self._stores.cloud.client)
        with self._run.step("clear drills"):
            if left := point_in_time.clear(clusters, self._journal):
                self._run.note(f"a restore drill was cut off: its cluster {left} has been deleted")
            if left := switchover.clear(clusters, self._journal):
                self._run.note(f"a switchover drill was cut off: {left} is the primary cluster again")

    def point_in_time(self) -> Table:
        """Write rows, destroy them, restore to the moment between, and count."""
        if not self._stores.memory.drills.point_in_time:
            return self._left_out("restore to a moment", "drills.point_in_time is false")
        if self._stores.cloud is None:
            return self._left_out("restore to a moment", "the target is no AlloyDB")
        stream_process.stop(self._stores.settings.environment.name)
        cluster = _cluster_of(self._stores.primary)
        wanted = Restorable(cluster, self._stores.primary, f"{cluster}{_RESTORED_SUFFIX}", self._address)
        with self._run.step("drill: restore"):
            found = point_in_time_drill(
                Clusters(self._stores.cloud.client), wanted, _TABLE, self._journal, Progress("restore drill", "").say
            )
        return self._stores.show(found.evidence(self._stores.rehearses), "A restore to a moment")

    def switchover(self) -> Table:
        """Let the other region take over and give back; every row is counted each time."""
        if not self._stores.memory.drills.switchover:
            return self._left_out("switchover to the other region", "drills.switchover is false")
        if self._stores.cloud is None:
            return self._left_out("switchover to the other region", "the target is no AlloyDB")
        stream_process.stop(self._stores.settings.environment.name)
        primary, secondary = self._stores.primary, self._stores.secondary
        regions = Regions(_cluster_of(primary), primary, _cluster_of(secondary), secondary, self._address)
        with self._run.step("drill: switchover"):
            found = switchover_drill(
                Clusters(self._stores.cloud.client), regions, _TABLE, self._journal, Progress("switchover", "").say
            )
        return self._stores.show(found.evidence(self._stores.rehearses), "The other region takes over, and gives back")

    def _address(self, instance: str) -> Address:
        # It has just been made, moved or restarted.
        self._stores.forget_instance(instance)
        return self._stores.instance(instance)

    def _left_out(self, drill: str, reason: str) -> Table:
        row = Evidence(f"drill: {drill}", Source.ASSUMED, "not carried out", note=reason)
        return self._stores.show((row,), "Left out")


def _cluster_of(instance: str) -> str:
    return instance.rpartition("/instances/")[0]
