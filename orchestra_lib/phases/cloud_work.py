"""What every phase that makes resources does alike: find out, plan, apply and read back, in its own journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import plotly.graph_objects as go

from orchestra_lib.blueprint.foundation import presence
from orchestra_lib.checks import checks
from orchestra_lib.cloud import freeze
from orchestra_lib.cloud.apply import Done, apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.plan import CloudPlan, make_plan
from orchestra_lib.cloud.recovery import recover
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.cloud.target import connect
from orchestra_lib.display import Progress, Table, evidence_table
from orchestra_lib.display.timeline import Bar, timeline_figure
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.paths import journal_path
from orchestra_lib.phases.foundation import foundation_check, missing_foundation, rehearsal_check
from orchestra_lib.plan import Plan, Verb
from orchestra_lib.runbook import Runbook

_FIRST_PHASE = "01"


class CloudWork:
    """The resources of one phase in one run. Opened first, told by :meth:`want` what is wanted, then as often as asked.

    Opening finds out what became of the changes of a run that was cut off. Raises ParameterError for an environment
    that names no project, TargetUnreachable when nobody answers.
    """

    def __init__(self, run: Runbook, phase: str) -> None:
        self._run, self._settings, self._phase = run, run.settings, phase
        target = connect(run.settings)
        self.is_local = target.kind == "local"
        self.client = Client(target)
        self.place = Place.of(run.settings, target)
        self.journal = self._journal_of(phase)
        self._resources: tuple[Resource, ...] = ()
        self._foundation: tuple[Resource, ...] = ()
        self._rehearses_foundation = False
        self._plan: CloudPlan | None = None
        self._founding: CloudPlan | None = None
        self._done: tuple[Done, ...] = ()
        with run.step("recover"):
            for change in recover(self.client, self.journal):
                run.note(f"an earlier run was cut off: {change.verb} {change.wanted.key} ended as {change.event}")

    def want(
        self, resources: Sequence[Resource], foundation: Sequence[Resource] = (), *, rehearses_foundation: bool = False
    ) -> None:
        """Say what is wanted, and which resources of phase 1 it stands on, as phase 1 wants them.

        With ``rehearses_foundation`` the local target gets what is missing of them; on Google Cloud it has to be there.
        """
        self._resources, self._foundation = tuple(resources), tuple(foundation)
        self._rehearses_foundation = rehearses_foundation and self.is_local
        self._plan = self._founding = None

    def look(self) -> CloudPlan:
        """Everything as it is now, with what it stands on: that says which services are on, how the project is called.

        Raises GateFailed for data that would be destroyed and that nobody named.
        """
        resources = (*presence(self._foundation), *self._resources)
        return make_plan(self.client, resources, self.journal.applied(), self._settings.run.may_destroy)

    def checks(self, whole: CloudPlan) -> tuple[Evidence, ...]:
        """The foundation, permissions, quotas and policies against everything as :meth:`look` has found it."""
        return (*self._foundation_rows(whole), *checks(self.client, self.place, whole))

    def lacks_foundation(self, whole: CloudPlan) -> bool:
        """Whether something that the phase stands on is not there yet."""
        live = whole.live()
        return any(live[one.key] is None for one in presence(self._foundation))

    def plan(self) -> Plan:
        """The live state against what is wanted; in a rehearsal with what has to be made under it first."""
        self._founding = self._missing_foundation()
        self._plan = self._own(self.look())
        own, founding = self._plan.as_plan(), self._changes_of(self._founding)
        return Plan((*founding.changes, *own.changes), {**founding.live_state, **own.live_state})

    def apply(self) -> Table:
        """Carry out the plan; each change is journalled before it is sent and read back before it counts.

        A feature freeze that is open is published before anything changes; by phase 1, when there is a project.
        """
        if self._plan is None:
            raise GateFailed("there is no plan yet: run the cell that makes one first")
        plan, founded = self._plan, self._founded()
        if self._phase != _FIRST_PHASE:
            self.publish_freeze()
        if founded:
            plan = self._planned_again(plan)  # only now it is known how the project is called
        done = self._carried_out(plan, self.journal)
        if self._phase == _FIRST_PHASE:
            self.publish_freeze()
        began = max((one.started_seconds + one.seconds for one in founded), default=0.0)
        self._done = (*founded, *(replace(one, started_seconds=began + one.started_seconds) for one in done))
        counted = Counter("adopted" if one.adopted else f"{one.verb}d" for one in done)
        counted["kept"] = sum(step.verb is Verb.KEEP for step in plan.steps)
        rows: list[tuple[object, ...]] = [("made under them for the rehearsal", len(founded))] if founded else []
        return Table(("changes", "number"), [*rows, *sorted(counted.items())], "What was done")

    def publish_freeze(self) -> None:
        """Have the project's label tell whether features are frozen now; nothing where no window was ever set."""
        if self._settings.windows:
            record = self._run.record
            told = {"operator": record.operator, "run": record.run_id, "runbook": record.runbook}
            now = datetime.now(UTC)
            self._run.add(*freeze.publish(self.client, self.place, self._settings.windows, now, told))

    @property
    def has_changed(self) -> bool:
        """Whether the last :meth:`apply` changed anything."""
        return bool(self._done)

    def figure(self) -> go.Figure:
        """When each change ran: what waited for what."""
        bars = [Bar(one.name, one.verb.value, one.started_seconds, one.seconds) for one in self._done]
        return timeline_figure(bars, f"environment {self._settings.environment.name}, project {self.place.project}")

    def read_back(self) -> tuple[Evidence, ...]:
        """Everything read again: a second plan has to be empty, and no change may be without an end."""
        again = self._own(self.look())
        differing = [step for step in again.steps if step.verb is not Verb.KEEP]
        note = "; ".join(f"{step.key}: {step.as_change().detail}" for step in differing[:3])
        none, all_ = Bound("==", 0), Bound("==", len(self._resources))
        kept = len(again.steps) - len(differing)
        source, open_ = self.place.source, len(self.journal.open_changes())
        return (
            Evidence("changes that a second plan would make", source, len(differing), "changes", none, note=note),
            Evidence("resources read back as they were wanted", source, kept, "resources", all_),
            Evidence("changes in the journal without an end", Source.MEASURED, open_, "changes", none),
        )

    def show(self, rows: Sequence[Evidence], caption: str) -> Table:
        """Add evidence to the run, and the table of it."""
        self._run.add(*rows)
        return evidence_table(rows, caption)

    def _foundation_rows(self, whole: CloudPlan) -> tuple[Evidence, ...]:
        looked_for = presence(self._foundation)
        if not looked_for:
            return ()
        if self._rehearses_foundation:
            return (rehearsal_check(self.place, looked_for, self._missing_foundation()),)
        applying = self._settings.run.mode == "apply"
        return (foundation_check(self.place, looked_for, whole, applying=applying),)

    def _missing_foundation(self) -> CloudPlan:
        if not self._rehearses_foundation:
            return CloudPlan((), {})
        return missing_foundation(self.client, self._foundation, self._journal_of(_FIRST_PHASE))

    def _changes_of(self, founding: CloudPlan) -> Plan:
        """Of the foundation only what is to be made: what is there is phase 1's to show."""
        return CloudPlan(tuple(one for one in founding.steps if one.verb is not Verb.KEEP), founding.aliases).as_plan()

    def _founded(self) -> tuple[Done, ...]:
        """Make what is missing of the foundation, in the journal of phase 1, which takes it for its own later on."""
        founding = self._founding
        if founding is None or all(step.verb is Verb.KEEP for step in founding.steps):
            return ()
        self._run.also_lock(_FIRST_PHASE)
        done = self._carried_out(founding, self._journal_of(_FIRST_PHASE), "what it stands on")
        self._run.note(
            f"phase 1 was not applied here: {len(done)} resources of it were made for the rehearsal, in its journal: "
            + ", ".join(sorted(one.name for one in done))
        )
        return done

    def _planned_again(self, shown: CloudPlan) -> CloudPlan:
        again = self._own(self.look())
        if again.as_plan().changes != shown.as_plan().changes:
            raise GateFailed("what is wanted has changed since the plan was shown: make a new plan")
        return again

    def _carried_out(self, plan: CloudPlan, journal: Journal, name: str = "apply") -> tuple[Done, ...]:
        progress = Progress(name, "changes")
        with self._run.step(name):
            return apply(
                self.client, plan, journal, self._run.record.run_id, lambda done, total, _: progress(done, total)
            )

    def _own(self, whole: CloudPlan) -> CloudPlan:
        keys = {one.key for one in self._resources}
        return CloudPlan(tuple(step for step in whole.steps if step.key in keys), whole.aliases)

    def _journal_of(self, phase: str) -> Journal:
        return Journal(journal_path(self._settings.environment.name, phase, local=self.is_local))
