"""One phase that is undone: its journal, and what it has left beside resources of Google Cloud."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from orchestra_lib.cloud.apply import Done, Progress, apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import CloudPlan
from orchestra_lib.cloud.recovery import recover
from orchestra_lib.cloud.rollback import undoing_plan
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.phases.release import Release
from orchestra_lib.plan import Plan, Verb


class Undoing:
    """Opening it finds out what became of the changes of a run that was cut off.

    ``since_run``: only what was changed in that run and after it; of what lies beside the resources then only what
    ``releases`` take back of it.
    """

    def __init__(
        self, client: Client, path: Path, phase: str, releases: Sequence[Release], since_run: str | None = None
    ) -> None:
        self.phase = phase
        self._client, self._since_run, self._releases = client, since_run, tuple(releases)
        self._journal = Journal(path)
        self.plan_of_resources: CloudPlan | None = None
        recover(client, self._journal)

    @property
    def journalled(self) -> int:
        """Changes that the phase's journals know, undone or not."""
        return len(self._journal.changes) + sum(release.journalled for release in self._releases)

    def checks(self) -> tuple[Evidence, ...]:
        """What the journal holds: a phase without a journal has nothing that could be undone."""
        of_the_run = any(one.run_id == self._since_run for one in self._journal.changes)
        known = self._since_run is None or of_the_run or any(release.journalled for release in self._releases)
        return (
            *(release.check() for release in self._releases),
            Evidence(
                f"changes of phase {self.phase} in the journal",
                Source.MEASURED,
                self.journalled if known else None,
                "changes",
                Bound(">", 0),
                note=str(self._journal.path) if known else f"the journal does not know run {self._since_run}",
            ),
        )

    def what_would_go(self) -> frozenset[str]:
        """The keys of the resources that would be deleted, as they are now. Reads only."""
        return frozenset(step.key for step in self._read().steps if step.verb in (Verb.DELETE, Verb.REPLACE))

    def plan(self) -> Plan:
        """What brings back the state before the phase, from the journal and from what is there now."""
        self.plan_of_resources = self._read()
        plan = self.plan_of_resources.as_plan()
        beside = [change for release in self._releases for change in release.changes()]
        return Plan((*beside, *plan.changes), plan.live_state)

    def apply(self, run_id: str, progress: Progress, *, earlier_were_undone: bool) -> tuple[int, tuple[Done, ...]]:
        """Carry out the plan; how much was taken back beside the resources, and what was done with these.

        ``earlier_were_undone``: phases after this one were undone since the plan was made, and may have taken along
        what was planned. Raises GateFailed when something else has changed since.
        """
        plan = self.plan_of_resources
        if plan is None:
            raise GateFailed("there is no plan yet: run the cell that makes one first")
        released = sum(release.apply() for release in self._releases)
        if earlier_were_undone:
            plan = self._planned_again(plan)
        return released, apply(self._client, plan, self._journal, run_id, progress, undoing=True)

    def evidence(self, source: Source, claim: str) -> tuple[Evidence, ...]:
        """What is left: a second rollback has to be empty."""
        left = self._read()
        note = "; ".join(step.key for step in left.steps[:3])
        again = Evidence(claim, source, len(left.steps), "changes", Bound("==", 0), note=note)
        return (*(row for release in self._releases for row in release.evidence()), again)

    def _planned_again(self, shown: CloudPlan) -> CloudPlan:
        again = self._read()
        expected: Collection[tuple[str, str]] = {(step.key, step.verb.value) for step in shown.steps}
        new = [step for step in again.steps if (step.key, step.verb.value) not in expected]
        if new:
            raise GateFailed(
                f"since the plan was shown {new[0].verb} {new[0].key} has become necessary: run the rollback again"
            )
        return again

    def _read(self) -> CloudPlan:
        return undoing_plan(self._client, self._journal, self._since_run)
