"""Compute over HTTP: what the service fills in, what it refuses at once and what in an operation, quotas, catalogue."""

from __future__ import annotations

import ipaddress
from itertools import count

import pytest
from control_plane import PROJECT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BASE = "https://www.googleapis.com/compute/v1"
HERE = f"projects/{PROJECT}"
API = f"/compute/v1/{HERE}"
REGION = f"{API}/regions/us-central1"
ZONE = f"{API}/zones/us-central1-a"
_numbers = count(1)


def name_of(prefix):
    return f"{prefix}-{next(_numbers)}"


def done(server, reply):
    """The operation at its end."""
    assert reply.status == 200, reply.body
    place = reply.body["selfLink"].removeprefix("https://www.googleapis.com")
    operation = server.get(place).body
    assert operation["status"] == "DONE"
    return operation


def made(server, collection, body):
    """The link of a new resource; collection is its path below the project."""
    operation = done(server, server.post(f"{API}/{collection}", body))
    assert "error" not in operation, operation
    return f"{API}/{collection}/{body['name']}"


def network(server, **body):
    return made(server, "global/networks", {"name": name_of("net"), "autoCreateSubnetworks": False, **body})


def link(path):
    return path.replace("/compute/v1/", f"{BASE}/", 1)


def subnetwork(server, of, cidr, region="us-central1", **body):
    given_body = {"name": name_of("sub"), "network": link(of), "ipCidrRange": cidr, **body}
    return made(server, f"regions/{region}/subnetworks", given_body)


@pytest.fixture
def fresh(server):
    """The module's server; what a test left in compute is gone after it."""
    yield server
    with server.control.writing():
        server.control.store.remove(f"compute/{HERE}")


@pytest.fixture
def net(fresh):
    return network(fresh)


# --- what the service fills in ------------------------------------------------------------------------------------


def test_a_network_gets_its_links_and_its_routing(fresh, net):
    body = fresh.get(net).body
    assert body["selfLink"] == link(net)
    assert body["selfLinkWithId"] == f"{BASE}/{HERE}/global/networks/{body['id']}"
    assert body["kind"] == "compute#network"
    assert body["routingConfig"] == {"routingMode": "REGIONAL", "bgpBestPathSelectionMode": "LEGACY"}
    assert body["networkFirewallPolicyEnforcementOrder"] == "AFTER_CLASSIC_FIREWALL"


def test_an_operation_names_its_target_by_id_even_when_it_is_gone(fresh, net):
    identifier = fresh.get(net).body["id"]
    operation = done(fresh, fresh.delete(net))
    assert operation["targetId"] == identifier
    assert operation["targetLink"] == link(net)
    assert fresh.get(net).status == 404


@pytest.mark.parametrize(
    "form",
    ["{base}/{here}/{rest}", "https://compute.googleapis.com/compute/v1/{here}/{rest}", "{here}/{rest}", "{rest}"],
)
def test_a_reference_becomes_a_whole_link_whatever_was_sent(fresh, net, form):
    rest = f"global/networks/{net.rsplit('/', 1)[1]}"
    sent = form.format(base=BASE, here=HERE, rest=rest)
    path = made(
        fresh, "global/firewalls", {"name": name_of("rule"), "network": sent, "allowed": [{"IPProtocol": "tcp"}]}
    )
    assert fresh.get(path).body["network"] == link(net)


def test_a_name_alone_is_no_reference(fresh, net):
    body = {"name": "r", "network": net.rsplit("/", 1)[1]}
    refused = fresh.post(f"{REGION}/routers", body)
    assert refused.status == 400
    assert "The URL is malformed." in refused.message


def test_a_reference_to_nothing_is_not_found(fresh):
    refused = fresh.post(f"{REGION}/routers", {"name": "r", "network": "global/networks/none"})
    assert (refused.status, refused.message) == (404, f"The resource '{HERE}/global/networks/none' was not found")


def test_a_network_lists_its_subnetworks_and_no_other_does(fresh, net):
    other = network(fresh)
    path = subnetwork(fresh, net, "10.1.0.0/24")
    assert fresh.get(net).body["subnetworks"] == [link(path)]
    assert "subnetworks" not in fresh.get(other).body


def test_a_subnetwork_gets_its_gateway_and_defaults(fresh, net):
    body = fresh.get(subnetwork(fresh, net, "10.1.0.0/24")).body
    assert body["gatewayAddress"] == "10.1.0.1"
    assert (body["purpose"], body["stackType"], body["privateIpGoogleAccess"]) == ("PRIVATE", "IPV4_ONLY", False)
    assert body["region"] == f"{BASE}/{HERE}/regions/us-central1"
    assert "state" not in body
    nat = fresh.get(subnetwork(fresh, net, "10.2.0.0/24", purpose="PRIVATE_NAT")).body
    assert "stackType" not in nat


def test_flow_logs_say_the_same_in_both_fields(fresh, net):
    body = fresh.get(subnetwork(fresh, net, "10.1.0.0/24", enableFlowLogs=True)).body
    assert body["logConfig"]["enable"] is True
    assert body["logConfig"]["aggregationInterval"] == "INTERVAL_5_SEC"
    off = fresh.get(subnetwork(fresh, net, "10.2.0.0/24", logConfig={"enable": False})).body
    assert off["enableFlowLogs"] is False


def test_a_network_in_auto_mode_has_a_subnetwork_in_every_region_and_takes_them_along(fresh):
    auto = network(fresh, autoCreateSubnetworks=True)
    links = fresh.get(auto).body["subnetworks"]
    assert len(links) > 40
    here = fresh.get(f"{REGION}/subnetworks/{auto.rsplit('/', 1)[1]}").body
    assert here["ipCidrRange"] == "10.128.0.0/20"
    refused = fresh.post(
        f"{REGION}/subnetworks", {"name": "mine", "network": link(auto), "ipCidrRange": "10.200.0.0/16"}
    )
    assert "cannot overlap with 10.128.0.0/9" in refused.message
    assert "error" not in done(fresh, fresh.delete(auto))
    assert fresh.get(f"{REGION}/subnetworks").body.get("items") is None


def test_the_nat_of_a_router_is_completed_by_its_type(fresh, net):
    path = made(fresh, "regions/us-central1/routers", {"name": "r", "network": link(net)})
    assert fresh.get(path).body["encryptedInterconnectRouter"] is False
    public = {
        "name": "n",
        "natIpAllocateOption": "AUTO_ONLY",
        "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
    }
    private = {"name": "p", "type": "PRIVATE", "natIpAllocateOption": "USE_SHARED_RANGES"}
    operation = done(fresh, fresh.patch(path, {"nats": [public, private]}))
    assert operation["operationType"] == "patch"
    first, second = fresh.get(path).body["nats"]
    assert (first["type"], first["autoNetworkTier"], first["effectiveTcpTimeWaitTimeoutSec"]) == (
        "PUBLIC",
        "PREMIUM",
        120,
    )
    assert first["endpointTypes"] == ["ENDPOINT_TYPE_VM"]
    assert second["enableDynamicPortAllocation"] is True
    assert "natIpAllocateOption" not in second


def test_a_rule_without_sources_is_for_all(fresh, net):
    path = made(fresh, "global/firewalls", {"name": "rule", "network": link(net), "allowed": [{"IPProtocol": "tcp"}]})
    body = fresh.get(path).body
    assert (body["direction"], body["priority"], body["sourceRanges"]) == ("INGRESS", 1000, ["0.0.0.0/0"])
    tagged = made(
        fresh,
        "global/firewalls",
        {"name": "two", "network": link(net), "sourceTags": ["t"], "denied": [{"IPProtocol": "all"}]},
    )
    assert "sourceRanges" not in fresh.get(tagged).body


# --- addresses ----------------------------------------------------------------------------------------------------


def test_labels_of_an_address_are_set_by_their_own_method_alone(fresh):
    path = made(fresh, "global/addresses", {"name": "a", "labels": {"from": "insert"}})
    before = fresh.get(path).body
    assert "labels" not in before
    call = {"labels": {"team": "x"}, "labelFingerprint": before["labelFingerprint"]}
    operation = fresh.post(f"{path}/setLabels", call).body
    assert (operation["status"], operation["progress"], operation["operationType"]) == ("DONE", 100, "setLabels")
    after = fresh.get(path).body
    assert after["labels"] == {"team": "x"}
    assert after["labelFingerprint"] != before["labelFingerprint"]
    assert fresh.post(f"{path}/setLabels", call).status == 412


def test_ranges_for_producers_lie_beside_each_other_and_beside_the_subnetworks(fresh, net):
    subnetwork(fresh, net, "10.0.0.0/16")
    wanted = {"addressType": "INTERNAL", "purpose": "VPC_PEERING", "prefixLength": 16, "network": link(net)}
    paths = [made(fresh, "global/addresses", {"name": f"range-{index}", **wanted}) for index in range(2)]
    assert [fresh.get(path).body["address"] for path in paths] == ["10.1.0.0", "10.2.0.0"]


def test_an_internal_address_is_from_its_subnetwork(fresh, net):
    sub = subnetwork(fresh, net, "10.1.0.0/29")
    wanted = {"addressType": "INTERNAL", "subnetwork": link(sub)}
    paths = [made(fresh, "regions/us-central1/addresses", {"name": f"a-{index}", **wanted}) for index in range(4)]
    bodies = [fresh.get(path).body for path in paths]
    assert [body["address"] for body in bodies] == ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"]
    assert bodies[0]["purpose"] == "GCE_ENDPOINT"
    refused = fresh.post(f"{REGION}/addresses", {"name": "a-5", **wanted})
    assert "exhausted" in refused.message


def test_an_address_in_use_says_by_whom_and_stays(fresh, net):
    address = made(fresh, "regions/us-central1/addresses", {"name": "a"})
    router = made(fresh, "regions/us-central1/routers", {"name": "r", "network": link(net)})
    nat = {"name": "n", "natIpAllocateOption": "MANUAL_ONLY", "natIps": [link(address)]}
    done(fresh, fresh.patch(router, {"nats": [nat]}))
    body = fresh.get(address).body
    assert (body["status"], body["users"]) == ("IN_USE", [link(router)])
    refused = fresh.delete(address)
    assert refused.status == 400
    assert refused.body["error"]["errors"][0]["reason"] == "resourceInUseByAnotherResource"
    done(fresh, fresh.patch(router, {"nats": []}))
    assert fresh.get(address).body["status"] == "RESERVED"
    assert "error" not in done(fresh, fresh.delete(address))


# --- what is refused ----------------------------------------------------------------------------------------------


def test_delete_of_a_network_in_use_fails_in_its_operation(fresh, net):
    path = subnetwork(fresh, net, "10.1.0.0/24")
    operation = done(fresh, fresh.delete(net))
    words = f"The network resource '{net[12:]}' is already being used by '{path[12:]}'"
    assert operation["error"]["errors"] == [{"code": "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", "message": words}]
    assert (operation["httpErrorStatusCode"], operation["httpErrorMessage"]) == (400, "BAD REQUEST")
    assert fresh.get(net).status == 200


def test_delete_of_a_subnetwork_in_use_is_refused_at_once(fresh, net):
    path = subnetwork(fresh, net, "10.1.0.0/24")
    wanted = {"name": "a", "addressType": "INTERNAL", "subnetwork": link(path)}
    made(fresh, "regions/us-central1/addresses", wanted)
    refused = fresh.delete(path)
    assert refused.status == 400
    assert "The subnetwork resource" in refused.message


@given(first=st.integers(0, 255), second=st.integers(0, 255), short=st.integers(16, 20), long=st.integers(20, 24))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_subnetworks_of_a_network_never_overlap(fresh, first, second, short, long):
    fresh.inject(quotas=[{"metric": "NETWORKS", "limit": 1000}])
    one = ipaddress.ip_network(f"10.{first}.0.0/{short}", strict=False)
    two = ipaddress.ip_network(f"10.{second}.8.0/{long}", strict=False)
    of = network(fresh)
    subnetwork(fresh, of, str(one))
    name = name_of("sub")
    reply = fresh.post(f"{REGION}/subnetworks", {"name": name, "network": link(of), "ipCidrRange": str(two)})
    assert reply.status == (400 if one.overlaps(two) else 200)
    if one.overlaps(two):
        assert f"Invalid IPCidrRange: {two} conflicts with existing subnetwork" in reply.message


@pytest.mark.parametrize("cidr", ["10.0.0.0", "10.0.0.1/24", "10.0.0.0/33", "north", "10.0.0.0/30"])
def test_what_is_no_range_is_refused(fresh, net, cidr):
    refused = fresh.post(f"{REGION}/subnetworks", {"name": "s", "network": link(net), "ipCidrRange": cidr})
    assert refused.status == 400
    assert "resource.ipCidrRange" in refused.message


def test_a_range_grows_and_does_not_shrink(fresh, net):
    path = subnetwork(fresh, net, "10.1.0.0/24")
    operation = done(fresh, fresh.post(f"{path}/expandIpCidrRange", {"ipCidrRange": "10.1.0.0/20"}))
    assert operation["operationType"] == "expandIpCidrRange"
    assert fresh.get(path).body["ipCidrRange"] == "10.1.0.0/20"
    assert fresh.post(f"{path}/expandIpCidrRange", {"ipCidrRange": "10.1.0.0/24"}).status == 400


def test_an_update_that_knows_another_state_is_refused(fresh, net):
    path = subnetwork(fresh, net, "10.1.0.0/24")
    stale = fresh.get(path).body["fingerprint"]
    done(fresh, fresh.patch(path, {"description": "new", "fingerprint": stale}))
    assert fresh.patch(path, {"description": "newer", "fingerprint": stale}).status == 412
    assert fresh.patch(path, {"description": "newer"}).status == 412


def test_an_update_whose_document_asks_for_no_fingerprint_goes_without(fresh, net):
    path = made(fresh, "regions/us-central1/routers", {"name": "r", "network": link(net)})
    done(fresh, fresh.patch(path, {"description": "new"}))
    assert fresh.get(path).body["description"] == "new"


def test_a_failed_operation_says_a_code_of_operations(fresh):
    fresh.inject(faults=[{"method": "compute.networks.insert", "answer": "operation"}])
    operation = done(fresh, fresh.post(f"{API}/global/networks", {"name": "n"}))
    assert operation["error"]["errors"][0]["code"] == "INTERNAL_ERROR"
    assert fresh.get(f"{API}/global/networks/n").status == 404


# --- peerings and verbs -------------------------------------------------------------------------------------------


def test_a_peering_is_active_when_both_sides_have_it(fresh):
    one, two = network(fresh), network(fresh)

    def peer(of, to):
        details = {"name": "p", "network": link(to), "exchangeSubnetRoutes": True}
        done(fresh, fresh.post(f"{of}/addPeering", {"networkPeering": details}))

    def states():
        return [[entry["state"] for entry in fresh.get(path).body.get("peerings", [])] for path in (one, two)]

    peer(one, two)
    assert states() == [["INACTIVE"], []]
    peer(two, one)
    assert states() == [["ACTIVE"], ["ACTIVE"]]
    done(fresh, fresh.post(f"{one}/removePeering", {"name": "p"}))
    assert states() == [[], ["INACTIVE"]]
    assert fresh.post(f"{one}/removePeering", {"name": "p"}).status == 400


def test_a_service_connection_is_a_peering_of_its_network(fresh):
    with fresh.control.writing():
        name = f"projects/{PROJECT}/services/servicenetworking.googleapis.com"
        fresh.control.store.put(f"serviceusage/{name}", {"name": name, "state": "ENABLED"})
    of = network(fresh)
    wanted = {"addressType": "INTERNAL", "purpose": "VPC_PEERING", "prefixLength": 16, "network": link(of)}
    made(fresh, "global/addresses", {"name": "range", **wanted})
    number = fresh.control.projects.number(PROJECT)
    body = {"network": f"projects/{number}/global/networks/{of.rsplit('/', 1)[1]}", "reservedPeeringRanges": ["range"]}
    connections = "/servicenetworking/v1/services/servicenetworking.googleapis.com/connections"
    operation = fresh.post(connections, body).body
    assert fresh.get(f"/servicenetworking/v1/{operation['name']}").body["done"] is True
    (peering,) = fresh.get(of).body["peerings"]
    assert (peering["name"], peering["state"]) == ("servicenetworking-googleapis-com", "ACTIVE")
    cluster = f"alloydb/projects/{PROJECT}/locations/us-central1/clusters/c"
    with fresh.control.writing():
        fresh.control.store.put(cluster, {"networkConfig": {"network": body["network"]}})
    refused = fresh.post(f"{connections}/{peering['name']}", {"consumerNetwork": body["network"]}).body
    told = fresh.get(f"/servicenetworking/v1/{refused['name']}").body
    assert "still using this connection" in told["error"]["message"]
    assert fresh.get(of).body["peerings"] == [peering], "and everything goes on"
    with fresh.control.writing():
        fresh.control.store.remove(cluster)
    done(fresh, fresh.post(f"{of}/removePeering", {"name": peering["name"]}))
    assert "peerings" not in fresh.get(of).body
    assert fresh.get(f"{connections}?network={body['network']}").body == {}


def test_a_verb_changes_the_field_of_its_message(fresh, net):
    path = subnetwork(fresh, net, "10.1.0.0/24")
    done(fresh, fresh.post(f"{path}/setPrivateIpGoogleAccess", {"privateIpGoogleAccess": True}))
    assert fresh.get(path).body["privateIpGoogleAccess"] is True


def test_a_load_balancer_is_made_of_links(fresh):
    check = made(fresh, "global/healthChecks", {"name": "h", "type": "TCP", "tcpHealthCheck": {}})
    assert fresh.get(check).body["tcpHealthCheck"] == {"port": 80, "proxyHeader": "NONE"}
    iap = {"enabled": True, "oauth2ClientId": "id", "oauth2ClientSecret": "hush"}
    service = made(
        fresh, "global/backendServices", {"name": "b", "protocol": "TCP", "healthChecks": [link(check)], "iap": iap}
    )
    shown = fresh.get(service).body
    assert (shown["timeoutSec"], shown["sessionAffinity"], shown["portName"]) == (30, "NONE", "http")
    assert "hush" not in str(fresh.control.state())
    proxies = [made(fresh, "global/targetTcpProxies", {"name": f"t-{n}", "service": link(service)}) for n in range(2)]
    rule = made(
        fresh,
        "global/forwardingRules",
        {"name": "f", "target": link(proxies[0]), "portRange": "110", "labels": {"a": "b"}},
    )
    body = fresh.get(rule).body
    assert (body["portRange"], body["IPProtocol"], body["networkTier"]) == ("110-110", "TCP", "PREMIUM")
    assert "labels" not in body
    operation = done(fresh, fresh.post(f"{rule}/setTarget", {"target": link(proxies[1])}))
    assert operation["operationType"] == "SetTarget"
    assert fresh.get(rule).body["target"] == link(proxies[1])
    assert fresh.delete(check).status == 400
    assert "The health_check resource" in fresh.delete(check).message


# --- machines -----------------------------------------------------------------------------------------------------


def test_a_disk_has_a_type_and_a_size_and_grows(fresh):
    path = made(fresh, "zones/us-central1-a/disks", {"name": "d", "labels": {"kept": "yes"}})
    body = fresh.get(path).body
    assert body["type"] == f"{BASE}/{HERE}/zones/us-central1-a/diskTypes/pd-standard"
    assert (body["sizeGb"], body["physicalBlockSizeBytes"], body["status"]) == ("500", "4096", "READY")
    assert body["labels"] == {"kept": "yes"}
    done(fresh, fresh.post(f"{path}/resize", {"sizeGb": "600"}))
    assert fresh.get(path).body["sizeGb"] == "600"
    assert fresh.post(f"{path}/resize", {"sizeGb": "10"}).status == 400
    done(fresh, fresh.post(f"{path}/createSnapshot", {"name": "s"}))
    assert fresh.get(f"{API}/global/snapshots/s").body["sourceDisk"] == link(path)


def test_a_snapshot_says_what_it_is_of_and_both_outlive_each_other(fresh):
    disk = made(fresh, "zones/us-central1-a/disks", {"name": "d", "sizeGb": "70"})
    snapshot = made(fresh, "global/snapshots", {"name": "s", "sourceDisk": link(disk)})
    body = fresh.get(snapshot).body
    assert (body["sourceDiskId"], body["diskSizeGb"]) == (fresh.get(disk).body["id"], "70")
    again = made(fresh, "zones/us-central1-a/disks", {"name": "again", "sourceSnapshot": link(snapshot)})
    assert fresh.get(again).body["sourceSnapshotId"] == body["id"]
    for path in (disk, snapshot):
        assert "error" not in done(fresh, fresh.delete(path))
    assert fresh.get(again).status == 200


def test_an_instance_gets_an_address_and_a_disk_and_takes_the_disk_along(fresh, net):
    sub = subnetwork(fresh, net, "10.1.0.0/24")
    wanted = {
        "name": "vm",
        "machineType": "zones/us-central1-a/machineTypes/n1-standard-4",
        "networkInterfaces": [{"subnetwork": link(sub)}],
        "disks": [{"autoDelete": True, "initializeParams": {"sourceImage": "projects/debian-cloud/global/images/d"}}],
    }
    path = made(fresh, "zones/us-central1-a/instances", wanted)
    body = fresh.get(path).body
    assert body["status"] == "RUNNING"
    assert body["networkInterfaces"][0]["networkIP"] == "10.1.0.2"
    assert body["networkInterfaces"][0]["network"] == link(net)
    disk = body["disks"][0]["source"].replace(BASE, "/compute/v1")
    assert fresh.get(disk).body["users"] == [link(path)]
    done(fresh, fresh.post(f"{path}/stop"))
    assert fresh.get(path).body["status"] == "TERMINATED"
    done(fresh, fresh.delete(path))
    assert fresh.get(disk).status == 404


def test_a_machine_type_that_a_zone_does_not_have_is_refused(fresh, net):
    subnetwork(fresh, net, "10.1.0.0/24")
    for machine, cards in (("n9-standard-1", []), ("n2d-standard-4", [{"acceleratorType": "nvidia-tesla-t4"}])):
        body = {
            "name": "vm",
            "machineType": f"zones/us-central1-a/machineTypes/{machine}",
            "networkInterfaces": [{"network": link(net)}],
            "guestAccelerators": [
                {
                    "acceleratorType": f"zones/us-central1-a/acceleratorTypes/{card['acceleratorType']}",
                    "acceleratorCount": 1,
                }
                for card in cards
            ],
        }
        assert fresh.post(f"{ZONE}/instances", body).status == 400


@pytest.mark.parametrize(
    ("zone", "there"),
    [
        ("us-central1-a", True),
        ("us-central1-f", True),
        ("us-east1-c", True),
        ("us-east1-b", False),
        ("us-east4-a", False),
    ],
)
def test_t4_are_where_they_are(server, zone, there):
    items = server.get(f"{API}/zones/{zone}/acceleratorTypes").body.get("items", [])
    assert any(item["name"] == "nvidia-tesla-t4" and item["maximumCardsPerInstance"] == 4 for item in items) == there


@pytest.mark.parametrize(
    ("name", "cpus", "memory_mb"),
    [
        ("n1-standard-32", 32, 122880),
        ("n2d-standard-32", 32, 131072),
        ("e2-medium", 2, 4096),
        ("n1-highcpu-2", 2, 1843),
    ],
)
def test_machine_types_have_their_shapes(server, name, cpus, memory_mb):
    body = server.get(f"{ZONE}/machineTypes/{name}").body
    assert (body["guestCpus"], body["memoryMb"], body["zone"]) == (cpus, memory_mb, "us-central1-a")


def test_a_region_knows_its_zones(server):
    body = server.get(REGION).body
    assert [zone.rsplit("/", 1)[1] for zone in body["zones"]] == [f"us-central1-{letter}" for letter in "abcf"]
    assert server.get(f"{API}/zones/us-central1-d").status == 404


# --- quotas -------------------------------------------------------------------------------------------------------


def usage(server, path, metric):
    return next((row["usage"], row["limit"]) for row in server.get(path).body["quotas"] if row["metric"] == metric)


def test_a_quota_counts_what_there_is(fresh):
    assert usage(fresh, API, "NETWORKS") == (0, 5)
    path = network(fresh)
    assert usage(fresh, API, "NETWORKS") == (1, 5)
    done(fresh, fresh.delete(path))
    assert usage(fresh, API, "NETWORKS") == (0, 5)


def test_an_insert_past_the_limit_is_refused_and_frees_nothing(fresh):
    fresh.inject(quotas=[{"metric": "NETWORKS", "limit": 1}])
    network(fresh)
    refused = fresh.post(f"{API}/global/networks", {"name": "two"})
    assert (refused.status, refused.message) == (403, "Quota 'NETWORKS' exceeded.  Limit: 1.0 globally.")
    assert refused.body["error"]["errors"][0]["reason"] == "quotaExceeded"
    assert usage(fresh, API, "NETWORKS") == (1, 1)


def test_a_regional_quota_counts_its_region_and_zones_alone(fresh):
    made(fresh, "zones/us-central1-a/disks", {"name": "d", "sizeGb": "4000"})
    assert usage(fresh, REGION, "DISKS_TOTAL_GB") == (4000, 4096)
    refused = fresh.post(f"{API}/zones/us-central1-b/disks", {"name": "e", "sizeGb": "100"})
    assert refused.message == "Quota 'DISKS_TOTAL_GB' exceeded.  Limit: 4096.0 in region us-central1."
    made(fresh, "zones/us-east1-b/disks", {"name": "e", "sizeGb": "100"})
