"""Network Connectivity: hubs, spokes, internal ranges, service connection policies, policy-based routes.

https://cloud.google.com/network-connectivity/docs/reference/networkconnectivity/rest
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service, not_found
from orchestra_lib.local.control.pages import page
from orchestra_lib.local.control.references import key_of
from orchestra_lib.local.control.services.compute_networks import taken_ranges
from orchestra_lib.local.control.store import Stored

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_SPOKE_TYPES = {
    "linkedVpcNetwork": "VPC_NETWORK",
    "linkedVpnTunnels": "VPN_TUNNEL",
    "linkedInterconnectAttachments": "INTERCONNECT_ATTACHMENT",
    "linkedRouterApplianceInstances": "ROUTER_APPLIANCE",
    "linkedProducerVpcNetwork": "PRODUCER_VPC_NETWORK",
    "gateway": "GATEWAY",
}
# https://cloud.google.com/network-connectivity/docs/network-connectivity-center/concepts/connectivity-topologies
_GROUPS = {
    "MESH": ("default",),
    "STAR": ("center", "edge"),
    "HYBRID_INSPECTION": ("non-prod", "prod", "services", "untrusted"),
}
_BASE = "https://networkconnectivity.googleapis.com/v1"
_POLICIES = "networkconnectivity/serviceConnectionPolicies"
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")


# --- hubs and spokes ----------------------------------------------------------------------------------------------


def _fill_hub(_call: Call, body: Body, before: Body | None) -> None:
    body["uniqueId"] = (before or {}).get("uniqueId") or str(uuid.uuid4())
    body["routeTables"] = [f"{body['name']}/routeTables/{name}" for name in _groups(body)]


def _groups(hub: Body) -> tuple[str, ...]:
    return _GROUPS.get(hub.get("presetTopology", "MESH"), ())


def _of_groups(collection: str) -> Callable[[ControlPlane, str], Mapping[str, Body]]:
    """What a hub has for each group of its topology."""

    def built_in(control: ControlPlane, parent: str) -> Mapping[str, Body]:
        row = control.store.get(parent)
        if row is None:
            return {}
        hub = row.body
        times = {name: hub[name] for name in ("createTime", "updateTime")}
        mark = uuid.uuid5(uuid.NAMESPACE_URL, hub["uniqueId"])
        return {
            name: {
                "name": f"{hub['name']}/{collection}/{name}",
                "uid": str(uuid.uuid5(mark, f"{collection}/{name}")),
                "state": "ACTIVE",
                **times,
                **({"routeTable": f"{hub['name']}/routeTables/{name}"} if collection == "groups" else {}),
            }
            for name in _groups(hub)
        }

    return built_in


def _check_spoke(call: Call, body: Body, before: Body | None) -> None:
    """Raise Fault (400) for a spoke that links not one thing, or is in no group that its hub has."""
    links = [name for name in _SPOKE_TYPES if name in body]
    if len(links) != 1:
        raise bad_field("spoke", f"A spoke links resources of one kind, not of {len(links)}.")
    groups = _groups(_hub(call, body).body)
    group = body.get("group", "").rsplit("/", 1)[-1]
    if before is None and (group not in groups if group else len(groups) > 1):
        raise bad_field("spoke.group", f"The hub has the groups {', '.join(groups)}; '{group}' is none of them.")


def _hub(call: Call, spoke: Body) -> Stored:
    key = key_of(call.control, call.service, spoke.get("hub", ""), call.project)
    row = call.control.find(key)
    if row is None:
        raise not_found(call.control, key)
    return row


def _fill_spoke(call: Call, body: Body, before: Body | None) -> None:
    body["uniqueId"] = (before or {}).get("uniqueId") or str(uuid.uuid4())
    name = body.get("group", "").rsplit("/", 1)[-1] or _groups(_hub(call, body).body)[0]
    body["group"] = f"{body['hub']}/groups/{name}"
    body["spokeType"] = next(kind for link, kind in _SPOKE_TYPES.items() if link in body)


def _list_spokes(call: Call) -> Body:
    """``hubs.listSpokes``: those of every place and project."""
    hub = call.control.find(call.key)
    if hub is None:
        raise not_found(call.control, call.key)
    rows = call.control.store.below("networkconnectivity/projects/", "networkconnectivity/spokes")
    found = [row for row in rows if key_of(call.control, call.service, row.body["hub"], None) == call.key]
    shown = [call.control.shown(call.api, row.key, row.body, enums_as_numbers=call.enums_as_numbers) for row in found]
    part, token = page(shown, call.query)
    return {**({"spokes": part} if part else {}), **({"nextPageToken": token} if token else {})}


# --- internal ranges ----------------------------------------------------------------------------------------------


def _fill_range(call: Call, body: Body, before: Body | None) -> None:
    """The range itself, where only its length was given."""
    body["rangeStatus"] = "ACTIVE"
    if before and before.get("ipCidrRange") == body.get("ipCidrRange"):
        return
    taken = _taken(call, body)
    wanted = body.get("ipCidrRange")
    if wanted:
        _require_free(_network_of(wanted), body, taken)
    elif body.get("prefixLength"):
        body["ipCidrRange"] = _free_range(body, taken)
    else:
        raise bad_field("internal_range.ip_cidr_range", "An internal range needs a range or the length of one.")
    body["prefixLength"] = _network_of(body["ipCidrRange"]).prefixlen


def _network_of(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        words = f"'{text}' is no address range in CIDR notation, such as 10.0.0.0/24."
        raise bad_field("internal_range.ip_cidr_range", words) from None


def _require_free(
    wanted: ipaddress.IPv4Network | ipaddress.IPv6Network, body: Body, taken: list[ipaddress.IPv4Network]
) -> None:
    if body.get("prefixLength") not in (None, wanted.prefixlen):
        raise bad_field("internal_range.prefix_length", f"{wanted} has not the length {body['prefixLength']}.")
    other = next((one for one in taken if isinstance(wanted, ipaddress.IPv4Network) and one.overlaps(wanted)), None)
    if other and not body.get("overlaps"):
        raise Fault("FAILED_PRECONDITION", f"Range {wanted} overlaps with {other}, which is in use in the network.")


def _free_range(body: Body, taken: list[ipaddress.IPv4Network]) -> str:
    excluded = [ipaddress.IPv4Network(text) for text in body.get("excludeCidrRanges", ())]
    for space in map(ipaddress.IPv4Network, body.get("targetCidrRange") or _PRIVATE):
        if space.prefixlen <= body["prefixLength"] <= ipaddress.IPV4LENGTH:
            for candidate in space.subnets(new_prefix=body["prefixLength"]):
                if not any(candidate.overlaps(one) for one in (*taken, *excluded)):
                    return str(candidate)
    raise Fault("RESOURCE_EXHAUSTED", f"No range of length {body['prefixLength']} is free in the network.")


def _taken(call: Call, body: Body) -> list[ipaddress.IPv4Network]:
    """The ranges of the network that subnetworks and other internal ranges have."""
    network = key_of(call.control, "compute", body.get("network", ""), call.project)
    rows = call.control.store.below(
        f"networkconnectivity/projects/{call.project}/", "networkconnectivity/internalRanges"
    )
    others = (
        _network_of(row.body["ipCidrRange"])
        for row in rows
        if row.key != call.key
        and "ipCidrRange" in row.body
        and key_of(call.control, "compute", row.body.get("network", ""), call.project) == network
    )
    return [*taken_ranges(call.control, network), *(one for one in others if isinstance(one, ipaddress.IPv4Network))]


# --- service connection policies ----------------------------------------------------------------------------------


def _check_policy(call: Call, body: Body, before: Body | None) -> None:
    """Raise Fault for a policy without its parts, or for a class that the network has a policy for."""
    for name in ("network", "serviceClass"):
        if not body.get(name):
            raise bad_field(f"service_connection_policy.{name}", f"A service connection policy needs a {name}.")
    rows = call.control.store.children(call.key.partition("/serviceConnectionPolicies")[0], _POLICIES)
    network = key_of(call.control, "compute", body["network"], call.project)
    for row in rows:
        same = row.body["serviceClass"] == body["serviceClass"]
        if before is None and same and key_of(call.control, "compute", row.body["network"], call.project) == network:
            words = f"Policy '{row.body['name']}' already is that of {body['serviceClass']} in the network."
            raise Fault("ALREADY_EXISTS", words)


# --- policy-based routes ------------------------------------------------------------------------------------------


def _check_route(_call: Call, body: Body, _before: Body | None) -> None:
    if ("nextHopIlbIp" in body) == ("nextHopOtherRoutes" in body):
        raise bad_field("policy_based_route.next_hop", "A route has either an address or other routes as next hop.")


def _fill_route(_call: Call, body: Body, _before: Body | None) -> None:
    body["kind"] = "networkconnectivity#policyBasedRoute"
    body["selfLink"] = f"{_BASE}/{body['name']}"


SERVICE = Service(
    name="networkconnectivity",
    kinds=(
        Kind(
            "hubs",
            defaults={"exportPsc": False, "policyMode": "PRESET", "presetTopology": "MESH"},
            fill=_fill_hub,
            in_use="call",
            in_use_words="Hub '{path}' has the spoke '{user}'; delete it first.",
        ),
        Kind("groups", built_in=_of_groups("groups")),
        Kind("routeTables", built_in=_of_groups("routeTables")),
        Kind("spokes", check=_check_spoke, fill=_fill_spoke, references={"hub": "networkconnectivity"}),
        Kind(
            "internalRanges",
            defaults={"usage": "FOR_VPC", "peering": "FOR_SELF"},
            fill=_fill_range,
        ),
        Kind("serviceConnectionPolicies", check=_check_policy, defaults={"infrastructure": "PSC"}),
        Kind(
            "policyBasedRoutes",
            defaults={
                "priority": 1000,
                "filter": {"ipProtocol": "ALL", "srcRange": "0.0.0.0/0", "destRange": "0.0.0.0/0"},
            },
            check=_check_route,
            fill=_fill_route,
        ),
    ),
    methods={"hubs.listSpokes": _list_spokes},
)
