"""Phase 2's resources: as Google describes them, machines that exist, desks of their owners alone, homes that stay."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from typing import Any

import discovery_schema
import pytest
import settings_content
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.foundation import presence
from orchestra_lib.blueprint.workstations import (
    BOOST,
    Restoration,
    asked_restoration,
    image,
    workstations,
)
from orchestra_lib.cloud.home_disks import LABEL
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.plan import in_dependency_order
from orchestra_lib.cloud.resource import Live, Resource
from orchestra_lib.cloud.terraform.convert import convert
from orchestra_lib.errors import ParameterError
from orchestra_lib.rules import Policy, violations
from orchestra_lib.settings.workstations import workstation_id

LOCAL = settings.load("local")
DISK = "projects/cherry-ai-project/regions/us-central1/disks/workstations-1"
RESTORATION = Restoration("ada@example.com", "home-ada-20261125", DISK)
PLAN = workstations(LOCAL, RESTORATION)
RESOURCES = PLAN.resources
ROLE_KINDS = {"roles", "repository roles", "service account roles", "workstation roles"}
OWN_BODIES = ROLE_KINDS | {"home schedule"}


def of(resources: tuple[Resource, ...], kind: str) -> list[Resource]:
    return [one for one in resources if one.kind == kind]


def configuration(**values: Any) -> dict[str, Any]:
    plan = workstations(settings_content.with_values(**values))
    (found,) = of(plan.resources, "workstation configuration")
    return dict(found.body)


# --- as Google takes them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.key)
def test_a_body_is_what_googles_description_of_its_kind_takes(resource: Resource) -> None:
    if resource.kind not in OWN_BODIES:
        assert discovery_schema.refusals(resource) == []


@pytest.mark.parametrize(
    ("kind", "broken", "words"),
    [
        ("workstation configuration", {"host": {"gceInstance": {"gpus": 2}}}, "gceInstance.gpus is unknown"),
        ("workstation configuration", {"persistentDirectories": [{"gcePd": {"reclaimPolicy": "KEEP"}}]}, "'KEEP'"),
        ("workstation cluster", {"controlPlaneIp": "10.0.0.2"}, "written by the service alone"),
        ("workstation", {"state": "STATE_RUNNING"}, "written by the service alone"),
        ("snapshot schedule", {"snapshotSchedulePolicy": {"schedule": {"daily": {}}}}, "schedule.daily is unknown"),
    ],
)
def test_the_check_of_bodies_finds_what_is_wrong(kind: str, broken: dict[str, Any], words: str) -> None:
    sound = of(RESOURCES, kind)[0]
    (refusal,) = discovery_schema.refusals(replace(sound, body={**sound.body, **broken}))
    assert words in refusal


@pytest.mark.parametrize("resource", [one for one in RESOURCES if KINDS[one.kind].access == "standard"], ids=str)
def test_a_path_is_what_the_api_takes(resource: Resource) -> None:
    kind = KINDS[resource.kind]
    get = discovery_schema.method(kind.api, f"{kind.collection}.get")
    template = re.sub(r"^v\d/", "", get["path"])
    pattern = re.sub(r"\{\+(\w+)\}", lambda match: get["parameters"][match[1]]["pattern"].strip("^$"), template)
    pattern = re.sub(r"\{(\w+)\}", r"[^/]+", pattern)
    assert re.fullmatch(pattern, f"{resource.parent}/{kind.path_segment}/{resource.id}")
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", resource.id)


def test_every_resource_is_said_whole_in_terraform() -> None:
    found = [(one, Live(f"{one.parent}/x/{one.id}", {})) for one in RESOURCES]
    converted = convert(found)
    assert {one.key for one in converted} == {resource.key for resource in RESOURCES}
    assert [note for one in converted for note in one.notes] == []
    attachment = next(one for one in converted if "attachment" in one.row.type)
    assert attachment.arguments["name"] == "orchestra-homes"
    assert "/" not in str(attachment.arguments["disk"])


# --- what it stands on ------------------------------------------------------------------------------------------------


def test_it_stands_on_phase_1_and_makes_nothing_of_it() -> None:
    first = {one.key for one in infrastructure(LOCAL)}
    stood_on = {one.key for one in PLAN.foundation}
    assert stood_on <= first
    assert not stood_on & {one.key for one in RESOURCES}
    assert not first & {one.key for one in RESOURCES}
    kinds = {one.kind for one in PLAN.foundation}
    assert {"project", "network", "subnetwork", "router", "firewall", "repository", "service account"} <= kinds
    assert "billing" not in {one.kind for one in presence(PLAN.foundation)}


def test_every_need_is_there_and_none_goes_round_in_a_circle() -> None:
    ordered = in_dependency_order((*PLAN.foundation, *RESOURCES))
    assert len(ordered) == len(PLAN.foundation) + len(RESOURCES)
    places = {one.key: number for number, one in enumerate(ordered)}
    assert all(places[need] < places[one.key] for one in ordered for need in one.all_needs)


def test_the_cluster_lies_in_phase_1s_private_network_and_answers_inside_it() -> None:
    (cluster,) = of(RESOURCES, "workstation cluster")
    first = infrastructure(LOCAL)
    (network,) = [one for one in first if one.kind == "network"]
    subnets = [f"{one.parent}/subnetworks/{one.id}" for one in first if one.kind == "subnetwork"]
    assert cluster.body["network"] == f"{network.parent}/networks/{network.id}"
    assert cluster.body["subnetwork"] in subnets
    assert "/regions/us-central1/" in cluster.body["subnetwork"]
    assert cluster.body["privateClusterConfig"] == {"enablePrivateEndpoint": True}


# --- machines ---------------------------------------------------------------------------------------------------------


def test_the_strategys_machine_is_two_and_both_exist() -> None:
    machine = configuration()["host"]["gceInstance"]
    (boost,) = machine["boostConfigs"]
    assert (machine["machineType"], "accelerators" in machine) == ("n2d-standard-32", False)
    assert (boost["id"], boost["machineType"]) == (BOOST, "n1-standard-32")
    assert boost["accelerators"] == [{"type": "nvidia-tesla-t4", "count": 2}]
    assert machine["bootDiskSizeGb"] == boost["bootDiskSizeGb"] == 200
    assert configuration()["replicaZones"] == ["us-central1-a", "us-central1-b"]


def test_machines_are_closed_and_nobody_pays_for_idle_ones_unasked() -> None:
    machine = configuration()["host"]["gceInstance"]
    assert machine["disablePublicIpAddresses"] is True
    assert set(machine["shieldedInstanceConfig"].values()) == {True}
    assert len(machine["shieldedInstanceConfig"]) == 3
    assert (machine["poolSize"], machine["boostConfigs"][0]["poolSize"]) == (0, 0)
    pooled = configuration(workstations__pool_size=2, workstations__boost_pool_size=1)["host"]["gceInstance"]
    assert (pooled["poolSize"], pooled["boostConfigs"][0]["poolSize"]) == (2, 1)


@pytest.mark.parametrize(
    ("constraint", "policy", "broken"),
    [
        ("compute.vmExternalIpAccess", Policy(denies_all=True), {"disablePublicIpAddresses": False}),
        ("compute.requireShieldedVm", Policy(enforced=True), {"shieldedInstanceConfig": {"enableVtpm": True}}),
        ("compute.disableNestedVirtualization", Policy(enforced=True), {"enableNestedVirtualization": True}),
    ],
)
def test_policies_that_forbid_other_configurations_let_this_one_pass(
    constraint: str, policy: Policy, broken: dict[str, Any]
) -> None:
    (sound, *_) = of(RESOURCES, "workstation configuration")
    assert list(violations(RESOURCES, {constraint: policy})) == []
    machine = {**sound.body["host"]["gceInstance"], **broken}
    worse = replace(sound, body={**sound.body, "host": {"gceInstance": machine}})
    assert [found.id for found, _, _ in violations([worse], {constraint: policy})] == [constraint]


def test_developers_are_held_against_the_domains_that_may_have_roles() -> None:
    roles = of(RESOURCES, "workstation roles")
    outside = Policy(allowed=frozenset({"is:user:grace@example.com"}))
    named = {resource.id for _, resource, _ in violations(roles, {"iam.allowedPolicyMemberDomains": outside})}
    assert named == {"user:ada@example.com"}
    directory = Policy(allowed=frozenset({"C0abcdefg"}))
    assert list(violations(roles, {"iam.allowedPolicyMemberDomains": directory})) == []


def test_the_image_is_googles_with_cuda_until_ours_has_a_tag() -> None:
    assert image(LOCAL).endswith("/cloud-workstations-images/predefined/code-oss-cuda:latest")
    plain = {"machine_type": "n2-standard-8", "accelerator_type": None, "accelerator_count": None}
    without = settings_content.with_values(workstations__boost=plain)
    assert image(without).endswith("/predefined/code-oss:latest")
    ours = configuration(workstations__image__tag="2026-11-25")
    assert ours["container"] == {
        "image": "us-central1-docker.pkg.dev/cherry-ai-project/orchestra/orchestra-workstation:2026-11-25"
    }
    assert ours["host"]["gceInstance"]["serviceAccount"].startswith("orchestra-workstation@")


def test_the_account_that_builds_the_image_may_push_it_and_nothing_more() -> None:
    held = {
        (one.kind, one.parent.rsplit("/", 1)[1], role)
        for one in RESOURCES
        if one.kind in ROLE_KINDS and "orchestra-image@" in one.id
        for role in one.body["roles"]
    }
    assert held == {
        ("roles", "cherry-ai-project", "roles/logging.logWriter"),
        ("repository roles", "orchestra", "roles/artifactregistry.writer"),
    }


# --- desks and homes --------------------------------------------------------------------------------------------------


def test_each_developer_may_use_their_own_workstation_and_no_other() -> None:
    roles = {one.parent.rsplit("/", 1)[1]: one for one in of(RESOURCES, "workstation roles")}
    assert {name: one.id for name, one in roles.items()} == {
        "ada": "user:ada@example.com",
        "grace": "user:grace@example.com",
        "restored-home-ada-20261125": "user:ada@example.com",
    }
    assert {tuple(one.body["roles"]) for one in roles.values()} == {("roles/workstations.user",)}
    developers = [one for one in RESOURCES if "user:" in one.id and one.kind != "workstation roles"]
    assert developers == []
    assert configuration()["maxUsableWorkstations"] == 1


def test_homes_outlive_their_workstation_and_are_snapshotted() -> None:
    (home,) = configuration()["persistentDirectories"]
    disk = {"diskType": "pd-balanced", "reclaimPolicy": "RETAIN", "sizeGb": 200, "fsType": "ext4"}
    assert home == {"mountPath": "/home", "gcePd": disk}
    (schedule,) = of(RESOURCES, "snapshot schedule")
    policy = schedule.body["snapshotSchedulePolicy"]
    assert policy["schedule"] == {"dailySchedule": {"daysInCycle": 1, "startTime": "04:00"}}
    assert policy["retentionPolicy"] == {"maxRetentionDays": 14, "onSourceDiskDelete": "KEEP_AUTO_SNAPSHOTS"}
    attached = {one.id: one.body["schedules"] for one in of(RESOURCES, "home schedule")}
    desks = {one.id: one.body["labels"][LABEL] for one in of(RESOURCES, "workstation")}
    assert all(id_ == label for id_, label in desks.items())
    assert attached == {name: [schedule.id] for name in desks}


def test_a_restored_home_comes_from_the_snapshot_and_says_no_size() -> None:
    ordinary, again = of(RESOURCES, "workstation configuration")
    (snapshot,) = of(RESOURCES, "snapshot")
    assert snapshot.body == {"sourceDisk": DISK}
    disk = again.body["persistentDirectories"][0]["gcePd"]
    assert disk == {
        "diskType": "pd-balanced",
        "reclaimPolicy": "RETAIN",
        "sourceSnapshot": "projects/cherry-ai-project/global/snapshots/home-ada-20261125",
    }
    assert snapshot.key in again.needs
    same = {name: value for name, value in again.body.items() if name != "persistentDirectories"}
    assert same == {name: value for name, value in ordinary.body.items() if name != "persistentDirectories"}
    assert PLAN.restored is not None
    assert (PLAN.restored.email, PLAN.restored.configuration) == ("ada@example.com", again)


def test_a_restoration_is_asked_for_by_address_or_workstation_and_named_by_the_day() -> None:
    day = date(2026, 11, 25)
    assert asked_restoration(LOCAL, day) is None
    for asked in ("ada", "ada@example.com"):
        found = asked_restoration(settings_content.with_values(restore__developer=asked), day)
        assert found == ("ada@example.com", "home-ada-20261125")
    named = settings_content.with_values(restore__developer="grace", restore__snapshot="nightly-7")
    assert asked_restoration(named, day) == ("grace@example.com", "nightly-7")
    with pytest.raises(ParameterError, match=r"restore is 'eve', and developers.emails has ada@example.com, grace"):
        asked_restoration(settings_content.with_values(restore__developer="eve"), day)


# --- any settings -----------------------------------------------------------------------------------------------------


def test_who_gets_a_workstation_is_asked_for() -> None:
    with pytest.raises(ParameterError, match=r"developers\.emails"):
        workstations(settings_content.with_values(developers__emails=None))
    nobody = workstations(settings_content.with_values(developers__emails=[]))
    assert (nobody.desks, of(nobody.resources, "workstation")) == ((), [])
    assert len(of(nobody.resources, "workstation configuration")) == 1


def test_two_who_would_have_the_same_workstation_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ada@example.com and Ada@other.org would both have the workstation ada"):
        settings_content.with_values(developers__emails=["ada@example.com", "Ada@other.org"])


@given(st.from_regex(r"[A-Za-z0-9._%+-]{1,64}@example\.com", fullmatch=True))
def test_any_address_gives_an_id_that_google_takes_or_is_refused(email: str) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,29})?", workstation_id(email))
    assert not workstation_id(email).endswith("-")


@given(
    developers=st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), max_size=5, unique=True),
    pool=st.integers(0, 9),
    disk=st.sampled_from([200, 500, 1000]),
    idle=st.integers(0, 90_000),
    tag=st.none() | st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True),
    private=st.booleans(),
)
def test_any_settings_give_bodies_that_google_takes_in_an_order_that_exists(
    developers: list[str], pool: int, disk: int, idle: int, tag: str | None, private: bool
) -> None:
    found = settings_content.with_values(
        developers__emails=[f"{name}@example.com" for name in developers],
        workstations__pool_size=pool,
        workstations__home_disk_gb=disk,
        workstations__idle_timeout_seconds=idle,
        workstations__image__tag=tag,
        workstations__private_endpoint=private,
    )
    plan = workstations(found)
    in_dependency_order((*presence(plan.foundation), *plan.resources))
    assert len(plan.desks) == len(developers)
    for resource in plan.resources:
        if resource.kind not in OWN_BODIES:
            assert discovery_schema.refusals(resource) == []
