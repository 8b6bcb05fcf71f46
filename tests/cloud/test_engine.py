"""Plan, apply, drift and rollback against a running local Google Cloud."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planes import settled
from stacks import HOLDING_DATA, stack

from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.journal import Event, Journal
from orchestra_lib.cloud.plan import CloudPlan, in_dependency_order, make_plan
from orchestra_lib.cloud.recovery import recover
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.cloud.rollback import drift, rollback_plan
from orchestra_lib.errors import GateFailed, ParameterError, TargetUnreachable
from orchestra_lib.plan import Verb


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


def changes(plan: CloudPlan) -> list[str]:
    return [f"{step.verb} {step.wanted.kind} {step.wanted.id}" for step in plan.steps if step.verb is not Verb.KEEP]


def built(plane: Any, project: str, journal: Journal, run: str = "run-1", **differs: Any) -> CloudPlan:
    """Apply the stack; returns the plan that was applied."""
    client = plane.client()
    plan = make_plan(client, stack(project, **differs), journal.applied())
    apply(client, plan, journal, run)
    return plan


def test_a_second_plan_is_empty(plane: Any, project: str, journal: Journal) -> None:
    first = built(plane, project, journal)
    assert {step.verb for step in first.steps if step.wanted.kind != "billing"} == {Verb.CREATE}
    second = make_plan(plane.client(), stack(project), journal.applied())
    assert changes(second) == []
    assert second.as_plan().is_empty


def test_one_changed_number_is_one_field_of_the_plan(plane: Any, project: str, journal: Journal) -> None:
    built(plane, project, journal)
    plan = make_plan(plane.client(), stack(project, threshold=80.0), journal.applied())
    (step,) = [step for step in plan.steps if step.verb is not Verb.KEEP]
    assert step.verb is Verb.UPDATE
    assert [str(diff) for diff in step.diffs] == ["conditions[0].conditionThreshold.thresholdValue: 100.0 → 80.0"]
    apply(plane.client(), plan, journal, "run-2")
    assert changes(make_plan(plane.client(), stack(project, threshold=80.0), journal.applied())) == []


def test_a_label_that_is_wanted_no_more_is_taken_away_and_others_stay(
    plane: Any, project: str, journal: Journal
) -> None:
    def wanted(**labels: str) -> list[Resource]:
        return [
            replace(one, body={**one.body, "labels": labels}) if one.kind == "secret" else one for one in stack(project)
        ]

    client = plane.client()
    apply(client, make_plan(client, wanted(team="a", tier="b")), journal, "run-1")
    path, query = f"projects/{project}/secrets/dsn", {"updateMask": "labels"}
    theirs = {"labels": {"team": "a", "tier": "b", "theirs": "c"}}
    client.call("secretmanager.v1", "secretmanager.projects.secrets.patch", path, body=theirs, query=query)
    plan = make_plan(client, wanted(team="a"), journal.applied())
    assert [str(diff) for step in plan.steps for diff in step.diffs] == ["labels.tier: b → not set"]
    apply(client, plan, journal, "run-2")
    labels = client.call("secretmanager.v1", "secretmanager.projects.secrets.get", path)["labels"]
    assert labels == {"team": "a", "theirs": "c"}
    assert changes(make_plan(client, wanted(team="a"), journal.applied())) == []


def test_a_rollback_takes_a_label_away_that_an_update_has_added_and_leaves_others(
    plane: Any, project: str, journal: Journal
) -> None:
    def wanted(**labels: str) -> list[Resource]:
        return [
            replace(one, body={**one.body, "labels": labels}) if one.kind == "secret" else one for one in stack(project)
        ]

    client = plane.client()
    apply(client, make_plan(client, wanted(team="a")), journal, "run-1")
    apply(client, make_plan(client, wanted(team="b", tier="b"), journal.applied()), journal, "run-2")
    path, query = f"projects/{project}/secrets/dsn", {"updateMask": "labels"}
    theirs = {"labels": {"team": "b", "tier": "b", "theirs": "c"}}
    client.call("secretmanager.v1", "secretmanager.projects.secrets.patch", path, body=theirs, query=query)
    apply(client, rollback_plan(client, journal, "run-2"), journal, "run-3", undoing=True)
    labels = client.call("secretmanager.v1", "secretmanager.projects.secrets.get", path)["labels"]
    assert labels == {"team": "a", "theirs": "c"}
    assert changes(rollback_plan(client, journal, "run-2")) == []


def test_a_change_behind_the_runbooks_back_is_drift_and_changes_the_digest(
    plane: Any, project: str, journal: Journal
) -> None:
    built(plane, project, journal)
    client = plane.client()
    before = make_plan(client, stack(project, threshold=80.0), journal.applied()).as_plan().digest
    assert changes(drift(client, journal)) == []
    path = f"projects/{project}/locations/us-central1/buckets/audit"
    query = {"updateMask": "retentionDays"}
    client.call("logging.v2", "logging.projects.locations.buckets.patch", path, body={"retentionDays": 7}, query=query)
    (step,) = [step for step in drift(client, journal).steps if step.verb is not Verb.KEEP]
    assert [str(diff) for diff in step.diffs] == ["retentionDays: 7 → 90"]
    assert make_plan(client, stack(project, threshold=80.0), journal.applied()).as_plan().digest != before


def test_what_changes_between_plan_and_apply_stops_the_apply(plane: Any, project: str, journal: Journal) -> None:
    built(plane, project, journal)
    client = plane.client()
    plan = make_plan(client, stack(project, retention_days=120), journal.applied())
    path, query = f"projects/{project}/locations/us-central1/buckets/audit", {"updateMask": "retentionDays"}
    client.call("logging.v2", "logging.projects.locations.buckets.patch", path, body={"retentionDays": 7}, query=query)
    with pytest.raises(GateFailed, match="was changed since the plan was made"):
        apply(client, plan, journal, "run-2")


def test_a_rollback_brings_back_the_state_before_and_asked_twice_does_nothing(
    plane: Any, project: str, journal: Journal
) -> None:
    first = built(plane, project, journal)
    before = settled(plane, project)
    built(plane, project, journal, "run-2", threshold=42.0, retention_days=365)
    assert settled(plane, project) != before
    client = plane.client()
    undo = rollback_plan(client, journal, since_run="run-2")
    assert sorted(changes(undo)) == ["update alert policy API too slow", "update log bucket audit"]
    apply(client, undo, journal, "run-3", undoing=True)
    assert settled(plane, project) == before
    assert changes(rollback_plan(client, journal, since_run="run-2")) == []

    whole = rollback_plan(client, journal, may_destroy=(project, *HOLDING_DATA))
    assert len(whole.steps) == len(first.steps)
    apply(client, whole, journal, "run-4", undoing=True)
    assert rollback_plan(client, journal).steps == ()


def test_a_rollback_leaves_alone_what_was_adopted(plane: Any, project: str, journal: Journal, tmp_path: Path) -> None:
    client, mine = plane.client(), Journal(tmp_path / "somebody-elses.jsonl")
    theirs = {"project", "billing", "service", "network", "secret"}
    some = [one for one in stack(project) if one.kind in theirs]
    apply(client, make_plan(client, some), mine, "their-run")
    before = settled(plane, project)
    built(plane, project, journal)
    apply(client, rollback_plan(client, journal, may_destroy=HOLDING_DATA), journal, "run-2", undoing=True)
    assert settled(plane, project) == before


def test_what_appears_between_plan_and_apply_is_adopted_when_it_is_as_wanted(
    plane: Any, project: str, journal: Journal, tmp_path: Path
) -> None:
    client = plane.client()
    plan = make_plan(client, stack(project))
    apply(client, make_plan(client, stack(project)), Journal(tmp_path / "other.jsonl"), "their-run")
    done = apply(client, plan, journal, "run-1")
    taken = {one.key.split(":")[0] for one in done if one.adopted}
    assert {"network", "subnetwork", "secret", "repository", "service account"} <= taken
    assert {change.event for change in journal.changes} <= {Event.DONE, Event.ADOPTED}


def test_data_is_not_destroyed_unless_it_is_named(plane: Any, project: str, journal: Journal) -> None:
    built(plane, project, journal)
    client = plane.client()
    with pytest.raises(GateFailed, match=r"delete repository images.*may_destroy"):
        rollback_plan(client, journal)
    other = [one for one in stack(project) if one.kind != "repository"]
    maven = Resource("repository", f"projects/{project}/locations/us-central1", "images", {"format": "MAVEN"})
    with pytest.raises(GateFailed, match="replace repository images"):
        make_plan(client, [*other, maven], journal.applied())
    plan = make_plan(client, [*other, maven], journal.applied(), may_destroy=["images"])
    assert changes(plan) == ["replace repository images"]
    apply(client, plan, journal, "run-2")
    assert changes(make_plan(client, [*other, maven], journal.applied())) == []


def test_a_field_that_cannot_change_in_place_is_replaced(plane: Any, project: str, journal: Journal) -> None:
    built(plane, project, journal)
    client, wanted = plane.client(), stack(project, subnet="10.9.0.0/20")
    plan = make_plan(client, wanted, journal.applied())
    assert changes(plan) == ["replace subnetwork main-us"]
    apply(client, plan, journal, "run-2")
    assert changes(make_plan(client, wanted, journal.applied())) == []


FAULTS = [
    ("*.create", 503),
    ("compute.*.insert", 429),
    ("*.create", "drop_before"),
    ("*.create", "drop_after"),
    ("compute.*.insert", "drop_after"),
    ("cloudresourcemanager.projects.setIamPolicy", "drop_after"),
    ("compute.subnetworks.insert", "operation"),
]


@pytest.mark.parametrize(("method", "answer"), FAULTS, ids=[f"{method} {answer}" for method, answer in FAULTS])
def test_a_fault_is_met_by_trying_again_and_nothing_is_made_twice(
    plane: Any, project: str, journal: Journal, method: str, answer: Any
) -> None:
    plane.inject(faults=[{"method": method, "answer": answer, "count": 3}])
    built(plane, project, journal)
    assert changes(make_plan(plane.client(), stack(project), journal.applied())) == []
    shown = Counter(body.get("displayName") for body in plane.state(project).values() if "conditions" in body)
    assert shown == {"API too slow": 1}
    assert not journal.open_changes()


def test_a_service_that_stays_away_is_said_in_one_line(
    plane: Any, project: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestra_lib.cloud.apply._ATTEMPTS", 3)
    plane.inject(faults=[{"method": "secretmanager.projects.secrets.create", "answer": 503, "count": 100}])
    with pytest.raises((CloudRefused, TargetUnreachable), match=r"create projects/.*secrets") as raised:
        built(plane, project, journal)
    assert "\n" not in str(raised.value)
    plane.inject()
    built(plane, project, journal, "run-2")
    assert changes(make_plan(plane.client(), stack(project), journal.applied())) == []


def test_an_interrupted_apply_is_finished_by_the_next_run(plane: Any, project: str, journal: Journal) -> None:
    client = plane.client()

    def stop(done: int, total: int, text: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(client, make_plan(client, stack(project)), journal, "run-1", stop)
    again = Journal(journal.path)
    recover(client, again)
    assert not again.open_changes()
    built(plane, project, again, "run-2")
    assert changes(make_plan(client, stack(project), again.applied())) == []


def test_a_blueprint_in_a_circle_or_with_a_hole_is_refused() -> None:
    one = Resource("network", "projects/p/global", "one", {}, ("network:projects/p/global/two",))
    two = Resource("network", "projects/p/global", "two", {}, ("network:projects/p/global/one",))
    with pytest.raises(ParameterError, match="circle"):
        in_dependency_order([one, two])
    with pytest.raises(ParameterError, match="which the blueprint does not have"):
        in_dependency_order([one])
    with pytest.raises(ParameterError, match="twice"):
        in_dependency_order([Resource("secret", "p", "a"), Resource("secret", "p", "a")])
