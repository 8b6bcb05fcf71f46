"""What becomes of changes whose process was cut off, whose answer was lost, or that were refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planes import Plane, settled
from portrait import portrait
from stacks import HOLDING_DATA, stack

from orchestra_lib.cloud import access, recovery
from orchestra_lib.cloud import client as calling
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Event, Journal
from orchestra_lib.cloud.plan import CloudPlan, in_dependency_order, make_plan
from orchestra_lib.cloud.recovery import recover
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.resource import Live, Resource, resolve
from orchestra_lib.cloud.rollback import drift, rollback_plan
from orchestra_lib.plan import Verb

pytestmark = pytest.mark.slow


class Cut(BaseException):
    """The process ends here: nothing that catches errors sees it."""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


@pytest.fixture(autouse=True)
def _arrives_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_ARRIVES_WITHIN_SECONDS", 0.0)


def cut_off(monkeypatch: pytest.MonkeyPatch, verb: str, ending: str, *, answered: bool) -> None:
    """Cut off at every request whose path has that ending: before it is sent, or when its answer is there."""
    request = calling._Http.request

    def send(http: Any, uri: str, method: str = "GET", **named: Any) -> Any:
        wanted = method == verb and uri.split("?")[0].endswith(ending)
        if wanted and not answered:
            raise Cut(uri)
        answer = request(http, uri, method, **named)
        if wanted:
            raise Cut(uri)
        return answer

    monkeypatch.setattr(calling._Http, "request", send)


def left(plan: CloudPlan) -> list[str]:
    return [f"{step.verb} {step.key}" for step in plan.steps if step.verb is not Verb.KEEP]


def whole(client: Client, project: str, journal: Journal) -> CloudPlan:
    return make_plan(client, stack(project), journal.applied())


def undone(client: Client, project: str, journal: Journal) -> CloudPlan:
    return rollback_plan(client, journal, may_destroy=(project, *HOLDING_DATA))


def resource_of(project: str, kind: str) -> Resource:
    return next(one for one in stack(project) if one.kind == kind)


CREATIONS = [
    ("/projects", True),
    ("/services/compute.googleapis.com:enable", True),
    ("/addresses", True),
    ("/connections", True),
    ("/serviceAccounts", True),
    (":setIamPolicy", True),
    ("/workloadIdentityPools", True),
    ("/notificationChannels", True),
    ("/alertPolicies", True),
    ("/alertPolicies", False),
    ("/subnetworks", False),
]


@pytest.mark.parametrize(
    ("ending", "answered"),
    CREATIONS,
    ids=[f"{ending} {'answered' if answered else 'not sent'}" for ending, answered in CREATIONS],
)
def test_a_creation_that_is_cut_off_is_ours_and_made_once(
    plane: Plane, project: str, journal: Journal, monkeypatch: pytest.MonkeyPatch, ending: str, answered: bool
) -> None:
    client = plane.client()
    with monkeypatch.context() as patch:
        cut_off(patch, "POST", ending, answered=answered)
        with pytest.raises(Cut):
            apply(client, whole(client, project, journal), journal, "run-1")
    again = Journal(journal.path)
    recover(client, again)
    apply(client, whole(client, project, again), again, "run-2")
    assert left(whole(client, project, again)) == []
    assert again.open_changes() == again.unsettled() == ()
    assert not [change for change in again.changes if change.event is Event.ADOPTED]
    assert max(Counter(portrait(plane, project)).values()) == 1
    apply(client, undone(client, project, again), again, "run-3", undoing=True)
    assert left(undone(client, project, again)) == []
    assert settled(plane, project) == {}


@pytest.mark.parametrize("kind", ["alert policy", "network", "secret", "service account", "log bucket"])
@pytest.mark.parametrize("when", ["before the plan", "after the plan"])
def test_a_call_that_arrives_after_the_recovery_made_what_is_ours(
    plane: Plane, project: str, journal: Journal, kind: str, when: str
) -> None:
    client, late = plane.client(), resource_of(project, kind)
    ordered = in_dependency_order(stack(project))
    before = ordered[: [one.key for one in ordered].index(late.key)]
    apply(client, make_plan(client, before), journal, "run-1")
    resolved = replace(late, body=resolve(late.body, whole(client, project, journal).live()), needs=late.all_needs)
    journal.begin("run-1", Verb.CREATE, resolved, None)
    again = Journal(journal.path)
    (lost,) = recover(client, again)
    assert lost.lost
    if when == "before the plan":
        access.create(client, resolved, "")
    plan = whole(client, project, again)
    if when == "after the plan":
        access.create(client, resolved, "")
    apply(client, plan, again, "run-2")
    assert {change.event for change in again.changes if change.wanted.key == late.key} <= {Event.DONE, Event.FAILED}
    assert again.is_ours(late.key)
    assert again.unsettled() == ()
    assert late.key in again.applied()
    assert left(drift(client, again)) == []
    assert f"delete {late.key}" in left(undone(client, project, again))


def test_what_was_refused_to_us_and_made_by_somebody_else_is_not_rolled_back(
    plane: Plane, project: str, journal: Journal
) -> None:
    client, secret = plane.client(), resource_of(project, "secret")
    apply(client, make_plan(client, [one for one in stack(project) if one.kind != "secret"]), journal, "run-1")
    plane.inject(missing_permissions=[{"permissions": ["secretmanager.secrets.create"]}])
    with pytest.raises(CloudRefused):
        apply(client, whole(client, project, journal), journal, "run-2")
    plane.inject()
    access.create(client, secret, "")
    assert not journal.is_ours(secret.key)
    assert left(rollback_plan(client, journal, since_run="run-2")) == []


def test_what_we_deleted_and_somebody_else_made_again_is_not_rolled_back(
    plane: Plane, project: str, journal: Journal
) -> None:
    client, account = plane.client(), resource_of(project, "service account")
    apply(client, whole(client, project, journal), journal, "run-1")
    rest = [one for one in stack(project) if one.kind not in ("project", "billing", "service")]
    undo = undone(client, project, journal)
    gone = {one.key for one in rest}
    apply(
        client,
        replace(undo, steps=tuple(step for step in undo.steps if step.key in gone)),
        journal,
        "run-2",
        undoing=True,
    )
    access.create(client, account, "")
    assert f"delete {account.key}" not in left(undone(client, project, journal))


def test_a_service_that_stayed_away_leaves_the_change_open_until_it_is_found_out(
    plane: Plane, project: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestra_lib.cloud.apply._ATTEMPTS", 2)
    client, secret = plane.client(), resource_of(project, "secret")
    plane.inject(faults=[{"method": "secretmanager.*", "answer": "drop_after", "count": 50}])
    with pytest.raises(Exception, match="no answer"):
        apply(client, whole(client, project, journal), journal, "run-1")
    assert [change.wanted.key for change in journal.open_changes()] == [secret.key]
    plane.inject()
    (found,) = recover(client, journal)
    assert (found.event, found.wanted.key) == (Event.DONE, secret.key)


def test_an_update_that_clears_a_field_and_is_cut_off_is_not_taken_for_done(
    plane: Plane, project: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, bucket = plane.client(), resource_of(project, "log bucket")
    others = [one for one in stack(project) if one.kind != "log bucket"]
    described = Resource(bucket.kind, bucket.parent, bucket.id, {**bucket.body, "description": "kept"}, bucket.needs)
    apply(client, make_plan(client, [*others, described]), journal, "run-1")
    with monkeypatch.context() as patch:
        cut_off(patch, "PATCH", "/buckets/audit", answered=False)
        with pytest.raises(Cut):
            apply(client, whole(client, project, journal), journal, "run-2")
    again = Journal(journal.path)
    (lost,) = recover(client, again)
    assert lost.lost
    plan = whole(client, project, again)
    assert left(plan) == [f"update {bucket.key}"]
    apply(client, plan, again, "run-3")
    assert "description" not in settled(plane, project)[f"logging/{bucket.parent}/buckets/audit"]


def test_a_deletion_that_is_cut_off_is_found_done(
    plane: Plane, project: str, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = plane.client()
    apply(client, whole(client, project, journal), journal, "run-1")
    with monkeypatch.context() as patch:
        cut_off(patch, "DELETE", "/secrets/dsn", answered=True)
        with pytest.raises(Cut):
            apply(client, undone(client, project, journal), journal, "run-2", undoing=True)
    again = Journal(journal.path)
    recover(client, again)
    assert resource_of(project, "secret").key not in again.applied()
    apply(client, undone(client, project, again), again, "run-3", undoing=True)
    assert left(undone(client, project, again)) == []


def test_a_replacement_is_rolled_back_to_what_was_there(plane: Plane, project: str, journal: Journal) -> None:
    client = plane.client()
    apply(client, whole(client, project, journal), journal, "run-1")
    before = settled(plane, project)
    changed = stack(project, subnet="10.9.0.0/20")
    apply(client, make_plan(client, changed, journal.applied()), journal, "run-2")
    assert settled(plane, project) != before
    apply(client, rollback_plan(client, journal, since_run="run-2"), journal, "run-3", undoing=True)
    assert settled(plane, project) == before
    assert left(rollback_plan(client, journal, since_run="run-2")) == []


def test_which_apis_are_enabled_is_read_though_service_usage_is_not(
    plane: Plane, project: str, journal: Journal
) -> None:
    """A rollback that was cut off after disabling it took all others for disabled, and their resources for gone."""
    client = plane.client()
    apply(client, whole(client, project, journal), journal, "run-1")
    usage = Resource("service", f"projects/{project}", "serviceusage.googleapis.com")
    access.delete(client, usage, Live(f"projects/{project}/services/{usage.id}", {}), "")
    assert left(make_plan(client, [usage, *stack(project)], journal.applied())) == [f"create {usage.key}"]
