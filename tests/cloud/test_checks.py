"""Bad surroundings are found before anything is changed, each in one line that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stacks import ACCOUNT, ORGANIZATION, stack

from orchestra_lib.checks import checks
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.plan import make_plan
from orchestra_lib.cloud.posture import posture
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.evidence import Evidence, Source, Verdict

pytestmark = pytest.mark.slow


def place(project: str) -> Place:
    return Place(project, ORGANIZATION.removeprefix("organizations/"), ACCOUNT, Source.REHEARSED)


def red(plane: Any, project: str) -> list[Evidence]:
    """The failing rows of the checks; nothing may have changed by making them."""
    client, before = plane.client(), plane.state(project)
    rows = checks(client, place(project), make_plan(client, stack(project)))
    assert plane.state(project) == before
    assert all("\n" not in str(row) for row in rows)
    return [row for row in rows if row.verdict in (Verdict.FAIL, Verdict.MISSING)]


@pytest.fixture
def begun(plane: Any, project: str, tmp_path: Path) -> str:
    """A project that exists with its services enabled and nothing else in it."""
    some = [one for one in stack(project) if one.kind in ("project", "billing", "service")]
    client = plane.client()
    apply(client, make_plan(client, some), Journal(tmp_path / "begun.jsonl"), "run-0")
    return project


def test_with_nothing_in_the_way_nothing_is_red(plane: Any, project: str) -> None:
    assert red(plane, project) == []


def test_nothing_is_red_in_a_project_that_exists(plane: Any, begun: str) -> None:
    assert red(plane, begun) == []


def test_an_unknown_project_that_may_not_be_made_is_said(plane: Any, project: str) -> None:
    plane.inject(missing_permissions=[{"permissions": ["resourcemanager.projects.*"]}])
    (row,) = [row for row in red(plane, project) if "permissions" in row.claim]
    assert "resourcemanager.projects.create" in row.note
    assert row.note.startswith("ask for a role that holds")


def test_missing_permissions_are_counted_and_named(plane: Any, begun: str) -> None:
    plane.inject(missing_permissions=[{"permissions": ["compute.networks.create", "iam.serviceAccounts.create"]}])
    (row,) = red(plane, begun)
    assert row.value == 2
    assert row.note == "ask for a role that holds compute.networks.create, iam.serviceAccounts.create"


def test_a_disabled_api_stops_the_plan_with_what_to_enable(plane: Any, begun: str) -> None:
    plane.inject(disabled_services=[{"service": "compute"}])
    with pytest.raises(CloudRefused, match=r"Enable compute\.googleapis\.com in the project first") as raised:
        make_plan(plane.client(), stack(begun))
    assert "\n" not in str(raised.value)


def test_an_exhausted_quota_is_found_before_the_first_call(plane: Any, begun: str) -> None:
    plane.inject(quotas=[{"metric": "NETWORKS", "limit": 0}])
    (row,) = red(plane, begun)
    assert row.claim == "quota NETWORKS left for 1 more"
    assert "ask for a higher quota" in row.note


POLICIES = [
    ({"constraint": "constraints/compute.restrictVpcPeering", "allowed": []}, "servicenetworking"),
    ({"constraint": "constraints/iam.disableServiceAccountCreation", "enforced": True}, "adopted"),
    ({"constraint": "constraints/gcp.resourceLocations", "allowed": ["in:europe-locations"]}, "choose regions"),
    (
        {"constraint": "constraints/iam.workloadIdentityPoolProviders", "allowed": ["https://accounts.example"]},
        "GitHub's issuer",
    ),
    ({"constraint": "constraints/gcp.restrictServiceUsage", "allowed": ["iam.googleapis.com"]}, "allow the service"),
]


@pytest.mark.parametrize(("policy", "remedy"), POLICIES, ids=[policy["constraint"] for policy, _ in POLICIES])
def test_an_organisation_policy_that_forbids_the_plan_is_named_with_its_remedy(
    plane: Any, project: str, policy: dict[str, Any], remedy: str
) -> None:
    plane.inject(organization_policies=[policy])
    rows = red(plane, project)
    assert rows
    named = [row for row in rows if policy["constraint"] in row.claim]
    assert named
    assert all(remedy in row.note for row in named)


def test_a_project_that_is_not_as_closed_as_it_should_be_is_said(plane: Any, begun: str, tmp_path: Path) -> None:
    client = plane.client()
    apply(client, make_plan(client, stack(begun)), Journal(tmp_path / "posture.jsonl"), "run-1")
    resources = stack(begun)
    assert [row.verdict for row in posture(client, place(begun), resources)] == [Verdict.REHEARSED] * 3
    policy = client.call(
        "cloudresourcemanager.v3",
        "cloudresourcemanager.projects.getIamPolicy",
        f"projects/{begun}:getIamPolicy",
        body={},
    )
    member = f"serviceAccount:runner@{begun}.iam.gserviceaccount.com"
    policy["bindings"].append({"role": "roles/editor", "members": [member]})
    client.call(
        "cloudresourcemanager.v3",
        "cloudresourcemanager.projects.setIamPolicy",
        f"projects/{begun}:setIamPolicy",
        body={"policy": policy},
    )
    rule = {
        "name": "everybody",
        "network": f"projects/{begun}/global/networks/main",
        "allowed": [{"IPProtocol": "tcp"}],
        "sourceRanges": ["0.0.0.0/0"],
    }
    client.call("compute.v1", "compute.firewalls.insert", f"projects/{begun}/global/firewalls", body=rule)
    roles, keys, firewall = posture(client, place(begun), resources)
    assert (roles.verdict, roles.note) == (Verdict.FAIL, f"{member} has roles/editor")
    assert keys.verdict is Verdict.REHEARSED
    assert (firewall.verdict, firewall.note) == (Verdict.FAIL, "everybody")
