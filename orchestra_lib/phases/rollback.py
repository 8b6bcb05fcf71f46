"""The steps of runbook 99: undo a phase from its journal, with plan, approval and read-back like any other."""

from __future__ import annotations

from typing import Protocol

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
from orchestra_lib.phases import memory_release, vector_tuning
from orchestra_lib.phases.index_return import IndexReturn
from orchestra_lib.plan import Change, Plan
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings import Settings


class _Release(Protocol):
    """What a phase has left beside resources of Google Cloud; taken back as a whole or not at all."""

    @property
    def journalled(self) -> int: ...
    def check(self) -> Evidence: ...
    def changes(self) -> tuple[Change, ...]: ...
    def apply(self) -> int: ...
    def evidence(self) -> Evidence: ...


def _releases(settings: Settings, phase: str) -> tuple[_Release, ...]:
    if phase == memory_release.PHASE:
        # AlloyDB goes with its index; a database of one's own stays.
        own = (IndexReturn(settings, phase),) if settings.memory.target.dsn else ()
        return (*own, memory_release.SourceRelease(settings))
    return (IndexReturn(settings, phase),) if phase == vector_tuning.PHASE else ()


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
        whole = self._wanted.since_run is None
        self._releases = _releases(run.settings, self._wanted.phase) if whole else ()
        self._plan: CloudPlan | None = None
        with run.step("recover"):
            recover(self._client, self._journal)

    def checks(self) -> tuple[Evidence, ...]:
        """What the journal holds: a phase without a journal has nothing that could be undone."""
        changes = self._journal.changes
        known = self._wanted.since_run is None or any(one.run_id == self._wanted.since_run for one in changes)
        others = sum(release.journalled for release in self._releases)
        return (
            *(release.check() for release in self._releases),
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
        beside = [change for release in self._releases for change in release.changes()]
        return Plan((*beside, *plan.changes), plan.live_state)

    def apply(self) -> Table:
        """Carry out the plan."""
        if self._plan is None:
            raise GateFailed("there is no plan yet: run the cell that makes one first")
        progress = Progress("roll back", "changes")
        with self._run.step("apply"):
            released = sum(release.apply() for release in self._releases)
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
        rows = (
            *(release.evidence() for release in self._releases),
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
