"""Phase 3's resources: as Google describes them, closed, backed up, in two regions, and who may log in."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import discovery_schema
import pytest
import settings_content
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.foundation import foundation, presence
from orchestra_lib.blueprint.memory import ADMINISTRATORS, IAM_USERS, database_user, memory
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.plan import in_dependency_order
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.errors import ParameterError
from orchestra_lib.local.control.services.alloydb_flags import check as check_flags

LOCAL = settings.load("local")
OPERATOR = "operator@example.com"
PLAN = memory(LOCAL, OPERATOR)
CLUSTERS = ("database cluster", "secondary database cluster")
INSTANCES = ("database instance", "secondary database instance")


def of(kind: str, resources: tuple[Resource, ...] = PLAN.resources) -> Resource:
    (found,) = (one for one in resources if one.kind == kind)
    return found


# --- as Google takes them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", PLAN.resources, ids=lambda resource: resource.key)
def test_a_body_is_what_googles_description_of_its_kind_takes(resource: Resource) -> None:
    assert discovery_schema.refusals(resource) == []


@pytest.mark.parametrize(
    ("kind", "broken", "words"),
    [
        ("database cluster", {"state": "READY"}, "written by the service alone"),
        ("database cluster", {"databaseVersion": "POSTGRES_12"}, "'POSTGRES_12'"),
        ("database instance", {"ipAddress": "10.0.0.2"}, "written by the service alone"),
        ("database instance", {"databaseFlags": {"max_connections": 1000}}, "is no text: 1000"),
        ("database user", {"databaseRole": "x"}, "databaseRole is unknown"),
    ],
)
def test_the_check_of_bodies_finds_what_is_wrong(kind: str, broken: dict[str, Any], words: str) -> None:
    sound = of(kind) if kind != "database user" else PLAN.resources[2]
    (refusal,) = discovery_schema.refusals(replace(sound, body={**sound.body, **broken}))
    assert words in refusal


@pytest.mark.parametrize("resource", PLAN.resources, ids=lambda resource: resource.key)
def test_a_path_is_what_the_api_takes(resource: Resource) -> None:
    kind = KINDS[resource.kind]
    get = discovery_schema.method(kind.api, f"{kind.collection}.get")
    pattern = get["parameters"]["name"]["pattern"]
    assert re.fullmatch(pattern, f"{resource.parent}/{kind.path_segment}/{resource.id}")


def test_the_flags_are_flags_of_alloydb() -> None:
    check_flags(of("database instance").body["databaseFlags"], "POSTGRES_16")


@given(
    cpus=st.sampled_from((2, 4, 8, 16, 32, 64, 96, 128)),
    availability=st.sampled_from(("ZONAL", "REGIONAL")),
    days=st.integers(1, 35),
    retention=st.integers(1, 365),
    hours=st.lists(st.integers(0, 23), min_size=1, unique=True),
    connections=st.integers(1, 262_143),
    administrators=st.lists(st.from_regex(r"[a-z]{1,8}@example\.com", fullmatch=True), unique=True),
)
def test_any_settings_give_bodies_that_google_takes_in_an_order_that_exists(
    cpus: int,
    availability: str,
    days: int,
    retention: int,
    hours: list[int],
    connections: int,
    administrators: list[str],
) -> None:
    found = settings_content.with_values(
        memory__alloydb__cpu_count=cpus,
        memory__alloydb__machine_type=f"n2-highmem-{cpus}",
        memory__alloydb__availability=availability,
        memory__alloydb__recovery_window_days=days,
        memory__alloydb__automated_backup_retention_days=retention,
        memory__alloydb__backup_start_times=[f"{hour:02d}:00" for hour in hours],
        memory__alloydb__max_connections=connections,
        memory__alloydb__administrators=administrators,
    )
    plan = memory(found, OPERATOR)
    in_dependency_order((*plan.foundation, *plan.resources))
    for resource in plan.resources:
        assert discovery_schema.refusals(resource) == []
    for kind in CLUSTERS:
        policy = of(kind, plan.resources).body["automatedBackupPolicy"]
        assert policy["timeBasedRetention"] == {"retentionPeriod": f"{retention * 86_400}s"}
        assert [time["hours"] for time in policy["weeklySchedule"]["startTimes"]] == hours
    users = [one for one in plan.resources if one.kind == "database user"]
    assert len(users) == 3 + len(set(administrators) - {OPERATOR})


# --- what has to hold of them -----------------------------------------------------------------------------------------


def test_the_database_is_reached_from_inside_through_connectors_alone() -> None:
    for kind in INSTANCES:
        body = of(kind).body
        assert body["clientConnectionConfig"]["requireConnectors"] is True
        assert body["clientConnectionConfig"]["sslConfig"]["sslMode"] == "ENCRYPTED_ONLY"
        assert body["networkConfig"] == {"enablePublicIp": False}
        assert body["dataApiAccess"] == "DISABLED"
    address = next(one for one in infrastructure(LOCAL) if one.kind == "global address")
    for kind in CLUSTERS:
        assert of(kind).body["networkConfig"]["allocatedIpRange"] == address.id


def test_the_copy_is_in_the_other_region_as_large_and_as_often_backed_up() -> None:
    primary, secondary = (of(kind) for kind in CLUSTERS)
    assert LOCAL.regions is not None
    assert primary.parent.endswith(LOCAL.regions.primary)
    assert secondary.parent.endswith(LOCAL.regions.secondary)
    assert secondary.body["secondaryConfig"] == {"primaryClusterName": f"{primary.parent}/clusters/{primary.id}"}
    for name in ("automatedBackupPolicy", "continuousBackupConfig", "networkConfig"):
        assert primary.body[name] == secondary.body[name]
    one, other = (of(kind) for kind in INSTANCES)
    for name in ("machineConfig", "databaseFlags", "clientConnectionConfig"):
        assert one.body[name] == other.body[name]


def test_nobody_has_a_password_and_the_api_is_no_administrator() -> None:
    users = {one.id: one.body for one in PLAN.resources if one.kind == "database user"}
    assert {body["userType"] for body in users.values()} == {"ALLOYDB_IAM_USER"}
    assert not any("password" in body for body in users.values())
    assert "initialUser" not in of("database cluster").body
    held = {name: set(body["databaseRoles"]) for name, body in users.items()}
    assert held == {
        "orchestra-api@cherry-ai-project.iam": {IAM_USERS},
        "orchestra-migration@cherry-ai-project.iam": {IAM_USERS, ADMINISTRATORS},
        OPERATOR: {IAM_USERS, ADMINISTRATORS},
    }


@pytest.mark.parametrize(
    ("email", "name"),
    [
        ("Ada@Example.com", "ada@example.com"),
        ("runner@my-project.iam.gserviceaccount.com", "runner@my-project.iam"),
        ("1234-compute@developer.gserviceaccount.com", "1234-compute@developer"),
    ],
)
def test_a_principals_name_in_the_database(email: str, name: str) -> None:
    assert database_user(email) == name


def test_who_runs_it_as_one_of_its_accounts_is_that_accounts_user() -> None:
    account = "orchestra-migration@cherry-ai-project.iam.gserviceaccount.com"
    assert memory(LOCAL, account).resources == memory(LOCAL).resources


def test_an_environment_without_a_database_is_told_so() -> None:
    with pytest.raises(ParameterError, match=r"no section memory\.alloydb"):
        memory(settings_content.with_values(memory__alloydb=None))


# --- what it stands on ------------------------------------------------------------------------------------------------


def test_it_stands_on_phase_1_as_phase_1_wants_it_and_makes_nothing_of_it() -> None:
    first = {one.key: one for one in infrastructure(LOCAL)}
    assert all(first[one.key] == one for one in PLAN.foundation)
    assert not first.keys() & {one.key for one in PLAN.resources}
    kinds = {one.kind for one in PLAN.foundation}
    assert kinds == {
        "project", "billing", "service", "network", "global address", "peering", "service account", "roles", "secret"
    }  # fmt: skip
    assert len(PLAN.foundation) < 25, "the least that a rehearsal has to make"


def test_every_need_is_there_with_the_foundation_and_without_what_it_holds() -> None:
    in_dependency_order((*PLAN.foundation, *PLAN.resources))
    there = presence(PLAN.foundation)
    in_dependency_order((*there, *PLAN.resources))
    assert {tuple(one.body) for one in there if one.kind != "peering"} == {()}
    assert [tuple(one.body) for one in there if one.kind == "peering"] == [("network",)]
    assert {one.key for one in PLAN.foundation} - {one.key for one in there} == {
        one.key for one in PLAN.foundation if one.kind == "billing"
    }


def test_a_foundation_holds_all_that_it_needs_itself() -> None:
    found = foundation(LOCAL, PLAN.resources)
    keys = {one.key for one in found}
    assert all(need in keys for one in found for need in one.all_needs)
    assert not any(one.kind == "secret" for one in found)
    with pytest.raises(KeyError):
        foundation(LOCAL, (), ("secret:projects/p/nothing",))
