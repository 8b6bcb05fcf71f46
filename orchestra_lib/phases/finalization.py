"""The steps of runbook 07: the gates of all phases, the cutover for good, the old system's end, what comes after."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

import plotly.graph_objects as go

from orchestra_lib import audit, stream_process
from orchestra_lib.append_only import whole_lines
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.database import connect
from orchestra_lib.display import Table, evidence_table
from orchestra_lib.display.schedule import schedule_figure
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.memory.cutover_journal import CutoverJournal, Outcome
from orchestra_lib.memory_target import writers
from orchestra_lib.phases.api_release import rollouts
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.phases.finalization_handover import HandOver
from orchestra_lib.phases.finalization_judge import SwitchJudge
from orchestra_lib.phases.finalization_outlook import Outlook
from orchestra_lib.phases.memory_cutover import SOURCE, TARGET, CutoverSteps
from orchestra_lib.phases.memory_load import RehearsalLoad
from orchestra_lib.phases.memory_stores import Stores
from orchestra_lib.phases.memory_stream import StreamSteps
from orchestra_lib.phases.vector_tuning import memory_store
from orchestra_lib.plan import Change, Plan, Verb
from orchestra_lib.rollout.blue_green import redirect
from orchestra_lib.rollout.service import RunService
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings import Settings
from orchestra_lib.validation.gates import evidence_read, gate_evidence, require_standing
from orchestra_lib.validation.retirement import Retirement, retirement
from orchestra_lib.validation.schedule import schedule
from orchestra_lib.validation.sealed import SealedRun, latest_runs

PHASE = "07"
_OTHERS = ("03", "05", "08")
"""Phases that must not run meanwhile: their store, service and index are switched or looked at."""

_WRITES_ON_SECONDS = 1.0
"""How long a rehearsal's writer goes on after the switch, so that something is written on the new side."""


class FinalizationPhase:
    """One finalization. Methods are called in the order of the runbook's cells, again if need be."""

    def __init__(self, run: Runbook) -> None:
        self._run, self._settings = run, run.settings
        for phase in _OTHERS:
            run.also_lock(phase)
        self._work = CloudWork(run, PHASE)
        memory_store(run.settings)  # without one there is nothing to switch to, and it says so
        self._stores = Stores(run)
        self._load = RehearsalLoad(self._stores)
        self._stream = StreamSteps(self._stores, self._load, None)
        self._cutover = CutoverSteps(self._stores, self._load, self._stream)
        self._service = RunService(self._work.client, _service_name(run.settings))
        self._judge = SwitchJudge(self._stores, self._load, self._cutover, self._stream)
        self._cutover.settle()
        self._judge.settle()
        self._judged: tuple[Evidence, ...] = ()
        self._runs: Mapping[str, SealedRun] = latest_runs(self._environment, rehearsal=run.rehearsal)
        self.outlook = Outlook(run, self._work)

    # --- check and plan -----------------------------------------------------------------------------------------------

    def checks(self) -> tuple[Evidence, ...]:
        """The gates of all phases, and what the switch itself needs. One red row, and nothing is switched."""
        with self._run.step("gates"):
            obstacle = self._cutover.obstacle
            return (
                *self._gates(self._runs),
                self._developers(),
                yes_or_no(
                    "no rollout of the API is in its middle",
                    Source.OBSERVED,
                    rollouts(self._settings).unfinished(self._service.name) is None,
                    note="run 05_api: it ends one that was cut off",
                ),
                yes_or_no("the writers can be switched over", Source.OBSERVED, not obstacle, note=obstacle),
                yes_or_no(
                    "what is written after the switch can come back",
                    Source.OBSERVED,
                    self._cutover.can_return,
                    note="by the stream back; without it the old store is left for good",
                ),
            )

    def dual_running(self) -> Table:
        """How the two systems run beside each other: the stream between them, what it keeps, what was put aside."""
        with self._run.step("dual running"):
            rows = [Evidence("the writers write on the", Source.OBSERVED, self._cutover.live), self._between()]
            rows += self._stream.standing()
            rows.append(Evidence("the API's revision that serves", self._work.place.source, self._serving() or "none"))
        return self._work.show(rows, "Both systems, as they run now")

    def plan(self) -> Plan:
        """What the switch changes. The digest is bound to the evidence that the gates have read."""
        there = self._cutover.live == TARGET
        keep_or_update = Verb.KEEP if there else Verb.UPDATE
        secrets = self._settings.secrets
        changes = [
            Change(
                keep_or_update,
                "writers",
                "of the memory",
                "they pause for less than a second",
                self._cutover.live,
                TARGET,
            ),
            Change(
                keep_or_update,
                "rights on the old store",
                ", ".join(self._settings.memory.writers.source or ()),
                "writing is taken from them, and noted for the way back",
            ),
        ]
        if secrets is not None:
            changes.append(
                Change(keep_or_update, "secret", secrets.memory_endpoint, "names the store that the application uses")
            )
        serving = self._serving()
        verb = Verb.KEEP if serving else Verb.UPDATE
        changes.append(Change(verb, "traffic of the API", "all of it", f"to {serving or 'one revision'}", serving))
        evidence = evidence_read(self._runs)
        live: dict[str, object] = {"environment": self._environment, "live": self._cutover.live, "evidence": evidence}
        return Plan(tuple(changes), live)

    # --- apply --------------------------------------------------------------------------------------------------------

    def switch_writers(self) -> Table:
        """Let the writers write on the new store, for good; a rehearsal's own writer judges that nothing is lost.

        Raises GateFailed, before anything is changed, when the evidence is not what the plan was approved on.
        """
        is_to_switch = self._cutover.live == SOURCE
        if is_to_switch:
            # Hours may lie between the checks and the button.
            found = latest_runs(self._environment, rehearsal=self._run.rehearsal)
            require_standing(self._gates(found), evidence_read(found), evidence_read(self._runs), self._run.rehearsal)
        self._work.publish_freeze()
        if is_to_switch:
            self._load.start()
        table = self._cutover.switch_over()
        if self._load.is_running:
            time.sleep(_WRITES_ON_SECONDS)
            self._judged = self._judge.judge()
        if not self._work.is_local:
            self._cutover.hand_stream_over()
        return table

    def judged(self) -> Table:
        """What the rehearsal's writer says of the switch; elsewhere the application's own figures do."""
        if not self._judged:
            row = Evidence("the judge", Source.ASSUMED, "nobody", note="no rehearsal's writer wrote during a switch")
            return self._work.show((row,), "The judge")
        return evidence_table(self._judged, "Every acknowledged write, held against the new store")

    def switch_traffic(self) -> Table:
        """Send all requests to the revision that phase 5 has let take over; nothing where they go there already."""
        with self._run.step("traffic"):
            serving = self._serving()
            seconds = 0.0
            if serving is None:
                newest = max(self._service.shares(), key=lambda share: share.percent).revision
                seconds, serving = redirect(self._service, newest), newest
            live = self._serving()
        note = f"{serving}; switched in {seconds:.2f} s" if seconds else f"{serving}, as phase 5 has left it"
        one = live == serving
        rows = (
            yes_or_no("all traffic of the API goes to one revision", self._work.place.source, one, note=note),
            Evidence(
                "address that users are sent to",
                Source.ASSUMED,
                (self._settings.api and self._settings.api.host) or "api.host is open",
                note="the old one has to point there: its owner's name server says so",
            ),
        )
        return self._work.show(rows, "Traffic")

    # --- what stays ---------------------------------------------------------------------------------------------------

    def retention(self) -> Table:
        """The old system's days: what is kept until when, what has to hold before each step, who does it."""
        found = self._retirement()
        rows = [
            (f"{step.on:%Y-%m-%d}", step.what, step.condition, "; ".join((step.how, *step.commands)))
            for step in found.steps
        ]
        old = self._others_on_the_old_store()
        self._run.add(
            Evidence(
                "day on which the old system may go",
                Source.ASSUMED,
                f"{found.ends:%Y-%m-%d}",
                note=f"{self._settings.finalization.retention_days} days after the cutover",
            ),
            Evidence(
                "other sessions on the old store", Source.OBSERVED, len(old), "sessions", note=", ".join(sorted(old))
            ),
        )
        return Table(("from", "what", "only if", "how"), rows, "The old system: kept, then taken down, by people")

    def hand_over(self) -> Table:
        """Terraform, dashboards, the index of runbooks and the old system's plan, as files beside this record."""
        with self._run.step("hand over"):
            rows = HandOver(self._run, self._work.place, self._runs, self._retirement()).write()
        return self._work.show(rows, "Handed over")

    def timeline(self) -> go.Figure:
        """The strategy's weeks, planned against the ledger."""
        today, first = datetime.now(UTC).date(), self._settings.finalization.first_day
        timeline, windows = self._settings.timeline or (), self._settings.windows
        found = schedule(timeline, windows, audit.entries(), self._environment, first, today)
        return schedule_figure(found, f"environment {self._environment}")

    def read_back(self) -> Table:
        """The journal, the rights, the secret and the traffic once more."""
        with self._run.step("read back"):
            live = CutoverJournal(self._stores.journal("cutover")).live()
            rows = [
                yes_or_no("the writers write on the target", Source.OBSERVED, live == TARGET),
                self._withheld(),
                Evidence(
                    "rows of the rehearsal's writer left on either store",
                    Source.OBSERVED,
                    self._judge.left(),
                    "rows",
                    Bound("==", 0),
                ),
                yes_or_no(
                    "all traffic of the API goes to one revision, read back",
                    self._work.place.source,
                    self._serving() is not None,
                ),
                *self._endpoint(),
            ]
        return self._work.show(rows, "Read back")

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def _environment(self) -> str:
        return self._settings.environment.name

    def _gates(self, runs: Mapping[str, SealedRun]) -> tuple[Evidence, ...]:
        hours, is_switched = self._settings.finalization.evidence_hours, self._cutover.live == TARGET
        return gate_evidence(runs, datetime.now(UTC), hours, self._work.place.source, is_switched=is_switched)

    def _developers(self) -> Evidence:
        """The strategy's second criterion is for people to say: on Google Cloud somebody has to have asked them."""
        claim, said = "the developers agree", self._settings.finalization.developers_agree
        if said:
            return Evidence(claim, Source.ASSUMED, "yes", note=said)
        if self._run.rehearsal:
            return Evidence(claim, Source.ASSUMED, "nobody was asked", note="a rehearsal's developers are made up")
        remedy = "ask them, then -p developers_agree 'who, when, what they said'"
        return Evidence(claim, Source.MISSING, None, "", Bound("==", 1), note=remedy)

    def _between(self) -> Evidence:
        """The stream between the stores, as it stands; a look starts nothing."""
        found, claim = stream_process.running(self._environment), "the stream between the stores"
        if found is None:
            note = "its slot keeps what comes, and the switch waits until it has caught up"
            return Evidence(claim, Source.OBSERVED, "rests", note=note)
        return Evidence(claim, Source.OBSERVED, found.status.state, note=found.status.sentence())

    def _withheld(self) -> Evidence:
        """The old store's writers may not write there any more."""
        roles = list(self._settings.memory.writers.source or ())
        with connect(self._stores.source.address, role=SOURCE) as session:
            rows = session.execute(
                "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) "
                "AND has_table_privilege(rolname, to_regclass(%s), 'INSERT, UPDATE, DELETE')",
                [roles, self._settings.memory.source.table],
            ).fetchall()
        still, new = ", ".join(name for (name,) in rows), writers(self._settings)
        return Evidence(
            "roles that may still write to the old store",
            Source.OBSERVED,
            len(rows),
            "roles",
            Bound("==", 0),
            note=still or f"writing is taken from {', '.join(roles)}; {', '.join(new)} write on the target",
        )

    def _endpoint(self) -> Sequence[Evidence]:
        """What the connection secret names now."""
        named, wanted = self._cutover.endpoint(), self._cutover.endpoint_of(TARGET)
        if named is None:
            return ()
        claim = "the connection secret names the target"
        return (yes_or_no(claim, self._work.place.source, named == wanted, note=named),)

    def _serving(self) -> str | None:
        """The revision that gets everything; None where traffic is divided, or there is no service."""
        try:
            return self._service.serving()
        except GateFailed:
            return None
        except CloudRefused as error:
            if error.is_nothing_yet:
                return None
            raise

    def _others_on_the_old_store(self) -> dict[str, int]:
        """Sessions by role, without our own and the stream's."""
        with connect(self._stores.source.address, role=SOURCE) as session:
            rows = session.execute(
                "SELECT coalesce(usename, 'nobody'), count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND usename <> current_user GROUP BY 1"
            ).fetchall()
        return {str(name): int(count) for name, count in rows}

    def _cutover_day(self) -> date:
        """The day of the last cutover that was done: a run that only hands over anew begins no new retention."""
        path, at = self._stores.journal("cutover"), ""
        for line in whole_lines(path):
            entry = json.loads(line)
            at = entry["at"] if entry.get("outcome") == Outcome.DONE else at
        return datetime.fromisoformat(at).date() if at else datetime.now(UTC).date()

    def _retirement(self) -> Retirement:
        stream, secrets, project = self._settings.memory.stream, self._settings.secrets, self._work.place.project
        return retirement(
            self._cutover_day(),
            self._settings.finalization.retention_days,
            f"{stream.slot}_return",
            f"projects/{project}/secrets/{secrets.source_dsn}" if secrets else "",
            self._environment,
        )


def _service_name(settings: Settings) -> str:
    """The full name of phase 5's service. Raises ParameterError for an environment that has none."""
    if settings.project is None or settings.regions is None or settings.api is None:
        raise ParameterError(f"environment {settings.environment.name} has no sections project, regions and api")
    return f"projects/{settings.project.id}/locations/{settings.regions.primary}/services/{settings.api.service}"
