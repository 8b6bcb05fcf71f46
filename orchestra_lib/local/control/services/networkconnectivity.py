"""Network Connectivity: hubs, spokes, internal ranges.

https://cloud.google.com/network-connectivity/docs/reference/networkconnectivity/rest
"""

from __future__ import annotations

import uuid

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.kinds import Body, Kind, Service

_SPOKE_TYPES = {
    "linkedVpcNetwork": "VPC_NETWORK",
    "linkedVpnTunnels": "VPN_TUNNEL",
    "linkedInterconnectAttachments": "INTERCONNECT_ATTACHMENT",
    "linkedRouterApplianceInstances": "ROUTER_APPLIANCE",
    "linkedProducerVpcNetwork": "PRODUCER_VPC_NETWORK",
}


def _fill_hub(_call: Call, body: Body, before: Body | None) -> None:
    body["uniqueId"] = (before or {}).get("uniqueId") or str(uuid.uuid4())
    body["routeTables"] = [f"{body['name']}/routeTables/default"]


def _fill_spoke(_call: Call, body: Body, before: Body | None) -> None:
    body["uniqueId"] = (before or {}).get("uniqueId") or str(uuid.uuid4())
    body.setdefault("group", f"{body['hub']}/groups/default")
    kind = next((kind for link, kind in _SPOKE_TYPES.items() if link in body), None)
    if kind:
        body["spokeType"] = kind


SERVICE = Service(
    name="networkconnectivity",
    kinds=(
        Kind(
            "hubs",
            defaults={"exportPsc": False, "policyMode": "PRESET", "presetTopology": "MESH"},
            fill=_fill_hub,
        ),
        Kind("spokes", fill=_fill_spoke, references={"hub": "networkconnectivity"}),
    ),
)
