"""The network: a VPC with private subnets in two regions, its way out, and a firewall that denies by default."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from orchestra_lib.blueprint.specification import Specification
from orchestra_lib.cloud.resource import Resource, Text

IAP_RANGE = "35.235.240.0/20"
"""Where Identity-Aware Proxy's TCP forwarding comes from: https://cloud.google.com/iap/docs/using-tcp-forwarding"""

WORKSTATION_TAG = "cloud-workstations-instance"
"""The tag of every workstation's VM: https://cloud.google.com/workstations/docs/configure-firewall-rules"""

SERVICE_PRODUCER = "services/servicenetworking.googleapis.com"

_ANYWHERE = ("0.0.0.0/0",)
# The implied rules of every VPC have 65535 and write no logs.
_LAST_PRIORITY = 65534
_ALLOW_PRIORITY = 1000
# 5432 PostgreSQL, 5433 the AlloyDB connectors, 6432 AlloyDB's managed pooling.
_DATABASE_PORTS = ("5432", "5433", "6432")
# 980 and 443: https://cloud.google.com/workstations/docs/configure-firewall-rules
_CONTROL_PLANE_PORTS = ("980", "443")


@dataclass(frozen=True)
class _Rule:
    """A firewall rule; without ports the protocol as a whole, without protocols everything."""

    name: str
    direction: str
    ranges: tuple[str, ...]
    protocols: dict[str, tuple[str, ...]] = field(default_factory=dict)
    denies: bool = False
    target_tags: tuple[str, ...] = ()


def network(spec: Specification) -> list[Resource]:
    """The VPC and everything in it. Subnets are private: no VM needs an external address to reach Google's APIs."""
    name = spec.network.name
    vpc = spec.resource(
        "network",
        f"{spec.project_path}/global",
        name,
        {"autoCreateSubnetworks": False, "routingConfig": {"routingMode": "GLOBAL"}},
    )
    path = f"{spec.project_path}/global/networks/{name}"
    regions = (
        (spec.regions.primary, spec.network.primary_subnet),
        (spec.regions.secondary, spec.network.secondary_subnet),
    )
    subnets = [_subnet(spec, vpc, path, region, cidr) for region, cidr in regions]
    routers = [_router(spec, vpc, path, region) for region, _ in regions]
    rules = [_firewall(spec, vpc, path, rule) for rule in _rules(spec)]
    return [vpc, *subnets, *routers, *_service_access(spec, vpc, path), *rules]


def _subnet(spec: Specification, vpc: Resource, path: str, region: str, cidr: str) -> Resource:
    flow_logs = spec.network.flow_logs
    return spec.resource(
        "subnetwork",
        f"{spec.project_path}/regions/{region}",
        f"{vpc.id}-{region}",
        {
            "network": path,
            "ipCidrRange": cidr,
            "privateIpGoogleAccess": True,
            "stackType": "IPV4_ONLY",
            "logConfig": {
                "enable": True,
                "aggregationInterval": flow_logs.aggregation_interval,
                "flowSampling": flow_logs.sampling_ratio,
                "metadata": "INCLUDE_ALL_METADATA",
            },
        },
        (vpc.key,),
    )


def _router(spec: Specification, vpc: Resource, path: str, region: str) -> Resource:
    name = f"{vpc.id}-{region}"
    nat = {
        "name": name,
        "natIpAllocateOption": "AUTO_ONLY",
        "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
        "logConfig": {"enable": True, "filter": spec.network.nat.log_filter},
    }
    return spec.resource(
        "router", f"{spec.project_path}/regions/{region}", name, {"network": path, "nats": [nat]}, (vpc.key,)
    )


def _service_access(spec: Specification, vpc: Resource, path: str) -> list[Resource]:
    """The range that AlloyDB takes its addresses from, and the peering that makes them reachable."""
    service_range = ipaddress.IPv4Network(spec.network.service_range)
    address = spec.resource(
        "global address",
        f"{spec.project_path}/global",
        f"{vpc.id}-services",
        {
            "purpose": "VPC_PEERING",
            "addressType": "INTERNAL",
            "address": str(service_range.network_address),
            "prefixLength": service_range.prefixlen,
            "network": path,
        },
        (vpc.key,),
    )
    peering = spec.resource(
        "peering",
        SERVICE_PRODUCER,
        vpc.id,
        {
            # Service Networking takes the project's number only.
            "network": Text(f"projects/{{}}/global/networks/{vpc.id}", (spec.project_number,)),
            "reservedPeeringRanges": [address.id],
        },
        (vpc.key, address.key),
    )
    return [address, peering]


def _rules(spec: Specification) -> tuple[_Rule, ...]:
    subnets = (spec.network.primary_subnet, spec.network.secondary_subnet)
    inside = {"icmp": (), "tcp": ("443",)}
    return (
        _Rule("deny-ingress", "INGRESS", _ANYWHERE, {"all": ()}, denies=True),
        _Rule("allow-iap-ssh", "INGRESS", (IAP_RANGE,), {"tcp": ("22",)}),
        _Rule("allow-inside-in", "INGRESS", subnets, inside),
        _Rule("deny-egress", "EGRESS", _ANYWHERE, {"all": ()}, denies=True),
        _Rule("allow-inside-out", "EGRESS", subnets, inside),
        # Google's APIs, GitHub and package registries have no ranges that could be listed.
        _Rule("allow-https-out", "EGRESS", _ANYWHERE, {"tcp": ("443",)}),
        _Rule("allow-database-out", "EGRESS", (spec.network.service_range,), {"tcp": _DATABASE_PORTS}),
        _Rule(
            "allow-workstation-control",
            "EGRESS",
            subnets,
            {"tcp": _CONTROL_PLANE_PORTS},
            target_tags=(WORKSTATION_TAG,),
        ),
    )


def _firewall(spec: Specification, vpc: Resource, path: str, rule: _Rule) -> Resource:
    traffic = [
        {"IPProtocol": protocol, "ports": list(ports)} if ports else {"IPProtocol": protocol}
        for protocol, ports in rule.protocols.items()
    ]
    body = {
        "network": path,
        "direction": rule.direction,
        "priority": _LAST_PRIORITY if rule.denies else _ALLOW_PRIORITY,
        "sourceRanges" if rule.direction == "INGRESS" else "destinationRanges": list(rule.ranges),
        "denied" if rule.denies else "allowed": traffic,
        "logConfig": {"enable": rule.denies},
    }
    if rule.target_tags:
        body["targetTags"] = list(rule.target_tags)
    return spec.resource("firewall", f"{spec.project_path}/global", f"{vpc.id}-{rule.name}", body, (vpc.key,))
