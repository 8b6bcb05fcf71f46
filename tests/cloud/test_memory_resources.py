"""The memory's database against a running local Google Cloud: made, changed, kept, and undone as a whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import settings_content
from planes import Plane, settled

from orchestra_lib.blueprint.memory import MemoryPlan, memory
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import CloudPlan, make_plan
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.rollback import drift, rollback_plan
from orchestra_lib.errors import GateFailed
from orchestra_lib.plan import Verb

OPERATOR = "user@example.com"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "03.jsonl")


def wanted(project: str, **values: Any) -> MemoryPlan:
    return memory(settings_content.with_values(project__id=project, **values), OPERATOR)


def founded(plane: Plane, project: str, tmp_path: Path) -> Client:
    client = plane.client()
    apply(client, make_plan(client, wanted(project).foundation), Journal(tmp_path / "01.jsonl"), "run-0")
    return client


def planned(client: Client, plan: MemoryPlan, journal: Journal, may_destroy: tuple[str, ...] = ()) -> CloudPlan:
    return make_plan(client, (*plan.foundation, *plan.resources), journal.applied(), may_destroy)


def verbs(plan: CloudPlan) -> dict[str, Verb]:
    return {step.wanted.id: step.verb for step in plan.steps if step.verb is not Verb.KEEP}


def test_it_is_made_whole_kept_by_a_second_plan_and_undone_to_what_was_before(
    plane: Plane, project: str, tmp_path: Path, journal: Journal
) -> None:
    client, plan = founded(plane, project, tmp_path), wanted(project)
    before = settled(plane, project)
    apply(client, planned(client, plan, journal), journal, "run-1")
    assert verbs(planned(client, plan, journal)) == {}
    assert verbs(drift(client, journal)) == {}, "its own journal alone knows the project's number too"

    data = [one.id for one in plan.resources if one.kind not in ("database user", "secondary database instance")]
    with pytest.raises(GateFailed) as refused:
        rollback_plan(client, journal)
    assert sorted(str(refused.value).rpartition("may_destroy ")[2].split()) == sorted(data)
    undo = rollback_plan(client, journal, may_destroy=data)
    assert {step.verb for step in undo.steps} == {Verb.DELETE}
    assert len(undo.steps) == len(plan.resources)
    apply(client, undo, journal, "run-2", undoing=True)
    assert settled(plane, project) == before
    assert rollback_plan(client, journal).steps == ()
    assert drift(client, journal).steps == ()


def test_it_is_made_together_with_all_that_it_stands_on(plane: Plane, project: str, journal: Journal) -> None:
    client, plan = plane.client(), wanted(project)
    apply(client, planned(client, plan, journal), journal, "run-1")
    assert verbs(planned(client, plan, journal)) == {}


def test_flags_and_windows_change_in_place_and_come_back(
    plane: Plane, project: str, tmp_path: Path, journal: Journal
) -> None:
    client = founded(plane, project, tmp_path)
    apply(client, planned(client, wanted(project), journal), journal, "run-1")
    before = settled(plane, project)
    changed = wanted(
        project,
        memory__alloydb__max_connections=500,
        memory__alloydb__recovery_window_days=7,
        memory__alloydb__administrators=["ada@example.com"],
    )
    plan = planned(client, changed, journal)
    assert verbs(plan) == {
        "orchestra-memory": Verb.UPDATE,
        "orchestra-memory-dr": Verb.UPDATE,
        "orchestra-memory-dr-1": Verb.UPDATE,
        "orchestra-memory-primary": Verb.UPDATE,
        "ada@example.com": Verb.CREATE,
    }
    apply(client, plan, journal, "run-2")
    undo = rollback_plan(client, journal, since_run="run-2")
    apply(client, undo, journal, "run-3", undoing=True)
    assert settled(plane, project) == before


def test_another_version_is_another_cluster_and_stops_the_plan(
    plane: Plane, project: str, tmp_path: Path, journal: Journal
) -> None:
    client = founded(plane, project, tmp_path)
    apply(client, planned(client, wanted(project), journal), journal, "run-1")
    with pytest.raises(GateFailed, match="replace database cluster orchestra-memory"):
        planned(client, wanted(project, memory__alloydb__database_version="POSTGRES_17"), journal)


def test_an_instance_that_goes_with_its_cluster_is_not_deleted_while_the_cluster_stays(
    plane: Plane, project: str, tmp_path: Path, journal: Journal
) -> None:
    client, plan = founded(plane, project, tmp_path), wanted(project)
    others = Journal(tmp_path / "others.jsonl")
    theirs = replace(plan, resources=tuple(one for one in plan.resources if "secondary database i" not in one.kind))
    apply(client, planned(client, theirs, others), others, "run-theirs")
    apply(client, planned(client, plan, journal), journal, "run-1")
    undo = rollback_plan(client, journal)
    assert verbs(undo) == {"orchestra-memory-dr-1": Verb.DELETE}
    with pytest.raises(CloudRefused, match="cannot be deleted by itself: it goes with"):
        apply(client, undo, journal, "run-2", undoing=True)


def test_after_a_switchover_nothing_is_planned_or_undone_until_the_roles_are_exchanged_back(
    plane: Plane, project: str, tmp_path: Path, journal: Journal
) -> None:
    client, plan = founded(plane, project, tmp_path), wanted(project)
    apply(client, planned(client, plan, journal), journal, "run-1")
    home = f"projects/{project}/locations"

    def switch_to(cluster: str) -> None:
        method_id, path = "alloydb.projects.locations.clusters.switchover", f"{home}/{cluster}"
        operation = client.call("alloydb.v1", method_id, f"{path}:switchover", body={})
        client.finish("alloydb.v1", method_id, operation, 60)

    switch_to("us-east1/clusters/orchestra-memory-dr")
    with pytest.raises(GateFailed, match="replace secondary database cluster orchestra-memory-dr"):
        planned(client, plan, journal)
    data = ("orchestra-memory", "orchestra-memory-primary", "orchestra-memory-dr")
    with pytest.raises(CloudRefused, match="has the secondary cluster"):
        apply(client, rollback_plan(client, journal, may_destroy=data), journal, "run-2", undoing=True)
    switch_to("us-central1/clusters/orchestra-memory")
    apply(client, planned(client, plan, journal), journal, "run-3")
    assert verbs(planned(client, plan, journal)) == {}
