"""Network Connectivity: hubs with their groups and spokes, internal ranges, service connection policies, routes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from control_plane import Server, serving

PROJECT = "networks-project"
LOCATION = f"projects/{PROJECT}/locations"
GLOBAL = f"/networkconnectivity/v1/{LOCATION}/global"
NETWORK = f"projects/{PROJECT}/global/networks/n"
_numbers = count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("control")) as running:
        running.new_project(PROJECT, "networkconnectivity", "compute")
        yield running


def done(server, operation):
    assert operation.status == 200, operation.body
    polled = server.get(f"/networkconnectivity/v1/{operation.body['name']}").body
    assert polled["done"], polled
    return polled["response"]


def new_hub(server, **body):
    name = f"hub-{next(_numbers)}"
    return done(server, server.post(f"{GLOBAL}/hubs?hubId={name}", body))


def create_spoke(server, hub, **more):
    body = {"hub": hub["name"], "linkedVpcNetwork": {"uri": NETWORK}, **more}
    return server.post(f"{GLOBAL}/spokes?spokeId=spoke-{next(_numbers)}", body)


def create_range(server, **body):
    path = f"{GLOBAL}/internalRanges?internalRangeId=range-{next(_numbers)}"
    return server.post(path, {"network": NETWORK, **body})


def test_a_hub_has_the_groups_and_route_tables_of_its_topology(server):
    star = new_hub(server, presetTopology="STAR")
    groups = server.get(f"/networkconnectivity/v1/{star['name']}/groups").body["groups"]
    assert [group["name"].rsplit("/", 1)[1] for group in groups] == ["center", "edge"]
    assert [group["routeTable"] for group in groups] == star["routeTables"]
    assert server.get(f"/networkconnectivity/v1/{star['routeTables'][0]}").body["state"] == "ACTIVE"
    assert new_hub(server)["presetTopology"] == "MESH"


def test_a_spoke_is_in_one_group_of_its_hub(server):
    star, mesh = new_hub(server, presetTopology="STAR"), new_hub(server)
    assert create_spoke(server, star).status == 400
    assert create_spoke(server, star, group=f"{star['name']}/groups/default").status == 400
    assert done(server, create_spoke(server, star, group="edge"))["group"] == f"{star['name']}/groups/edge"
    assert done(server, create_spoke(server, mesh))["group"] == f"{mesh['name']}/groups/default"
    both = {"linkedVpnTunnels": {"uris": ["t"]}}
    assert create_spoke(server, mesh, **both).status == 400


def test_a_hub_lists_its_spokes_and_is_not_deleted_while_it_has_any(server):
    hub = new_hub(server)
    url = f"/networkconnectivity/v1/{hub['name']}"
    assert server.get(f"{url}:listSpokes").body == {}
    spoke = done(server, create_spoke(server, hub))
    assert [one["name"] for one in server.get(f"{url}:listSpokes").body["spokes"]] == [spoke["name"]]
    assert "has the spoke" in server.delete(url).message
    done(server, server.delete(f"/networkconnectivity/v1/{spoke['name']}"))
    done(server, server.delete(url))


def test_an_internal_range_is_found_where_nothing_else_is(server):
    first = done(server, create_range(server, prefixLength=24))
    second = done(server, create_range(server, prefixLength=24))
    assert (first["ipCidrRange"], second["ipCidrRange"]) == ("10.0.0.0/24", "10.0.1.0/24")
    assert (first["usage"], first["peering"], first["rangeStatus"]) == ("FOR_VPC", "FOR_SELF", "ACTIVE")
    chosen = done(server, create_range(server, prefixLength=28, targetCidrRange=["172.20.0.0/16"]))
    assert chosen["ipCidrRange"] == "172.20.0.0/28"
    elsewhere = create_range(server, prefixLength=24, network=f"projects/{PROJECT}/global/networks/other")
    assert done(server, elsewhere)["ipCidrRange"] == "10.0.0.0/24"


@pytest.mark.parametrize(
    "body",
    [{}, {"ipCidrRange": "nonsense"}, {"ipCidrRange": "192.168.0.0/24", "prefixLength": 25}],
)
def test_an_internal_range_that_is_none_is_refused(server, body):
    assert create_range(server, **body).status == 400


def test_an_internal_range_does_not_overlap_unless_it_may(server):
    done(server, create_range(server, ipCidrRange="192.168.8.0/24"))
    assert "overlaps with" in create_range(server, ipCidrRange="192.168.8.128/25").message
    done(server, create_range(server, ipCidrRange="192.168.8.128/25", overlaps=["OVERLAP_EXISTING_SUBNET_RANGE"]))


def test_a_network_has_one_policy_for_a_class_of_services_in_a_region(server):
    policies = f"/networkconnectivity/v1/{LOCATION}/us-central1/serviceConnectionPolicies"
    body = {"network": NETWORK, "serviceClass": "google-cloud-alloydb"}
    made = done(server, server.post(f"{policies}?serviceConnectionPolicyId=one", body))
    assert made["infrastructure"] == "PSC"
    assert server.post(f"{policies}?serviceConnectionPolicyId=two", body).status == 409
    assert server.post(f"{policies}?serviceConnectionPolicyId=two", {"network": NETWORK}).status == 400


def test_a_policy_based_route_has_one_kind_of_next_hop(server):
    routes = f"{GLOBAL}/policyBasedRoutes"
    body = {"network": NETWORK, "filter": {"protocolVersion": "IPV4"}}
    assert server.post(f"{routes}?policyBasedRouteId=r", body).status == 400
    made = done(server, server.post(f"{routes}?policyBasedRouteId=r", {**body, "nextHopIlbIp": "10.0.0.9"}))
    assert (made["priority"], made["filter"]["ipProtocol"]) == (1000, "ALL")
