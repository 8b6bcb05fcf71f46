"""The steps of runbook 01: know, plan, apply and read back the project, its network, identities and observability."""

from __future__ import annotations

import plotly.graph_objects as go

from orchestra_lib.blueprint import infrastructure, workflow
from orchestra_lib.cloud.posture import posture
from orchestra_lib.display import Table
from orchestra_lib.display.boxes import Box, text_box
from orchestra_lib.evidence import Evidence
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.plan import Plan
from orchestra_lib.runbook import Runbook

PHASE = "01"


class InfrastructurePhase:
    """One run of the infrastructure phase. Methods are called in the order of the runbook's cells, again if need be."""

    def __init__(self, run: Runbook) -> None:
        self._run = run
        self._work = CloudWork(run, PHASE)
        self._resources = infrastructure(run.settings)
        self._work.want(self._resources)

    def checks(self) -> tuple[Evidence, ...]:
        """Identity, billing, permissions, quotas and organisation policies against what the plan wants."""
        with self._run.step("checks"):
            return self._work.checks(self._work.look())

    def plan(self) -> Plan:
        """The live state against the blueprint."""
        with self._run.step("plan"):
            return self._work.plan()

    def apply(self) -> Table:
        """Carry out the plan."""
        return self._work.apply()

    def figure(self) -> go.Figure:
        """When each change ran: what waited for what."""
        return self._work.figure()

    def verify(self) -> Table:
        """Read everything back: a second plan has to be empty, and the project has to be closed as it should be."""
        with self._run.step("read back"):
            rows = (*self._work.read_back(), *posture(self._work.client, self._work.place, self._resources))
        return self._work.show(rows, "Read back")

    def workflow(self) -> Box:
        """The GitHub workflow that deploys with this project's identity federation and without any key."""
        return text_box(workflow(self._run.settings, self._work.look().project_number()))
