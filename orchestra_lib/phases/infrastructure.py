"""The steps of runbook 01: know, plan, apply and read back the project, its network, identities and observability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import plotly.graph_objects as go

from orchestra_lib.blueprint import infrastructure, workflow
from orchestra_lib.checks import checks
from orchestra_lib.cloud.apply import Done, apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.plan import CloudPlan, make_plan
from orchestra_lib.cloud.posture import posture
from orchestra_lib.cloud.recovery import recover
from orchestra_lib.cloud.target import connect
from orchestra_lib.display import Progress, Table, evidence_table
from orchestra_lib.display.boxes import Box, text_box
from orchestra_lib.display.timeline import Bar, timeline_figure
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.paths import journal_path
from orchestra_lib.plan import Plan, Verb
from orchestra_lib.runbook import Runbook

PHASE = "01"


class InfrastructurePhase:
    """One run of the infrastructure phase. Methods are called in the order of the runbook's cells, again if need be."""

    def __init__(self, run: Runbook) -> None:
        settings = run.settings
        if settings.project is None or settings.organization is None:
            raise ParameterError(f"environment {settings.environment.name} names no project to build in")
        self._run, self._settings = run, settings
        target = connect(settings)
        local = target.kind == "local"
        self._client = Client(target)
        self._journal = Journal(journal_path(settings.environment.name, PHASE, local=local))
        self._resources = infrastructure(settings)
        self._place = Place(
            settings.project.id,
            settings.organization.id,
            settings.billing.account if settings.billing else None,
            Source.REHEARSED if local else Source.OBSERVED,
        )
        self._plan: CloudPlan | None = None
        self._done: tuple[Done, ...] = ()
        self._recover()

    def checks(self) -> tuple[Evidence, ...]:
        """Identity, billing, permissions, quotas and organisation policies against what the plan wants."""
        with self._run.step("checks"):
            self._plan = self._read_plan()
            return checks(self._client, self._place, self._plan)

    def plan(self) -> Plan:
        """The live state against the blueprint."""
        with self._run.step("plan"):
            self._plan = self._read_plan()
        return self._plan.as_plan()

    def apply(self) -> Table:
        """Carry out the plan; each change is journalled before it is sent and read back before it counts."""
        plan, progress = self._shown_plan(), Progress("apply", "changes")
        with self._run.step("apply"):
            self._done = apply(
                self._client,
                plan,
                self._journal,
                self._run.record.run_id,
                lambda done, total, _: progress(done, total),
            )
        counted = Counter("adopted" if one.adopted else f"{one.verb}d" for one in self._done)
        counted["kept"] = sum(step.verb is Verb.KEEP for step in plan.steps)
        return Table(("changes", "number"), sorted(counted.items()), "What was done")

    def figure(self) -> go.Figure:
        """When each change ran: what waited for what."""
        bars = [Bar(one.name, one.verb.value, one.started_seconds, one.seconds) for one in self._done]
        return timeline_figure(bars, f"environment {self._settings.environment.name}, project {self._place.project}")

    def verify(self) -> Table:
        """Read everything back: a second plan has to be empty, and the project has to be closed as it should be."""
        with self._run.step("read back"):
            again = self._read_plan()
            differing = [step for step in again.steps if step.verb is not Verb.KEEP]
            rows = (
                Evidence(
                    "changes that a second plan would make",
                    self._place.source,
                    len(differing),
                    "changes",
                    Bound("==", 0),
                    note="; ".join(f"{step.key}: {step.as_change().detail}" for step in differing[:3]),
                ),
                Evidence(
                    "resources read back as they were wanted",
                    self._place.source,
                    len(again.steps) - len(differing),
                    "resources",
                    Bound("==", len(self._resources)),
                ),
                Evidence(
                    "changes in the journal without an end",
                    Source.MEASURED,
                    len(self._journal.open_changes()),
                    "changes",
                    Bound("==", 0),
                ),
                *posture(self._client, self._place, self._resources),
            )
        return self._show(rows, "Read back")

    def workflow(self) -> Box:
        """The GitHub workflow that deploys with this project's identity federation and without any key."""
        number = self._read_plan().project_number()
        return text_box(workflow(self._settings, number))

    def _recover(self) -> None:
        with self._run.step("recover"):
            for change in recover(self._client, self._journal):
                self._run.note(f"an earlier run was cut off: {change.verb} {change.wanted.key} ended as {change.event}")

    def _read_plan(self) -> CloudPlan:
        may_destroy = self._settings.run.may_destroy
        return make_plan(self._client, self._resources, self._journal.applied(), may_destroy)

    def _shown_plan(self) -> CloudPlan:
        if self._plan is None:
            raise GateFailed("there is no plan yet: run the cell that makes one first")
        return self._plan

    def _show(self, rows: Sequence[Evidence], caption: str) -> Table:
        self._run.add(*rows)
        return evidence_table(rows, caption)
