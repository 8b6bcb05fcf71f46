"""Compute Engine: networks and what hangs on them. https://cloud.google.com/compute/docs/reference/rest/v1

Resources are named by their own ``name``, refer to each other by URL, and every change is an operation.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

from orchestra_lib.local.control import standard
from orchestra_lib.local.control.call import Call, compute_timestamp, digits
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body, Kind, Service, not_found
from orchestra_lib.local.control.operation_styles import COMPUTE_BASE, compute_operation, in_scope, nothing
from orchestra_lib.local.control.operations import Style

_NAME = "(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)"
_ANY = Kind(
    "",
    etag=False,
    uid=False,
    id_pattern=_NAME,
    not_found="The resource '{path}' was not found",
    exists="The resource '{path}' already exists",
    busy="The resource '{path}' is not ready",
    in_use="call",
    in_use_words="The {noun} resource '{path}' is already being used by '{user}'",
    short_name=True,
)


def _row(collection: str, **more: Any) -> Kind:
    return replace(_ANY, collection=collection, **more)


def _stamp(call: Call, key: str, body: Body, before: Body | None) -> None:
    properties = call.control.schema(call.api, key).properties
    path, old = key.split("/", 1)[1], before or {}
    parts = path.split("/")
    if "default" in properties["kind"].schema if "kind" in properties else False:
        body["kind"] = properties["kind"].schema["default"]
    if "id" in properties:
        body["id"] = old.get("id") or digits(f"{key} {call.now}", 19)
    if "creationTimestamp" in properties:
        body["creationTimestamp"] = old.get("creationTimestamp") or compute_timestamp(call.now)
    if "selfLink" in properties:
        body["selfLink"] = f"{COMPUTE_BASE}/{path}"
    if "selfLinkWithId" in properties:
        body["selfLinkWithId"] = f"{COMPUTE_BASE}/{'/'.join(parts[:-1])}/{body['id']}"
    for word in ("region", "zone"):
        if word in properties and f"{word}s" in parts[:-1]:
            body[word] = f"{COMPUTE_BASE}/{'/'.join(parts[:4])}"
    if "labelFingerprint" in properties:
        body["labelFingerprint"] = fingerprint(body.get("labels", {}))
    if "fingerprint" in properties:
        given = body.get("fingerprint")
        stale = before is not None and given and given != before.get("fingerprint")
        if stale and call.control.compares_etags:
            raise stale_fingerprint()
        body.pop("fingerprint", None)
        body["fingerprint"] = fingerprint(body)


def fingerprint(value: Any) -> str:
    """What compute calls the state of a value: eight bytes in base64."""
    return base64.b64encode(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:8]).decode()


def stale_fingerprint() -> Fault:
    """412 for an update that does not know the present state."""
    return Fault("CONDITION_NOT_MET", "Supplied fingerprint does not match current metadata fingerprint.")


def _set_labels(call: Call) -> Body:
    row = call.control.find(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    if call.control.compares_etags and call.body.get("labelFingerprint") != row.body.get("labelFingerprint"):
        raise Fault("CONDITION_NOT_MET", "Labels fingerprint either invalid or resource labels have changed")
    after = {**row.body, "labels": call.body.get("labels", {})}
    if not after["labels"]:
        del after["labels"]
    return standard.update_to(call, row, after, "setLabels")


def _finish_network(_control: Any, _key: str, body: Body) -> None:
    body.setdefault("autoCreateSubnetworks", True)


_KINDS = (
    _row(
        "networks",
        defaults={
            "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
            "routingConfig": {"routingMode": "REGIONAL", "bgpBestPathSelectionMode": "LEGACY"},
        },
        finish=_finish_network,
        in_use="operation",
        quota="NETWORKS",
    ),
    _row(
        "subnetworks",
        defaults={
            "enableFlowLogs": False,
            "privateIpGoogleAccess": False,
            "privateIpv6GoogleAccess": "DISABLE_GOOGLE_ACCESS",
            "purpose": "PRIVATE",
            "stackType": "IPV4_ONLY",
            "allowSubnetCidrRoutesOverlap": False,
        },
        references={"network": "compute"},
        quota="SUBNETWORKS",
    ),
    _row(
        "addresses",
        defaults={"addressType": "EXTERNAL", "description": "", "networkTier": "PREMIUM", "status": "RESERVED"},
        references={"network": "compute", "subnetwork": "compute"},
        quota="STATIC_ADDRESSES",
    ),
    _row("routers", references={"network": "compute"}, quota="ROUTERS"),
    _row("firewalls", references={"network": "compute"}, quota="FIREWALLS"),
    _row("routes", references={"network": "compute"}, quota="ROUTES"),
    _row("backendServices", references={"healthChecks": "compute", "network": "compute"}, quota="BACKEND_SERVICES"),
    _row("targetTcpProxies", references={"service": "compute"}),
    _row("forwardingRules", references={"target": "compute", "network": "compute", "backendService": "compute"}),
    _row("healthChecks", quota="HEALTH_CHECKS"),
)

_LABELLED = (
    "addresses",
    "disks",
    "externalVpnGateways",
    "forwardingRules",
    "globalAddresses",
    "globalForwardingRules",
    "images",
    "instances",
    "instantSnapshots",
    "interconnectAttachments",
    "interconnects",
    "regionDisks",
    "securityPolicies",
    "snapshots",
    "targetVpnGateways",
    "vpnGateways",
    "vpnTunnels",
)

SERVICE = Service(
    name="compute",
    every=_ANY,
    kinds=_KINDS,
    methods={f"{collection}.setLabels": _set_labels for collection in _LABELLED},
    operations=Style(in_scope, nothing, whole=compute_operation),
    stamp=_stamp,
    merge_patch=True,
)
