"""The steps of runbook 99: undo a phase from its journal, with plan, approval and read-back like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import CloudPlan
from orchestra_lib.cloud.recovery import recover
from orchestra_lib.cloud.rollback import rollback_plan
from orchestra_lib.cloud.target import connect
from orchestra_lib.display import Progress, Table, evidence_table
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.paths import journal_path
from orchestra_lib.phases import index_return, memory_release
from orchestra_lib.plan import Plan
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings import Settings

# What a phase has left beside resources of Google Cloud; taken back as a whole or not at all.
_RELEASES: Mapping[str, Callable[[Settings], memory_release.SourceRelease | index_return.IndexReturn]] = {
    memory_release.PHASE: memory_release.SourceRelease,
    index_return.PHASE: index_return.IndexReturn,
}


class RollbackPhase:
    """One rollback. Methods are called in the order of the runbook's cells, again if need be."""

    def __init__(self, run: Runbook) -> None:
        self._run, self._wanted = run, run.settings.rollback
        if self._wanted.phase is None:
            raise ParameterError("no phase was named that is to be undone: give it as phase, such as 01")
        environment = run.settings.environment
        run.also_lock(self._wanted.phase)
        target = connect(run.settings)
        self._source = Source.REHEARSED if target.kind == "local" else Source.OBSERVED
        self._client = Client(target)
        self._path = journal_path(environment.name, self._wanted.phase, local=target.kind == "local")
        self._journal = Journal(self._path)
        release = _RELEASES.get(self._wanted.phase) if self._wanted.since_run is None else None
        self._release = release(run.settings) if release else None
        self._plan: CloudPlan | None = None
        with run.step("recover"):
            recover(self._client, self._journal)

    def checks(self) -> tuple[Evidence, ...]:
        """What the journal holds: a phase without a journal has nothing that could be undone."""
        changes = self._journal.changes
        known = self._wanted.since_run is None or any(one.run_id == self._wanted.since_run for one in changes)
        released = () if self._release is None else (self._release.check(),)
        others = 0 if self._release is None else self._release.journalled
        return (
            *released,
            Evidence(
                f"changes of phase {self._wanted.phase} in the journal",
                Source.MEASURED,
                len(changes) + others if known else None,
                "changes",
                Bound(">", 0),
                note=str(self._path) if known else f"the journal does not know run {self._wanted.since_run}",
            ),
        )

    def plan(self) -> Plan:
        """What brings back the state before."""
        with self._run.step("plan"):
            self._plan = self._read_plan()
            plan = self._plan.as_plan()
        return plan if self._release is None else Plan((*self._release.changes(), *plan.changes), plan.live_state)

    def apply(self) -> Table:
        """Carry out the plan."""
        if self._plan is None:
            raise GateFailed("there is no plan yet: run the cell that makes one first")
        progress = Progress("roll back", "changes")
        with self._run.step("apply"):
            released = self._release.apply() if self._release else 0
            done = apply(
                self._client,
                self._plan,
                self._journal,
                self._run.record.run_id,
                lambda count, total, _: progress(count, total),
                undoing=True,
            )
        rows = [(one.verb.value, one.name, f"{one.seconds:.1f} s") for one in done]
        return Table(("action", "resource", "took"), rows, f"{released + len(done)} changes undone")

    def verify(self) -> Table:
        """A second rollback has to be empty."""
        with self._run.step("read back"):
            left = self._read_plan()
        released = () if self._release is None else (self._release.evidence(),)
        rows = (
            *released,
            Evidence(
                "changes that a second rollback would make",
                self._source,
                len(left.steps),
                "changes",
                Bound("==", 0),
                note="; ".join(step.key for step in left.steps[:3]),
            ),
        )
        self._run.add(*rows)
        return evidence_table(rows, "Read back")

    def _read_plan(self) -> CloudPlan:
        may_destroy = self._run.settings.run.may_destroy
        return rollback_plan(self._client, self._journal, self._wanted.since_run, may_destroy)
