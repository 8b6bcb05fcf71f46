"""The steps of runbook 02: know, plan, apply, build the image, time the starts, read back who may use what."""

from __future__ import annotations

from datetime import UTC, datetime

import plotly.graph_objects as go

from orchestra_lib.blueprint.workstations import (
    BOOST,
    Desk,
    Restoration,
    WorkstationPlan,
    asked_restoration,
    image,
    workstations,
)
from orchestra_lib.cloud.home_disks import disk_path, home_disk
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.display import Progress, Table
from orchestra_lib.drills.journal import DrillJournal
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.evidence import Evidence, Source, yes_or_no
from orchestra_lib.paths import move_journal_path
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.plan import Change, Plan, Verb
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings.workstations import Machine, workstation_id
from orchestra_lib.workstations import image as images
from orchestra_lib.workstations.checks import capacity_checks
from orchestra_lib.workstations.readback import endpoint_reading, read_back, restored_home
from orchestra_lib.workstations.report import pool_evidence, start_evidence
from orchestra_lib.workstations.starts import STOPPED, Starts, answers_by_https, state_of, stop, time_starts

PHASE = "02"
_STARTS = "starts"


class WorkstationsPhase:
    """One run of the workstations phase. Methods are called in the order of the runbook's cells, again if need be."""

    def __init__(self, run: Runbook) -> None:
        settings = run.settings
        if not (settings.regions and settings.workstations):
            raise ParameterError(f"environment {settings.environment.name} has no sections regions and workstations")
        self._run, self._settings, self._section = run, settings, settings.workstations
        self._work = CloudWork(run, PHASE)
        self._client, self._place = self._work.client, self._work.place
        self._region = settings.regions.primary
        self._wanted = self._what_is_wanted()
        self._work.want(self._wanted.resources, self._wanted.foundation)
        self._found_running: tuple[str, ...] = ()
        name, local = settings.environment.name, self._work.is_local
        self._started = DrillJournal(move_journal_path(name, _STARTS, local=local))

    def checks(self) -> tuple[Evidence, ...]:
        """Phase 1, permissions, quotas, policies, and whether the zones have the machines."""
        with self._run.step("checks"):
            whole = self._work.look()
            rows = [*self._work.checks(whole)]
            if not self._work.lacks_foundation(whole):
                rows += capacity_checks(
                    self._client, self._place, self._region, self._section, len(self._wanted.desks), whole
                )
            rows.append(self._image_reading())
        return tuple(rows)

    def plan(self) -> Plan:
        """The live state against the blueprint, and the image if it has to be built."""
        with self._run.step("plan"):
            plan, change = self._work.plan(), self._image_change()
        return Plan((change, *plan.changes), {**plan.live_state, "image": change.verb.value}) if change else plan

    def apply(self) -> Table:
        """Carry out the plan."""
        return self._work.apply()

    def figure(self) -> go.Figure:
        """When each change ran: the cluster is what everything waits for."""
        return self._work.figure()

    def build_image(self) -> Table:
        """Build the image if the settings name a tag that is not in the registry; a tag that is there never moves."""
        with self._run.step("image"):
            if self._image_change():
                images.build(self._client, self._settings)
            row = self._image_reading()
            if self._section.image.tag and not self._work.is_local:
                built = images.is_built(self._client, self._settings)
                row = yes_or_no("the workstations' image is in the registry", self._place.source, built, note=row.note)
        return self._work.show((row,), "The image")

    def measure(self) -> Table:
        """Time starts of a workstation that is stopped, on each of the two machines; it is stopped again."""
        measured = self.timed()
        source = Source.REHEARSED if self._work.is_local else Source.MEASURED
        rows = [
            *start_evidence(measured, self._settings, source),
            *pool_evidence(self._settings, datetime.now(UTC).date()),
        ]
        names = [starts.workstation.rsplit("/", 1)[1] for _, _, starts in measured[:1]]
        count = self._section.measured_starts
        what = f"{count} starts of {names[0]} on each machine" if names else "Nobody has a workstation"
        return self._work.show(rows, what)

    def timed(self) -> list[tuple[str, str, Starts]]:
        """Time the starts: name of the machine, its type, its starts; none where nobody has a workstation."""
        self._stop_what_was_left()
        desk, count = self._free_desk(), self._section.measured_starts
        measured: list[tuple[str, str, Starts]] = []
        if desk:
            self._started.begin(_STARTS, {"workstation": desk})
        for name, boost, machine in self._machines if desk else ():
            progress = Progress(f"start the {name} machine", "starts")

            def say(done: int, shown: Progress = progress) -> None:
                shown(done, count)

            with self._run.step(f"starts, {name}"):
                found = time_starts(self._client, str(desk), boost, count, self._probe, say)
            cards = f", {machine.accelerator_count} {machine.accelerator_type}" if machine.accelerator_type else ""
            measured.append((name, f"{machine.machine_type}{cards}", found))
        if desk:
            self._started.end(_STARTS)
        return measured

    def verify(self) -> Table:
        """Read everything back: a second plan is empty, machines are closed, homes kept, desks their owners' alone."""
        with self._run.step("read back"):
            rows = [
                *self._work.read_back(),
                *read_back(
                    self._client, self._place, self._region, self._section, self._all_desks, self._found_running
                ),
                *self._restored(),
                endpoint_reading(self._client, self._place, self._cluster),
            ]
        return self._work.show(rows, "Read back")

    @property
    def _cluster(self) -> Resource:
        return next(one for one in self._wanted.resources if one.kind == "workstation cluster")

    @property
    def _all_desks(self) -> tuple[Desk, ...]:
        restored = self._wanted.restored
        return (*self._wanted.desks, *((restored,) if restored else ()))

    def _what_is_wanted(self) -> WorkstationPlan:
        """The blueprint; for a restoration with the disk that its snapshot is of, which only Google knows."""
        asked = asked_restoration(self._settings, datetime.now(UTC).date())
        if asked is None:
            return workstations(self._settings)
        email, snapshot = asked
        with self._run.step("find the home"):
            disk = self._disk_of_snapshot(snapshot) or self._home_of(email, snapshot)
        return workstations(self._settings, Restoration(email, snapshot, disk))

    def _disk_of_snapshot(self, name: str) -> str | None:
        """The path of the disk that a snapshot is of; None when there is no such snapshot."""
        path = f"projects/{self._place.project}/global/snapshots/{name}"
        try:
            found = self._client.call("compute.v1", "compute.snapshots.get", path)
        except CloudRefused as error:
            if error.is_absence:
                return None
            raise
        return str(found["sourceDisk"]).split("/compute/v1/", 1)[-1]

    def _home_of(self, email: str, snapshot: str) -> str:
        regional, workstation = f"projects/{self._place.project}/regions/{self._region}", workstation_id(email)
        disk = home_disk(self._client, regional, workstation)
        if disk is None:
            raise ParameterError(
                f"there is no snapshot {snapshot}, and {workstation} has no home disk that one could be taken of; name "
                "a snapshot that there is: gcloud compute snapshots list"
            )
        return disk_path(disk)

    def _restored(self) -> tuple[Evidence, ...]:
        restored = self._wanted.restored
        if restored is None:
            return ()
        original = next(desk for desk in self._wanted.desks if desk.email == restored.email)
        return restored_home(self._client, self._place, self._region, original, restored)

    @property
    def _machines(self) -> tuple[tuple[str, str | None, Machine], ...]:
        """Name, boost configuration and machine of what can be started."""
        return (("development", None, self._section.development), ("gpu", BOOST, self._section.boost))

    def _stop_what_was_left(self) -> None:
        """Stop the workstation that a run which was cut off had started: nobody works on it, and it costs money."""
        left = self._started.open(_STARTS)
        if left is None:
            return
        desk = left["workstation"]
        if desk in [one.path for one in self._all_desks]:
            stop(self._client, desk)
            self._run.note(f"an earlier run was cut off while it timed starts: {desk.rpartition('/')[2]} was stopped")
        self._started.end(_STARTS)

    def _free_desk(self) -> str | None:
        """A workstation that is stopped, a restored one before others; None when there is none at all.

        Nobody's work is interrupted for a measurement: raises GateFailed when all of them run.
        """
        states = {desk.path: state_of(self._client, desk.path) for desk in self._all_desks[::-1]}
        self._found_running = tuple(path for path, state in states.items() if state != STOPPED)
        free = next((path for path, state in states.items() if state == STOPPED), None)
        if states and free is None:
            told = ", ".join(f"{path.rsplit('/', 1)[1]} is {state}" for path, state in states.items())
            raise GateFailed(f"no workstation is stopped ({told}): starts are timed on one that nobody works on")
        return free

    def _probe(self, path: str, host: str) -> bool:
        """Whether the host answers. Behind the local target there is no host: there RUNNING is all there is."""
        return False if self._work.is_local else answers_by_https(self._client)(path, host)

    def _image_change(self) -> Change | None:
        tag = self._section.image.tag
        if tag is None or self._work.is_local or images.is_built(self._client, self._settings):
            return None
        return Change(Verb.CREATE, "image", f"{self._section.image.name}:{tag}", f"from {images.folder()}")

    def _image_reading(self) -> Evidence:
        tag = self._section.image.tag
        note = "Google's own; name workstations.image.tag and phase 2 builds ours"
        if tag:
            note = "the local target builds no images" if self._work.is_local else f"built from {images.folder()}"
        return Evidence("image of the workstations", Source.ASSUMED, image(self._settings), note=note)
