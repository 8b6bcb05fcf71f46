"""Phase 1 as a whole: bodies as Google describes them, names as its APIs take them, and what comes before what."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import re
from graphlib import TopologicalSorter
from typing import Any

import discovery_schema
import pytest
import settings_content
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.resource import Ref, Resource, Text, references
from orchestra_lib.errors import ParameterError

RESOURCES = infrastructure(settings.load("local"))

# What the services say of the ids that are ours to choose. By kind: what the id has to look like.
_COMPUTE = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_MEMBER = r"serviceAccount:[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z][a-z0-9-]{4,28}[a-z0-9]\.iam\.gserviceaccount\.com|github"
_DISPLAY_NAME = r".{1,100}"
IDS = {
    "project": r"[a-z][a-z0-9-]{4,28}[a-z0-9]",
    "billing": "billingInfo",
    "service": r"[a-z][a-z0-9-]*\.googleapis\.com",
    "network": _COMPUTE,
    "subnetwork": _COMPUTE,
    "router": _COMPUTE,
    "firewall": _COMPUTE,
    "global address": _COMPUTE,
    "peering": _COMPUTE,
    "service account": r"[a-z]([-a-z0-9]{4,28}[a-z0-9])",
    "roles": _MEMBER,
    "service account roles": _MEMBER,
    "repository roles": _MEMBER,
    "secret roles": _MEMBER,
    "audit logs": "allServices",
    "workload identity pool": r"(?!gcp-)[a-z0-9-]{4,32}",
    "workload identity provider": r"(?!gcp-)[a-z0-9-]{4,32}",
    "log bucket": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}",
    "log sink": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}",
    "notification channel": _DISPLAY_NAME,
    "alert policy": _DISPLAY_NAME,
    "uptime check": _DISPLAY_NAME,
    "dashboard": r"[a-z0-9-]{1,63}",
    "budget": r".{1,60}",
    "secret": r"[A-Za-z0-9_-]{1,255}",
    "repository": r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
    "build trigger": r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?",
}


def of(resources: list[Resource], kind: str) -> list[Resource]:
    return [one for one in resources if one.kind == kind]


def one(resources: list[Resource], kind: str) -> Resource:
    (found,) = of(resources, kind)
    return found


# --- every resource ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.key)
def test_a_body_is_what_googles_description_of_its_kind_takes(resource: Resource) -> None:
    if resource.kind not in discovery_schema.OWN_BODIES:
        assert discovery_schema.refusals(resource) == []


@pytest.mark.parametrize(
    ("kind", "broken", "words"),
    [
        ("network", {"autoCreateSubnets": False}, "network.autoCreateSubnets is unknown"),
        ("network", {"autoCreateSubnetworks": "no"}, "neither true nor false"),
        ("network", {"routingConfig": {"routingMode": "WORLDWIDE"}}, "'WORLDWIDE'"),
        ("network", {"id": "1"}, "written by the service alone"),
        ("router", {"nats": [{"name": "a", "logConfig": {"filter": "SOME"}}]}, "nats[0].logConfig.filter"),
        ("firewall", {"allowed": [{"protocol": "tcp"}]}, "allowed[0].protocol is unknown"),
        ("firewall", {"priority": "1000"}, "no integer"),
        ("secret", {"labels": {"a": 1}}, "labels.a is no text"),
    ],
)
def test_the_check_of_bodies_finds_what_is_wrong(kind: str, broken: dict[str, Any], words: str) -> None:
    sound = of(RESOURCES, kind)[0]
    (refusal,) = discovery_schema.refusals(dataclasses.replace(sound, body={**sound.body, **broken}))
    assert words in refusal


def test_the_audit_log_types_are_those_that_the_api_has() -> None:
    known = discovery_schema.document("cloudresourcemanager.v3")["schemas"]["AuditLogConfig"]["properties"]["logType"]
    assert set(one(RESOURCES, "audit logs").body["logTypes"]) <= set(known["enum"])


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.key)
def test_an_id_and_a_parent_are_what_the_api_takes(resource: Resource) -> None:
    assert re.fullmatch(IDS[resource.kind], resource.id)
    kind = KINDS[resource.kind]
    if kind.access == "standard":
        path = f"{resource.parent}/{kind.path_segment}/{resource.id}"
        template = re.sub(r"^v\d/", "", discovery_schema.method(kind.api, f"{kind.collection}.get")["path"])
        parameters = discovery_schema.method(kind.api, f"{kind.collection}.get")["parameters"]
        pattern = re.sub(r"\{\+(\w+)\}", lambda match: parameters[match[1]]["pattern"].strip("^$"), template)
        pattern = re.sub(r"\{(\w+)\}", r"[^/]+", pattern)
        assert re.fullmatch(pattern, path), (pattern, path)


def test_each_resource_is_named_once() -> None:
    keys = [resource.key for resource in RESOURCES]
    assert sorted(set(keys)) == sorted(keys)


def test_the_same_settings_give_the_same_resources() -> None:
    assert infrastructure(settings.load("local")) == RESOURCES


# --- what comes before what -------------------------------------------------------------------------------------------


def before(resources: list[Resource], key: str) -> set[str]:
    """Everything that has to exist before a resource."""
    by_key = {resource.key: resource for resource in resources}
    found: set[str] = set()
    open_ = [key]
    while open_:
        for need in by_key[open_.pop()].all_needs:
            if need not in found:
                found.add(need)
                open_.append(need)
    return found


def assert_ordered(resources: list[Resource]) -> None:
    keys = {resource.key for resource in resources}
    graph = {resource.key: set(resource.all_needs) for resource in resources}
    assert {need for needs in graph.values() for need in needs} <= keys
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_every_need_exists_and_none_goes_round_in_a_circle() -> None:
    assert_ordered(RESOURCES)


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.key)
def test_a_resource_comes_after_the_project_its_billing_and_its_enabled_api(resource: Resource) -> None:
    project, billing = one(RESOURCES, "project").key, one(RESOURCES, "billing").key
    api = f"service:projects/cherry-ai-project/{KINDS[resource.kind].service}"
    linking = "service:projects/cherry-ai-project/cloudbilling.googleapis.com"
    wanted = {
        "project": set(),
        "billing": {project, linking},
        "service": {project, linking, billing} if resource.key != linking else {project},
    }.get(resource.kind, {project, linking, billing, api})
    assert wanted <= before(RESOURCES, resource.key)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("network", "subnetwork"),
        ("network", "router"),
        ("network", "firewall"),
        ("network", "global address"),
        ("global address", "peering"),
        ("workload identity pool", "workload identity provider"),
        ("log bucket", "log sink"),
        ("notification channel", "alert policy"),
        ("notification channel", "budget"),
        ("alert policy", "dashboard"),
        ("repository", "repository roles"),
    ],
)
def test_one_kind_comes_before_another(first: str, then: str) -> None:
    wanted = {resource.key for resource in of(RESOURCES, first)}
    for resource in of(RESOURCES, then):
        assert wanted & before(RESOURCES, resource.key), resource.key


def test_roles_come_after_the_account_that_gets_them_and_the_resource_that_they_hold_on() -> None:
    accounts = {account.id: account.key for account in of(RESOURCES, "service account")}
    for resource in RESOURCES:
        if resource.kind.endswith("roles") and resource.id != "github":
            assert accounts[resource.id.removeprefix("serviceAccount:").split("@")[0]] in before(
                RESOURCES, resource.key
            )
        if resource.kind == "service account roles":
            assert accounts[resource.parent.rsplit("/", 1)[1].split("@")[0]] in before(RESOURCES, resource.key)
        if resource.kind == "secret roles":
            assert resource.parent in {f"{one.parent}/secrets/{one.id}" for one in of(RESOURCES, "secret")}


def test_only_what_a_service_numbers_is_left_open_until_it_exists() -> None:
    fields = {ref.field for resource in RESOURCES for ref in references(resource.body)}
    assert fields == {"name", "projectNumber"}
    assert {ref.key for resource in RESOURCES for ref in references(resource.body) if ref.field == "projectNumber"} == {
        RESOURCES[0].key
    }


# --- settings ---------------------------------------------------------------------------------------------------------


def test_what_only_the_owner_can_say_is_asked_for_all_at_once_and_with_the_way_to_find_it() -> None:
    with pytest.raises(ParameterError) as caught:
        infrastructure(settings.load("production"))
    message = str(caught.value)
    assert "\n" not in message
    for word in ("billing.account", "gcloud billing accounts list", "notifications.email", "github.owner_id", "jq .id"):
        assert word in message


def test_settings_without_google_clouds_sections_are_refused_by_name() -> None:
    bare = settings_content.content()
    bare["rehearses"] = None
    for name in ("network", "github"):
        del bare[name]
    with pytest.raises(ParameterError, match="has no sections network, github"):
        infrastructure(settings.Settings.model_validate(bare))


_names = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
_ids = st.integers(min_value=1, max_value=10**18).map(str)


@st.composite
def _ranges(draw: st.DrawFn) -> dict[str, str]:
    """Three private ranges that do not overlap."""
    octets = draw(st.lists(st.integers(0, 255), min_size=3, max_size=3, unique=True))
    places = ("primary_subnet", "secondary_subnet", "service_range")
    return {
        f"network__{place}": f"10.{octet}.0.0/{draw(st.integers(16, 24))}"
        for place, octet in zip(places, octets, strict=True)
    }


@given(
    ranges=_ranges(),
    network=_names,
    branch=st.from_regex(r"[A-Za-z0-9._/-]{1,30}", fullmatch=True),
    ids=st.tuples(_ids, _ids),
    host=st.none() | st.just("api.example.com"),
    connected=st.none() | st.just("projects/p/locations/us-central1/connections/c/repositories/r"),
    budget=st.floats(min_value=0.01, max_value=1e7),
    regions=st.permutations(["us-central1", "us-east1", "europe-west4"]),
)
def test_any_settings_give_bodies_that_google_takes_in_an_order_that_exists(
    ranges: dict[str, str],
    network: str,
    branch: str,
    ids: tuple[str, str],
    host: str | None,
    connected: str | None,
    budget: float,
    regions: list[str],
) -> None:
    resources = infrastructure(
        settings_content.with_values(
            **ranges,
            network__name=network,
            github__branch=branch,
            github__owner_id=ids[0],
            github__repository_id=ids[1],
            github__connected_repository=connected,
            api__host=host,
            cost__budget_usd=budget,
            regions__primary=regions[0],
            regions__secondary=regions[1],
        )
    )
    assert_ordered(resources)
    for resource in resources:
        assert re.fullmatch(IDS[resource.kind], resource.id), resource.key
        if resource.kind not in discovery_schema.OWN_BODIES:
            assert discovery_schema.refusals(resource) == []
    json.dumps([resource.body for resource in resources], default=lambda value: str(value))


# --- project, services, network ---------------------------------------------------------------------------------------


def test_the_project_lies_under_its_organisation_and_is_paid_for() -> None:
    project, billing = one(RESOURCES, "project"), one(RESOURCES, "billing")
    assert (project.parent, project.id) == ("organizations/873291114285", "cherry-ai-project")
    assert project.body["parent"] == project.parent
    assert billing.body == {"billingAccountName": "billingAccounts/01A2B3-C4D5E6-F70819"}


def test_the_apis_of_all_phases_are_enabled_and_each_once() -> None:
    hosts = [service.id for service in of(RESOURCES, "service")]
    assert len(hosts) == len(set(hosts))
    assert {"alloydb.googleapis.com", "run.googleapis.com", "workstations.googleapis.com"} <= set(hosts)
    assert all(service.body == {} for service in of(RESOURCES, "service"))


def test_subnets_are_private_logged_and_in_both_regions() -> None:
    subnets = of(RESOURCES, "subnetwork")
    assert [subnet.parent.rsplit("/", 1)[1] for subnet in subnets] == ["us-central1", "us-east1"]
    assert all(subnet.body["privateIpGoogleAccess"] and subnet.body["logConfig"]["enable"] for subnet in subnets)
    assert one(RESOURCES, "network").body["autoCreateSubnetworks"] is False
    routers = of(RESOURCES, "router")
    assert [router.parent for router in routers] == [subnet.parent for subnet in subnets]
    assert all(router.body["nats"][0]["natIpAllocateOption"] == "AUTO_ONLY" for router in routers)


def test_the_service_range_is_reserved_as_the_settings_name_it_and_peered_by_the_projects_number() -> None:
    address, peering = one(RESOURCES, "global address"), one(RESOURCES, "peering")
    assert f"{address.body['address']}/{address.body['prefixLength']}" == "10.64.0.0/16"
    assert peering.body["reservedPeeringRanges"] == [address.id]
    assert peering.body["network"] == Text(
        "projects/{}/global/networks/orchestra", (Ref(RESOURCES[0].key, "projectNumber"),)
    )


def _lets_in(rule: Resource) -> bool:
    return rule.body["direction"] == "INGRESS" and "allowed" in rule.body


def test_everything_is_denied_that_no_rule_allows_in_both_directions() -> None:
    for direction, ranges in (("INGRESS", "sourceRanges"), ("EGRESS", "destinationRanges")):
        rules = [rule.body for rule in of(RESOURCES, "firewall") if rule.body["direction"] == direction]
        (deny,) = [rule for rule in rules if "denied" in rule]
        assert (deny[ranges], deny["denied"]) == (["0.0.0.0/0"], [{"IPProtocol": "all"}])
        assert "targetTags" not in deny
        assert deny["logConfig"] == {"enable": True}
        assert all(rule["priority"] < deny["priority"] for rule in rules if "allowed" in rule)


def test_nothing_comes_in_from_outside_but_ssh_through_identity_aware_proxy() -> None:
    inside = [ipaddress.ip_network(subnet.body["ipCidrRange"]) for subnet in of(RESOURCES, "subnetwork")]
    for rule in filter(_lets_in, of(RESOURCES, "firewall")):
        sources = [ipaddress.ip_network(source) for source in rule.body["sourceRanges"]]
        if not all(any(source.subnet_of(subnet) for subnet in inside) for source in sources):
            assert rule.body["sourceRanges"] == ["35.235.240.0/20"]
            assert rule.body["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]


def test_the_database_is_reached_on_its_own_ports_and_the_internet_by_https_alone() -> None:
    out = [
        rule.body for rule in of(RESOURCES, "firewall") if rule.body["direction"] == "EGRESS" and "allowed" in rule.body
    ]
    by_range = {tuple(rule["destinationRanges"]): rule["allowed"] for rule in out if "targetTags" not in rule}
    assert by_range["0.0.0.0/0",] == [{"IPProtocol": "tcp", "ports": ["443"]}]
    assert by_range["10.64.0.0/16",] == [{"IPProtocol": "tcp", "ports": ["5432", "5433", "6432"]}]
