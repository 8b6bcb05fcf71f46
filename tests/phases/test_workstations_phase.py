"""The steps of the workstations phase on a real control plane: built, measured, restored, rolled back, and refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import google.oauth2.credentials
import pytest
import settings_content
import yaml
from control_plane import TOKEN, Server, serving

from orchestra_lib import record, runbook, settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.workstations import USER, workstations
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.home_disks import home_disk
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import make_plan
from orchestra_lib.cloud.rollback import rollback_plan
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.evidence import Evidence, Verdict
from orchestra_lib.phases import cloud_work as module
from orchestra_lib.phases.workstations import WorkstationsPhase
from orchestra_lib.plan import Verb
from orchestra_lib.runbook import Runbook
from orchestra_lib.workstations.starts import STOPPED, state_of, stop

pytestmark = pytest.mark.slow

PARAMETERS = settings.root() / "parameters"
PROJECT = "cherry-ai-project"
REGION = f"projects/{PROJECT}/regions/us-central1"
WORKSTATIONS = "workstations.projects.locations.workstationClusters.workstationConfigs.workstations"
RED = (Verdict.FAIL, Verdict.MISSING)

Opened = Callable[..., WorkstationsPhase]


@dataclass
class World:
    """A control plane with phase 1 in it, and the journal that phase 2 keeps there."""

    server: Server
    target: Target

    @property
    def client(self) -> Client:
        return Client(self.target)

    def call(self, verb: str, desk: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A method of a developer's workstation; an operation is waited for."""
        (path,) = [one.path for one in workstations(settings.load("local")).desks if one.id == desk]
        answer = self.client.call("workstations.v1", f"{WORKSTATIONS}.{verb}", f"{path}:{verb}", body=body)
        return self.client.finish("workstations.v1", verb, answer, 60) if "/operations/" in str(answer) else answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("workstations")
    with serving(directory) as server:
        found = World(server, Target("local", server.url, google.oauth2.credentials.Credentials(TOKEN)))
        resources = infrastructure(settings.load("local"))
        apply(found.client, make_plan(found.client, resources), Journal(directory / "01.jsonl"), "run-0")
        yield found


@pytest.fixture
def opened(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens the phase in a home of its own, on the module's control plane; at the end nothing of phase 2 is left."""
    shutil.copytree(PARAMETERS, tmp_path / "parameters")
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(module, "connect", lambda _settings: world.target)
    monkeypatch.setattr("orchestra_lib.cloud.client._SHORTEST_PAUSE_SECONDS", 0.001)  # operations have ended by then
    journals: list[Path] = []

    def phase(document: dict[str, Any] | None = None, **parameters: object) -> WorkstationsPhase:
        if document:
            path = tmp_path / "parameters" / "local.yaml"
            path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **document}))
        made = WorkstationsPhase(Runbook.open("02_workstations", environment="local", **parameters))
        journals.append(made._work.journal.path)
        return made

    yield phase
    world.server.inject()
    for run in tuple(runbook._open_here.values()):
        lock = run._replaced()
        if lock is not None:
            lock.release()
    for path in dict.fromkeys(journals):
        undo(world, path)


def undo(world: World, path: Path) -> None:
    client, journal = world.client, Journal(path)
    made = {change.wanted.id for change in journal.changes}
    plan = rollback_plan(client, journal, may_destroy=made)
    apply(client, plan, journal, "run-undo", undoing=True)


def built(phase: WorkstationsPhase) -> WorkstationsPhase:
    assert red(phase.checks()) == []
    phase.plan()
    phase.apply()
    return phase


def red(rows: Any) -> list[Evidence]:
    return [row for row in rows if row.verdict in RED]


def evidence(phase: WorkstationsPhase) -> dict[str, Evidence]:
    return {row.claim: row for row in phase._run.evidence}


def test_it_is_built_measured_and_read_back_and_a_second_plan_is_empty(world: World, opened: Opened) -> None:
    phase = built(opened())
    phase.build_image()
    phase.measure()
    phase.verify()
    rows = evidence(phase)
    assert red(rows.values()) == []
    starts = [row for claim, row in rows.items() if claim.startswith("start of the")]
    assert [str(row.target) for row in starts] == ["< 180", "< 180"]
    assert {row.verdict for row in starts} == {Verdict.REHEARSED}
    assert all("over 6 starts" in row.note and "nothing about how fast Google Cloud is" in row.note for row in starts)
    assert rows["start of today's development environment, as the strategy states it"].verdict is Verdict.NOTED
    assert rows["price of one gpu machine that stands ready, a month"].verdict is Verdict.NOTED
    started = [one for one in world.server.control.state()["resources"] if "/instances/" in one]
    assert started == []
    again = opened()
    assert again.plan().is_empty


def test_without_phase_1_nothing_is_planned_for_and_a_plan_alone_can_be_made(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, opened: Opened
) -> None:
    with serving(tmp_path_factory.mktemp("empty")) as server:
        monkeypatch.setattr(
            module, "connect", lambda _: Target("local", server.url, google.oauth2.credentials.Credentials(TOKEN))
        )
        (row,) = red(opened().checks())
        assert "run 01_infrastructure first" in row.note
        planning = opened(mode="plan")
        assert red(planning.checks()) == []
        plan = planning.plan()
        assert {change.verb for change in plan.changes} == {Verb.CREATE}
        assert {change.kind for change in plan.changes} >= {"workstation cluster", "workstation"}
        assert "network" not in {change.kind for change in plan.changes}
        assert server.control.state()["writes"] == {}


@pytest.mark.parametrize(
    ("injected", "claim", "words"),
    [
        ({"quotas": [{"metric": "NVIDIA_T4_GPUS", "limit": 1}]}, "quota NVIDIA_T4_GPUS", "ask for 4 in us-central1"),
        ({"quotas": [{"metric": "GPUS_ALL_REGIONS", "limit": 0}]}, "quota GPUS_ALL_REGIONS", "ask for 4"),
        ({"quotas": [{"metric": "N2D_CPUS", "limit": 24}]}, "quota N2D_CPUS", "2 developers at once"),
        ({"quotas": [{"metric": "SSD_TOTAL_GB", "limit": 500}]}, "quota SSD_TOTAL_GB left", "2 home disks of 200 GB"),
        (
            {"missing_permissions": [{"permissions": ["workstations.workstationClusters.create"]}]},
            "permissions that the plan needs",
            "workstationClusters.create",
        ),
    ],
)
def test_what_is_in_the_way_is_found_before_anything_is_changed(
    world: World, opened: Opened, injected: dict[str, Any], claim: str, words: str
) -> None:
    world.server.inject(**injected)
    before = world.server.control.state()["writes"]
    (row,) = red(opened().checks())
    assert row.claim.startswith(claim)
    assert words in row.note
    assert world.server.control.state()["writes"] == before


def test_a_zone_without_the_gpus_is_named(opened: Opened) -> None:
    document = settings_content.content()["workstations"]
    phase = opened({"workstations": {**document, "replica_zones": ["us-central1-a", "us-central1-d"]}})
    (row,) = red(phase.checks())
    assert "us-central1-d has no nvidia-tesla-t4" in row.note


def test_starts_that_google_refuses_are_counted_and_the_others_timed(world: World, opened: Opened) -> None:
    phase = built(opened())
    fault = {"method": f"{WORKSTATIONS}.start", "answer": "operation", "count": 2, "status": "RESOURCE_EXHAUSTED"}
    world.server.inject(faults=[{**fault, "message": "The zone does not have enough resources available."}])
    phase.measure()
    rows = evidence(phase)
    failed = rows["starts of the development machine that failed"]
    assert (failed.value, failed.verdict) == (2, Verdict.FAIL)
    assert "does not have enough resources" in failed.note
    assert rows["starts of the gpu machine that failed"].value == 0
    (median,) = [row for claim, row in rows.items() if claim.startswith("start of the development machine")]
    assert median.value is not None
    assert "over 4 starts" in median.note


def test_nobody_who_works_is_interrupted(world: World, opened: Opened) -> None:
    phase = built(opened())
    for desk in ("ada", "grace"):
        world.call("start", desk, {})
    with pytest.raises(GateFailed, match="no workstation is stopped"):
        phase.measure()
    world.call("stop", "grace", {})
    phase.measure()
    assert world.client.call("workstations.v1", f"{WORKSTATIONS}.get", desk_path("ada"))["state"] == "STATE_RUNNING"
    phase.verify()
    assert red(evidence(phase).values()) == []
    stop(world.client, desk_path("ada"))


def test_a_workstation_that_a_killed_measurement_has_left_running_is_stopped_by_the_next_one(
    world: World, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = built(opened())
    with monkeypatch.context() as killed:
        killed.setattr("orchestra_lib.workstations.starts.stop", lambda *_: None)
        killed.setattr(phase, "_probe", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            phase.measure()
    states = {desk: state_of(world.client, desk_path(desk)) for desk in ("ada", "grace")}
    assert sorted(states.values()) == ["STATE_RUNNING", "STATE_STOPPED"]
    other = next(desk for desk, state in states.items() if state == STOPPED)
    world.call("start", other, {})
    again = opened()
    again.plan()
    again.measure()
    left = next(desk for desk in states if desk != other)
    assert f"an earlier run was cut off while it timed starts: {left} was stopped" in "\n".join(again._run.record.notes)
    assert state_of(world.client, desk_path(left)) == STOPPED
    assert state_of(world.client, desk_path(other)) == "STATE_RUNNING", "somebody works on that one"
    stop(world.client, desk_path(other))


def desk_path(desk: str) -> str:
    return next(one.path for one in workstations(settings.load("local")).desks if one.id == desk)


def test_whoever_else_may_use_a_workstation_is_found(world: World, opened: Opened) -> None:
    phase = built(opened())
    binding = {"role": USER, "members": ["user:ada@example.com", "user:grace@example.com"]}
    world.call("setIamPolicy", "ada", {"policy": {"bindings": [binding]}})
    phase.verify()
    row = evidence(phase)["people who may use a workstation that is not theirs"]
    assert (row.value, row.note) == (1, "user:grace@example.com on ada")
    phase._work._done = ()
    world.call("setIamPolicy", "ada", {"policy": {"bindings": [{**binding, "members": ["user:ada@example.com"]}]}})


def test_a_home_is_restored_beside_the_old_one_and_asking_again_changes_nothing(world: World, opened: Opened) -> None:
    built(opened())
    first = home_disk(world.client, REGION, "ada")
    phase = built(opened(restore="ada", snapshot="before-the-accident"))
    phase.verify()
    rows = evidence(phase)
    assert red(rows.values()) == []
    desk = "restored-before-the-accident"
    assert rows[f"home of {desk}: made from snapshot before-the-accident"].verdict is Verdict.REHEARSED
    assert rows[f"home of {desk}: the snapshot is of"].value == "the present home of ada"
    second = home_disk(world.client, REGION, desk)
    assert first is not None
    assert second is not None
    assert (second["sizeGb"], second["id"] != first["id"]) == (first["sizeGb"], True)
    assert home_disk(world.client, REGION, "ada") == first, "the old home is not touched"
    assert opened(restore="ada", snapshot="before-the-accident").plan().is_empty
    assert opened().plan().is_empty, "a later run leaves the restored workstation alone"


def test_a_restoration_of_nothing_is_refused(world: World, opened: Opened) -> None:
    with pytest.raises(ParameterError, match="restore is 'eve'"):
        opened(restore="eve")


def test_a_changed_configuration_comes_back_and_homes_survive_the_whole_rollback(world: World, opened: Opened) -> None:
    built(opened())
    document = settings_content.content()["workstations"]
    changed = built(opened({"workstations": {**document, "idle_timeout_seconds": 600}}))
    client, journal = world.client, Journal(changed._work.journal.path)
    undoing = rollback_plan(client, journal, since_run=changed._run.record.run_id)
    assert [str(diff) for step in undoing.steps for diff in step.diffs] == ["idleTimeout: 600s → 1800s"]
    apply(client, undoing, journal, "run-back", undoing=True)
    homes = [home_disk(client, REGION, desk) for desk in ("ada", "grace")]
    with pytest.raises(GateFailed, match="may_destroy ada grace"):
        rollback_plan(client, journal)
    undo(world, changed._work.journal.path)
    kept = [home_disk(client, REGION, desk) for desk in ("ada", "grace")]
    assert [one["id"] for one in kept if one] == [one["id"] for one in homes if one]
    assert all(one and not one.get("resourcePolicies") for one in kept)
    assert rollback_plan(client, journal).steps == ()


def test_an_open_freeze_is_told_by_the_projects_label_before_anything_changes(world: World, opened: Opened) -> None:
    today = datetime.now(UTC).date()
    freeze = {"name": "desk-freeze", "purpose": "feature_freeze", "phases": ["02"], "timezone": "UTC"}
    days = {"first_day": str(today - timedelta(days=1)), "last_day": str(today + timedelta(days=1))}
    phase = opened({"windows": [{**freeze, **days}]})
    phase.plan()
    told = "the project's label tells whether features are frozen"
    assert told not in evidence(phase), "a plan changes nothing"
    phase.apply()
    assert evidence(phase)[told].verdict is Verdict.REHEARSED
    project = world.client.call("cloudresourcemanager.v3", "cloudresourcemanager.projects.get", f"projects/{PROJECT}")
    assert project["labels"]["feature-freeze"].startswith("desk-freeze-until-")
    assert project["labels"]["application"] == "ai-orchestra", "the others stay"
    again = make_plan(world.client, infrastructure(settings.load("local")))
    assert [step.key for step in again.steps if step.verb is not Verb.KEEP] == [], "phase 1 takes it for no drift"
