"""The memory API's service and its gateway against a running local Google Cloud: made, kept, changed, brought back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import settings_content
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from planes import Plane, settled

from orchestra_lib.blueprint.api import ApiPlan, api, path_of, revision_template
from orchestra_lib.cloud import access
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import CloudPlan, make_plan
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.cloud.rollback import drift, rollback_plan
from orchestra_lib.plan import Verb
from orchestra_lib.rollout.service import WHOLE, RunService, Share

NAME, AUDIENCE = "orchestra-memory-api", "orchestra-memory"
IMAGE = "us-docker.pkg.dev/cloudrun/container/hello"
INTERFACE = {
    "info": {"title": "Memory", "version": "1"},
    "paths": {"/v1/search": {"post": {"operationId": "search", "security": [{"caller": []}]}}},
}
WIDER = {**INTERFACE, "paths": {**INTERFACE["paths"], "/v1/history": {"get": {"operationId": "history"}}}}
_numbers = count(1)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "05.jsonl")


@pytest.fixture
def client(plane: Plane, project: str, tmp_path: Path) -> Client:
    """A client of a project that has what the phase stands on."""
    found = plane.client()
    apply(found, make_plan(found, wanted(project).foundation), Journal(tmp_path / "01.jsonl"), "run-0")
    return found


def wanted(project: str, interface: Mapping[str, Any] = INTERFACE, image: str = IMAGE, **values: Any) -> ApiPlan:
    settings = settings_content.with_values(project__id=project, **values)
    template = {**revision_template(settings, image, {}), "revision": f"{NAME}-first"}
    return api(settings, template, interface, AUDIENCE)


def planned(client: Client, plan: ApiPlan, journal: Journal) -> CloudPlan:
    return make_plan(client, (*plan.foundation, *plan.resources), journal.applied())


def made(client: Client, plan: ApiPlan, journal: Journal, run: str = "run-1") -> CloudPlan:
    found = planned(client, plan, journal)
    apply(client, found, journal, run)
    return found


def verbs(plan: CloudPlan) -> dict[str, Verb]:
    return {step.wanted.kind: step.verb for step in plan.steps if step.verb is not Verb.KEEP}


def detail(plan: CloudPlan, kind: str) -> str:
    return next(step.as_change().detail for step in plan.steps if step.wanted.kind == kind)


def live(client: Client, resource: Resource) -> dict[str, Any]:
    found = access.read(client, resource)
    assert found is not None, resource.key
    return dict(found.body)


def patched(client: Client, resource: Resource, **fields: Any) -> None:
    """Somebody else's change."""
    found = access.read(client, resource)
    assert found is not None
    changed = Resource(resource.kind, resource.parent, resource.id, fields)
    answer = access.update(client, changed, found, list(fields), "")
    if answer.get("name"):
        client.finish("run.v2", "their change", answer, 30)


def rolled_out(client: Client, plan: ApiPlan, image: str) -> dict[str, Any]:
    """Let a revision with another image take over; returns the template and the traffic that there are then."""
    service = RunService(client, path_of(plan.service))
    revision = f"{NAME}-{next(_numbers)}"
    template = {**plan.service.body["template"], "containers": [{"image": image}]}
    service.deploy(template, revision, [Share(service.serving(), WHOLE, "blue"), Share(revision, 0, "green")])
    service.direct([Share(revision, WHOLE, "green")])
    return served(client, plan)


def served(client: Client, plan: ApiPlan) -> dict[str, Any]:
    body = live(client, plan.service)
    return {name: body[name] for name in ("template", "traffic")}


def served_document(client: Client, plan: ApiPlan) -> dict[str, Any]:
    """What the gateway's config holds, read back."""
    file = live(client, plan.config)["openapiDocuments"][0]["document"]
    document: dict[str, Any] = json.loads(base64.b64decode(file["contents"]))
    return document


# --- made, kept, undone -----------------------------------------------------------------------------------------------


def test_it_is_made_whole_kept_by_a_second_plan_and_undone_to_what_was_before(
    plane: Plane, project: str, client: Client, journal: Journal
) -> None:
    plan, before = wanted(project), settled(plane, project)
    first = made(client, plan, journal)
    assert "template: given now, and only now" in detail(first, "run service")
    assert verbs(planned(client, plan, journal)) == {}
    assert verbs(drift(client, journal)) == {}
    apply(client, rollback_plan(client, journal), journal, "run-2", undoing=True)
    assert settled(plane, project) == before
    assert rollback_plan(client, journal).steps == ()


def test_the_gateway_alone_may_call_the_service_and_has_its_address_in_the_document(
    project: str, client: Client, journal: Journal
) -> None:
    plan = wanted(project)
    made(client, plan, journal)
    path = path_of(plan.service)
    policy = client.call("run.v2", "run.projects.locations.services.getIamPolicy", f"{path}:getIamPolicy")
    who = f"serviceAccount:orchestra-gateway@{project}.iam.gserviceaccount.com"
    assert policy["bindings"] == [{"role": "roles/run.invoker", "members": [who]}]
    service = live(client, plan.service)
    assert not service.get("invokerIamDisabled")
    backend = served_document(client, plan)["x-google-backend"]
    assert backend["address"] == backend["jwt_audience"] == service["uri"]
    assert live(client, plan.config)["gatewayServiceAccount"].endswith(who.removeprefix("serviceAccount:"))


# --- what is given at creation only -----------------------------------------------------------------------------------


def test_what_a_rollout_made_of_the_service_is_left_alone_whatever_the_blueprint_says(
    project: str, client: Client, journal: Journal
) -> None:
    plan = wanted(project)
    made(client, plan, journal)
    digest = planned(client, plan, journal).as_plan().digest
    now = rolled_out(client, plan, "us-docker.pkg.dev/p/r/memory:2")
    again = planned(client, plan, journal)
    assert verbs(again) == verbs(drift(client, journal)) == {}
    assert again.as_plan().digest == digest, "an approval holds while a rollout goes on"
    assert "template: given at creation only, left as found" in detail(again, "run service")
    other = wanted(project, image="us-docker.pkg.dev/p/r/memory:3", api__concurrency=40)
    assert verbs(planned(client, other, journal)) == {}
    assert served(client, plan) == now


def test_drift_in_any_other_field_is_found_and_brought_back_without_touching_what_is_served(
    project: str, client: Client, journal: Journal
) -> None:
    plan = wanted(project)
    made(client, plan, journal)
    now = rolled_out(client, plan, "us-docker.pkg.dev/p/r/memory:2")
    patched(client, plan.service, invokerIamDisabled=True, description="mine now")
    found = drift(client, journal)
    assert verbs(found) == {"run service": Verb.UPDATE}
    assert "invokerIamDisabled: True → False" in detail(found, "run service")
    made(client, plan, journal, "run-2")
    assert verbs(drift(client, journal)) == {}
    assert served(client, plan) == now
    labelled = wanted(project, labels={"team": "memory"})
    made(client, labelled, journal, "run-3")
    apply(client, rollback_plan(client, journal, "run-3"), journal, "run-4", undoing=True)
    assert live(client, plan.service)["labels"] == plan.service.body["labels"]
    assert served(client, plan) == now


def test_somebody_elses_service_comes_back_with_a_template_and_without_the_traffic_to_revisions_that_are_gone(
    project: str, client: Client, journal: Journal, tmp_path: Path
) -> None:
    plan, others = wanted(project), Journal(tmp_path / "others.jsonl")
    made(client, wanted(project, labels={"team": "theirs"}), others, "theirs")
    rolled_out(client, plan, "us-docker.pkg.dev/p/r/memory:2")
    made(client, plan, journal)
    _delete(client, plan.service)
    undo = rollback_plan(client, journal)
    assert verbs(undo)["run service"] is Verb.CREATE
    apply(client, undo, journal, "run-2", undoing=True)
    back = live(client, plan.service)
    assert back["labels"] == {"team": "theirs"}
    assert back["template"]["revision"] == f"{NAME}-first"
    assert [part["type"] for part in back["traffic"]] == ["TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"]


def test_a_service_whose_first_revision_never_started_is_made_anew(
    plane: Plane, project: str, client: Client, journal: Journal
) -> None:
    plan, before = wanted(project), settled(plane, project)
    fault = {"method": "run.projects.locations.services.create", "answer": "operation", "status": "FAILED_PRECONDITION"}
    plane.inject(faults=[{**fault, "message": "the revision is not ready and cannot serve traffic"}])
    with pytest.raises(CloudRefused, match="cannot serve traffic"):
        made(client, plan, journal)
    again = planned(client, plan, journal)
    assert verbs(again)["run service"] is Verb.REPLACE
    assert "latestReadyRevision: not set → set; template: given now" in detail(again, "run service")
    apply(client, again, journal, "run-2")
    assert verbs(planned(client, plan, journal)) == {}
    apply(client, rollback_plan(client, journal), journal, "run-3", undoing=True)
    assert settled(plane, project) == before


def test_a_creation_that_failed_and_left_something_behind_never_counts_as_done(
    plane: Plane, project: str, client: Client, journal: Journal
) -> None:
    plan = wanted(project)
    plane.inject(faults=[{"method": "run.projects.locations.services.create", "answer": "operation"}])
    with pytest.raises(CloudRefused):  # it is tried again, because the error is a passing one
        made(client, plan, journal)
    assert verbs(planned(client, plan, journal))["run service"] is Verb.REPLACE
    made(client, plan, journal, "run-2")
    assert verbs(planned(client, plan, journal)) == {}


# --- the gateway ------------------------------------------------------------------------------------------------------


def test_another_document_is_another_config_and_a_rollback_brings_the_one_before_back(
    plane: Plane, project: str, client: Client, journal: Journal
) -> None:
    plan, wider = wanted(project), wanted(project, WIDER)
    made(client, plan, journal)
    before = settled(plane, project)
    assert verbs(made(client, wider, journal, "run-2")) == {"gateway config": Verb.CREATE, "gateway": Verb.UPDATE}
    assert plan.config.id != wider.config.id
    assert live(client, plan.gateway)["apiConfig"].endswith(wider.config.id)
    assert set(served_document(client, wider)["paths"]) > set(served_document(client, plan)["paths"])
    kept = {change.wanted.id for change in journal.changes if change.wanted.kind == "gateway config"}
    assert kept == {plan.config.id, wider.config.id}, "the journal has both, and both are there"

    apply(client, rollback_plan(client, journal, "run-2"), journal, "run-3", undoing=True)
    assert settled(plane, project) == before
    assert live(client, plan.gateway)["apiConfig"].endswith(plan.config.id)
    assert verbs(planned(client, plan, journal)) == {}


def test_after_many_configs_the_whole_goes_and_leaves_nothing(
    plane: Plane, project: str, client: Client, journal: Journal
) -> None:
    before = settled(plane, project)
    for number, interface in enumerate((INTERFACE, WIDER, INTERFACE, WIDER)):
        made(client, wanted(project, interface), journal, f"run-{number}")
    assert sum("/configs/" in key for key in settled(plane, project)) == 2, "a document that was there is found again"
    apply(client, rollback_plan(client, journal), journal, "run-5", undoing=True)
    assert settled(plane, project) == before


def test_a_service_that_somebody_deleted_is_made_again_under_the_same_gateway(
    project: str, client: Client, journal: Journal
) -> None:
    plan = wanted(project)
    made(client, plan, journal)
    _delete(client, plan.service)
    again = planned(client, plan, journal)
    assert verbs(again) == {"run service": Verb.CREATE, "run service roles": Verb.CREATE}
    apply(client, again, journal, "run-2")
    assert verbs(planned(client, plan, journal)) == {}


# --- any history ------------------------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("ours"), st.sampled_from(("a", "b", "c"))),
    st.tuples(st.just("theirs"), st.sampled_from(("x", "y"))),
    st.tuples(st.just("rollout"), st.sampled_from(("img:1", "img:2"))),
    st.tuples(st.just("template"), st.sampled_from(("img:3", "img:4"))),
)


@pytest.fixture(scope="module")
def histories(
    _plane: Plane, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], tuple[Client, Resource, Journal]]:
    """Services of one project, each new, with a journal of its own."""
    project, client = "engine-histories", _plane.client()
    folder = tmp_path_factory.mktemp("histories")
    apply(client, make_plan(client, wanted(project).foundation), Journal(folder / "01.jsonl"), "run-0")

    def begin() -> tuple[Client, Resource, Journal]:
        number = next(_numbers)
        body = {"description": "a", "template": {"containers": [{"image": "img:0"}]}}
        parent = f"projects/{project}/locations/us-central1"
        return client, Resource("run service", parent, f"s{number}", body), Journal(folder / f"{number}.jsonl")

    return begin


@examples(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(STEPS, max_size=6))
def test_in_no_history_does_the_engine_touch_what_is_given_at_creation_only(
    histories: Any, history: list[tuple[str, str]]
) -> None:
    client, resource, journal = histories()
    apply(client, make_plan(client, [resource]), journal, "run-0")
    now = _served(client, resource)
    assert now["template"]["containers"][0]["image"] == "img:0", "it is sent when it is made"
    for number, (what, value) in enumerate(history, start=1):
        body = dict(resource.body)
        if what == "rollout":
            patched(client, resource, template={"containers": [{"image": value}]})
            now = _served(client, resource)
        elif what == "theirs":
            patched(client, resource, description=value)
        elif what == "template":
            body["template"] = {"containers": [{"image": value}]}
        else:
            body["description"] = value
        resource = Resource(resource.kind, resource.parent, resource.id, body)
        plan = make_plan(client, [resource], journal.applied())
        assert {diff.field for step in plan.steps for diff in step.diffs} <= {"description"}
        apply(client, plan, journal, f"run-{number}")
        assert live(client, resource)["description"] == body["description"]
        assert _served(client, resource) == now
    apply(client, rollback_plan(client, journal, "run-1"), journal, "undo", undoing=True)
    assert _served(client, resource) == now, "a rollback of the engine's changes is none of a rollout's"
    apply(client, rollback_plan(client, journal), journal, "undo all", undoing=True)
    assert access.read(client, resource) is None


def _delete(client: Client, service: Resource) -> None:
    operation = client.call("run.v2", "run.projects.locations.services.delete", path_of(service))
    client.finish("run.v2", "their deletion", operation, 30)


def _served(client: Client, resource: Resource) -> dict[str, Any]:
    body = live(client, resource)
    return {name: body[name] for name in ("template", "traffic", "latestReadyRevision")}
