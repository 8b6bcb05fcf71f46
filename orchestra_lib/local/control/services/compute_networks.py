"""Compute's networking: what the service computes for networks, subnetworks, routers, firewalls and peerings.

https://cloud.google.com/vpc/docs/vpc
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from orchestra_lib.local.control import endings
from orchestra_lib.local.control.call import Call, compute_timestamp
from orchestra_lib.local.control.kinds import Body, fill_missing
from orchestra_lib.local.control.operation_styles import COMPUTE_BASE
from orchestra_lib.local.control.operations import Record
from orchestra_lib.local.control.services.compute_identity import identify, invalid, key_of_url, url

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane
    from orchestra_lib.local.control.store import Stored

AUTOMATIC_RANGE = ipaddress.IPv4Network("10.128.0.0/9")
"""What the subnetworks of networks in auto mode are taken from."""
AUTOMATIC_SUBNETWORKS: Mapping[str, str] = {
    "africa-south1": "10.218.0.0/20",
    "asia-east1": "10.140.0.0/20",
    "asia-east2": "10.170.0.0/20",
    "asia-northeast1": "10.146.0.0/20",
    "asia-northeast2": "10.174.0.0/20",
    "asia-northeast3": "10.178.0.0/20",
    "asia-south1": "10.160.0.0/20",
    "asia-south2": "10.190.0.0/20",
    "asia-southeast1": "10.148.0.0/20",
    "asia-southeast2": "10.184.0.0/20",
    "asia-southeast3": "10.232.0.0/20",  # recorded with such a subnetwork; its range is not confirmed
    "australia-southeast1": "10.152.0.0/20",
    "australia-southeast2": "10.192.0.0/20",
    "europe-central2": "10.186.0.0/20",
    "europe-north1": "10.166.0.0/20",
    "europe-north2": "10.226.0.0/20",
    "europe-southwest1": "10.204.0.0/20",
    "europe-west1": "10.132.0.0/20",
    "europe-west10": "10.214.0.0/20",
    "europe-west12": "10.210.0.0/20",
    "europe-west2": "10.154.0.0/20",
    "europe-west3": "10.156.0.0/20",
    "europe-west4": "10.164.0.0/20",
    "europe-west6": "10.172.0.0/20",
    "europe-west8": "10.198.0.0/20",
    "europe-west9": "10.200.0.0/20",
    "me-central1": "10.212.0.0/20",
    "me-west1": "10.208.0.0/20",
    "northamerica-northeast1": "10.162.0.0/20",
    "northamerica-northeast2": "10.188.0.0/20",
    "northamerica-south1": "10.224.0.0/20",
    "southamerica-east1": "10.158.0.0/20",
    "southamerica-west1": "10.194.0.0/20",
    "us-central1": "10.128.0.0/20",
    "us-east1": "10.142.0.0/20",
    "us-east4": "10.150.0.0/20",
    "us-east5": "10.202.0.0/20",
    "us-south1": "10.206.0.0/20",
    "us-west1": "10.138.0.0/20",
    "us-west2": "10.168.0.0/20",
    "us-west3": "10.180.0.0/20",
    "us-west4": "10.182.0.0/20",
}
"""By region, without those that are open to few projects. https://cloud.google.com/vpc/docs/subnets#ip-ranges"""
SUBNETWORK_DEFAULTS: Mapping[str, object] = {
    "allowSubnetCidrRoutesOverlap": False,
    "enableFlowLogs": False,
    "privateIpGoogleAccess": False,
    "privateIpv6GoogleAccess": "DISABLE_GOOGLE_ACCESS",
    "purpose": "PRIVATE",
}
_LONGEST_PREFIX = 29
_FLOW_LOG_DEFAULTS = {
    "aggregationInterval": "INTERVAL_5_SEC",
    "flowSampling": 0.5,
    "metadata": "EXCLUDE_ALL_METADATA",
}
_PEERING_DEFAULTS = {
    "autoCreateRoutes": True,
    "exchangeSubnetRoutes": True,
    "exportCustomRoutes": False,
    "exportSubnetRoutesWithPublicIp": True,
    "importCustomRoutes": False,
    "importSubnetRoutesWithPublicIp": False,
    "stackType": "IPV4_ONLY",
    "updateStrategy": "INDEPENDENT",
}


# --- networks -----------------------------------------------------------------------------------------------------


def network_created(control: ControlPlane, key: str, body: Body) -> None:
    """The end of a network's create: one in auto mode gets a subnetwork in every region."""
    if not body.setdefault("autoCreateSubnetworks", True):
        return
    project, name = key.split("/")[2], key.rsplit("/", 1)[1]
    schema = control.catalog.apis["compute", "v1"].schema("Subnetwork")
    for region, cidr in AUTOMATIC_SUBNETWORKS.items():
        subnetwork_key = f"compute/projects/{project}/regions/{region}/subnetworks/{name}"
        if control.find(subnetwork_key):
            continue
        subnetwork: Body = {"name": name, "network": url(key), "ipCidrRange": cidr, "stackType": "IPV4_ONLY"}
        subnetwork["gatewayAddress"] = _gateway(cidr)
        fill_missing(subnetwork, SUBNETWORK_DEFAULTS)
        identify(schema, subnetwork_key, subnetwork, {}, control.clock())
        control.store.put(subnetwork_key, subnetwork)


def shown_network(control: ControlPlane, key: str, _version: str, body: Body) -> Body:
    """A network with the links of its subnetworks."""
    links = sorted(url(row.key) for row in _subnetworks(control, key))
    return {**body, "subnetworks": links} if links else body


def delete(control: ControlPlane, record: Record) -> None:
    """The end of a delete. The subnetworks that a network in auto mode got go with it."""
    key = record["target"]
    row = control.find(key)
    if row and key.split("/")[-2] == "networks" and row.body.get("autoCreateSubnetworks"):
        for subnetwork in _subnetworks(control, key):
            if AUTOMATIC_SUBNETWORKS.get(subnetwork.key.split("/")[4]) == subnetwork.body["ipCidrRange"]:
                control.store.remove(subnetwork.key)
    endings.delete_in_operation(control, record)


# --- subnetworks --------------------------------------------------------------------------------------------------


def check_subnetwork(call: Call, body: Body, before: Body | None) -> None:
    """Raise Fault (400) for a range that is none, or that another subnetwork of the network has."""
    fields = [("ipCidrRange", body.get("ipCidrRange", ""))]
    for index, second in enumerate(body.get("secondaryIpRanges", ())):
        fields.append((f"secondaryIpRanges[{index}].ipCidrRange", second.get("ipCidrRange", "")))
    if body.get("reservedInternalRange"):
        return
    network = key_of_url(call.control, str(body.get("network", "")), call.project)
    others = [row for row in _subnetworks(call.control, network) if before is None or row.key != call.key]
    row = call.control.find(network)
    automatic = bool(row and row.body.get("autoCreateSubnetworks"))
    for field, text in fields:
        _check_range(field, text, others, automatic=automatic and before is None)


def complete_subnetwork(_call: Call, body: Body, _before: Body | None) -> None:
    """What follows from the range, the purpose and the flow logs."""
    if body.get("ipCidrRange"):
        body["gatewayAddress"] = _gateway(body["ipCidrRange"])
    if body["purpose"] != "PRIVATE_NAT":
        body.setdefault("stackType", "IPV4_ONLY")
    if body.get("enableFlowLogs") and "logConfig" not in body:
        body["logConfig"] = {"enable": True}
    logs = body.get("logConfig")
    if logs is not None:
        body["enableFlowLogs"] = bool(logs.get("enable"))
        if logs.get("enable"):
            fill_missing(logs, _FLOW_LOG_DEFAULTS)


def shown_subnetwork(_control: ControlPlane, _key: str, _version: str, body: Body) -> Body:
    """Only the subnetworks of proxies have a ``state``."""
    return body if body.get("purpose") == "REGIONAL_MANAGED_PROXY" else {k: v for k, v in body.items() if k != "state"}


def _check_range(field: str, text: str, others: list[Stored], *, automatic: bool) -> None:
    try:
        wanted = ipaddress.IPv4Network(text)
    except ValueError:
        raise invalid(field, text, "Must be a CIDR address range, such as 10.0.0.0/24.") from None
    if wanted.prefixlen > _LONGEST_PREFIX:
        raise invalid(field, text, f"The range must be /{_LONGEST_PREFIX} or larger.")
    if automatic and wanted.overlaps(AUTOMATIC_RANGE):
        why = f"Extended subnetworks in auto subnet mode networks cannot overlap with {AUTOMATIC_RANGE}."
        raise invalid(field, text, why)
    for row in others:
        if any(wanted.overlaps(taken) for taken in ranges_of(row.body)):
            name, region = row.key.rsplit("/", 1)[1], row.key.split("/")[4]
            why = f"Invalid IPCidrRange: {text} conflicts with existing subnetwork '{name}' in region '{region}'."
            raise invalid(field, text, why)


def ranges_of(subnetwork: Body) -> Iterator[ipaddress.IPv4Network]:
    """The ranges that a subnetwork takes."""
    for body in (subnetwork, *subnetwork.get("secondaryIpRanges", ())):
        if body.get("ipCidrRange"):
            yield ipaddress.IPv4Network(body["ipCidrRange"])


def taken_ranges(control: ControlPlane, network_key: str) -> list[ipaddress.IPv4Network]:
    """Every range that the subnetworks of a network take."""
    return [taken for row in _subnetworks(control, network_key) for taken in ranges_of(row.body)]


def _gateway(cidr: str) -> str:
    return str(ipaddress.IPv4Network(cidr).network_address + 1)


def _subnetworks(control: ControlPlane, network_key: str) -> list[Stored]:
    project, link = network_key.split("/")[2], url(network_key)
    rows = control.store.below(f"compute/projects/{project}/regions/", "compute/subnetworks")
    return [row for row in rows if row.body.get("network") == link]


# --- routers and firewalls ----------------------------------------------------------------------------------------


def complete_router(_call: Call, body: Body, _before: Body | None) -> None:
    """What the type of each NAT decides. A private one takes its addresses from ranges, not from an allocation."""
    for nat in body.get("nats", ()):
        public = nat["type"] == "PUBLIC"
        if public:
            nat.setdefault("autoNetworkTier", "PREMIUM")
        else:
            nat.pop("natIpAllocateOption", None)
        nat.setdefault("enableDynamicPortAllocation", not public)
        nat["effectiveTcpTimeWaitTimeoutSec"] = nat.get("tcpTimeWaitTimeoutSec", 120)


def complete_firewall(call: Call, body: Body, _before: Body | None) -> None:
    """The network and the sources or destinations of a rule that names none."""
    body.setdefault("network", url(f"compute/projects/{call.project}/global/networks/default"))
    if body["direction"] == "INGRESS" and not any(name.startswith("source") for name in body):
        body["sourceRanges"] = ["0.0.0.0/0"]
    if body["direction"] == "EGRESS":
        body.setdefault("destinationRanges", ["0.0.0.0/0"])


# --- peerings -----------------------------------------------------------------------------------------------------


def peering(name: str, network: str, now: float, *, connected: bool, given: Body) -> Body:
    """One entry of a network's ``peerings``. ``network`` is the link of the other side."""
    details = "Connected." if connected else "Waiting for peer network to connect."
    body = {**given, "name": name, "network": network}
    fill_missing(body, _PEERING_DEFAULTS)
    body["state"] = "ACTIVE" if connected else "INACTIVE"
    body["stateDetails"] = f"[{compute_timestamp(now)}]: {details}"
    if connected:
        body["connectionStatus"] = {
            "trafficConfiguration": {
                "exportCustomRoutesToPeer": body["exportCustomRoutes"],
                "exportSubnetRoutesWithPublicIpToPeer": body["exportSubnetRoutesWithPublicIp"],
                "importCustomRoutesFromPeer": body["importCustomRoutes"],
                "importSubnetRoutesWithPublicIpFromPeer": body["importSubnetRoutesWithPublicIp"],
                "stackType": body["stackType"],
            },
            "updateStrategy": body["updateStrategy"],
        }
    return body


def connect_producer(control: ControlPlane, network_key: str, name: str) -> None:
    """Peer a network with the one that the producer of a service keeps for it in a project of its own."""
    row = control.store.get(network_key)
    if row is None or any(known["name"] == name for known in row.body.get("peerings", ())):
        return
    tenant = hashlib.sha256(network_key.encode()).hexdigest()[:16]
    link = f"{COMPUTE_BASE}/projects/{tenant}p-tp/global/networks/servicenetworking"
    given = {"exportSubnetRoutesWithPublicIp": False}
    entry = peering(name, link, control.clock(), connected=True, given=given)
    control.store.put(network_key, {**row.body, "peerings": [*row.body.get("peerings", ()), entry]})


def disconnect_producer(control: ControlPlane, network_key: str, name: str) -> None:
    """Take such a peering away."""
    row = control.store.get(network_key)
    if row:
        control.store.put(network_key, without_peering(row.body, name))


def without_peering(network: Body, name: str) -> Body:
    """A network's body without one of its peerings."""
    left = [known for known in network.get("peerings", ()) if known["name"] != name]
    body = {field: value for field, value in network.items() if field != "peerings"}
    return {**body, "peerings": left} if left else body
