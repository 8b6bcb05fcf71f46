"""Compute's verbs: ``POST {resource}/{verb}``. Most of them change the fields that their message holds."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from orchestra_lib.local.control import operations, standard
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body, Handler, already_exists, not_found
from orchestra_lib.local.control.services.compute_identity import identify, invalid, key_of_url, stale_fingerprint, url
from orchestra_lib.local.control.services.compute_machines import content_of
from orchestra_lib.local.control.services.compute_networks import peering, without_peering
from orchestra_lib.local.control.store import Stored

OPERATION_TYPES = {
    "forwardingRules.setTarget": "SetTarget",
    "globalForwardingRules.setTarget": "SetTarget",
    "networks.patch": "compute.networks.patch",
    "firewalls.patch": "compute.firewalls.patch",
}
"""What operations of some methods are called; others are called like their verb."""

# Verbs whose message is the value of one field.
_WHOLE = {"setMetadata": "metadata", "setTags": "tags", "setScheduling": "scheduling", "deprecate": "deprecated"}
_ALIASES = {"setEdgeSecurityPolicy": {"securityPolicy": "edgeSecurityPolicy"}}
_TARGET_PROXIES = ("targetHttpProxies", "targetHttpsProxies", "regionTargetHttpProxies", "regionTargetHttpsProxies")
_SETTERS: Mapping[str, tuple[str, ...]] = {
    "setTarget": ("forwardingRules", "globalForwardingRules"),
    "setBackendService": ("targetTcpProxies", "targetSslProxies"),
    "setProxyHeader": ("targetTcpProxies", "targetSslProxies"),
    "setUrlMap": _TARGET_PROXIES,
    "setSslCertificates": ("targetHttpsProxies", "regionTargetHttpsProxies", "targetSslProxies"),
    "setQuicOverride": ("targetHttpsProxies",),
    "setCertificateMap": ("targetHttpsProxies", "targetSslProxies"),
    "setSslPolicy": ("targetHttpsProxies", "targetSslProxies"),
    "setSecurityPolicy": ("backendServices", "regionBackendServices"),
    "setEdgeSecurityPolicy": ("backendServices", "backendBuckets"),
    "setPrivateIpGoogleAccess": ("subnetworks",),
    "setMachineType": ("instances",),
    "setMachineResources": ("instances",),
    "setMinCpuPlatform": ("instances",),
    "setMetadata": ("instances",),
    "setTags": ("instances",),
    "setScheduling": ("instances",),
    "setNamedPorts": ("instanceGroups", "regionInstanceGroups"),
    "setNodeTemplate": ("nodeGroups",),
    "setInstanceTemplate": ("instanceGroupManagers", "regionInstanceGroupManagers"),
    "setTargetPools": ("instanceGroupManagers", "regionInstanceGroupManagers"),
    "deprecate": ("images",),
}
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
    "machineImages",
    "regionDisks",
    "securityPolicies",
    "snapshots",
    "storagePools",
    "targetVpnGateways",
    "vpnGateways",
    "vpnTunnels",
)
_WITH_POLICIES = ("disks", "regionDisks", "instances")
# The status that a verb leaves an instance in, and those that it takes one from.
_POWER = {
    "start": ("RUNNING", ("TERMINATED", "STOPPED", "RUNNING")),
    "stop": ("TERMINATED", ("RUNNING", "TERMINATED")),
    "suspend": ("SUSPENDED", ("RUNNING",)),
    "resume": ("RUNNING", ("SUSPENDED",)),
    "reset": ("RUNNING", ("RUNNING",)),
}


def _set_fields(call: Call) -> Body:
    row, verb = _row(call), call.method.name
    given = {_ALIASES.get(verb, {}).get(name, name): value for name, value in call.body.items()}
    field = _WHOLE.get(verb)
    if field:
        _require_fingerprint(call, row.body.get(field) or {}, given)
        before = row.body.get(field) or {}
        given = {field: {**before, **given} if verb == "setScheduling" else {"kind": before.get("kind"), **given}}
        given[field] = {name: value for name, value in given[field].items() if value is not None}
    return standard.update_to(call, row, {**row.body, **given}, verb)


def _set_labels(call: Call) -> Body:
    """The labels are there at once: the operation has ended in this answer."""
    row = _row(call)
    if call.control.compares_etags and call.body.get("labelFingerprint") != row.body.get("labelFingerprint"):
        raise stale_fingerprint("Labels fingerprint either invalid or resource labels have changed")
    after = {name: value for name, value in row.body.items() if name != "labels"}
    if call.body.get("labels"):
        after["labels"] = call.body["labels"]
    return _ended(call, standard.update_to(call, row, after, "setLabels"))


def _expand(call: Call) -> Body:
    row, wanted = _row(call), str(call.body.get("ipCidrRange", ""))
    try:
        inside = ipaddress.IPv4Network(row.body["ipCidrRange"]).subnet_of(ipaddress.IPv4Network(wanted))
    except ValueError:
        inside = False
    if not inside:
        raise invalid("ipCidrRange", wanted, f"It has to contain the present range {row.body['ipCidrRange']}.")
    return standard.update_to(call, row, {**row.body, "ipCidrRange": wanted}, "expandIpCidrRange")


def _resize(call: Call) -> Body:
    row, wanted = _row(call), call.body.get("sizeGb", "0")
    if int(wanted) < int(row.body["sizeGb"]):
        raise invalid("sizeGb", wanted, f"A disk cannot become smaller than it is: {row.body['sizeGb']} GB.")
    return standard.update_to(call, row, {**row.body, "sizeGb": wanted}, "resizeDisk")


def _create_snapshot(call: Call) -> Body:
    row, name = _row(call), call.body.get("name", "")
    key = f"compute/projects/{call.project}/global/snapshots/{name}"
    if call.control.find(key):
        raise already_exists(call.control, key)
    body = {**call.body, "sourceDisk": url(row.key), **content_of(row.body)}
    body.setdefault("snapshotType", "STANDARD")
    identify(call.api.schema("Snapshot"), key, body, {}, call.now)
    call.control.store.put(key, {**body, "status": "READY"})
    return _operation(call, row, "createSnapshot")


# --- networks -----------------------------------------------------------------------------------------------------


def _add_peering(call: Call) -> Body:
    row, given = _row(call), dict(call.body)
    details: Body = dict(given.get("networkPeering") or {})
    name = details.pop("name", None) or given.get("name", "")
    peer_link = details.pop("network", None) or given.get("peerNetwork", "")
    peer = key_of_url(call.control, peer_link, call.project)
    peer_row = call.control.find(peer)
    if peer_row is None:
        raise not_found(call.control, peer)
    if any(known["name"] == name for known in row.body.get("peerings", ())):
        raise Fault("INVALID_ARGUMENT", f"There is already a peering '{name}' in this network.", reason="invalid")
    back = [entry for entry in peer_row.body.get("peerings", ()) if entry["network"] == url(row.key)]
    entry = peering(name, url(peer), call.now, connected=bool(back), given=details)
    for other in back:
        entries = [
            peering(known["name"], known["network"], call.now, connected=True, given=_asked(known))
            if known is other
            else known
            for known in peer_row.body["peerings"]
        ]
        call.control.store.put(peer, {**peer_row.body, "peerings": entries})
    after = {**row.body, "peerings": [*row.body.get("peerings", ()), entry]}
    return standard.update_to(call, row, after, "addPeering")


def _remove_peering(call: Call) -> Body:
    row, name = _row(call), str(call.body.get("name", ""))
    gone = next((known for known in row.body.get("peerings", ()) if known["name"] == name), None)
    if gone is None:
        raise Fault("INVALID_ARGUMENT", f"There is no peering '{name}' in this network.", reason="invalid")
    call.control.store.remove(f"servicenetworking/{call.path}/connections/{name}")
    peer = key_of_url(call.control, gone["network"], call.project)
    peer_row = call.control.store.get(peer)
    if peer_row:
        entries = [
            peering(known["name"], known["network"], call.now, connected=False, given=_asked(known))
            if known["network"] == url(row.key)
            else known
            for known in peer_row.body.get("peerings", ())
        ]
        call.control.store.put(peer, {**peer_row.body, "peerings": entries})
    return standard.update_to(call, row, without_peering(row.body, name), "removePeering")


def _asked(entry: Body) -> Body:
    """What of a peering its owner chose."""
    return {name: value for name, value in entry.items() if name not in ("connectionStatus", "state", "stateDetails")}


def _custom_mode(call: Call) -> Body:
    row = _row(call)
    return standard.update_to(call, row, {**row.body, "autoCreateSubnetworks": False}, "switchToCustomMode")


def _effective_firewalls(call: Call) -> Body:
    row = _row(call)
    rules = call.control.rows_in(f"compute/projects/{call.project}/global/firewalls")
    found = [rule.body for rule in rules if rule.body.get("network") == url(row.key)]
    return {"firewalls": found} if found else {}


# --- policies and power -------------------------------------------------------------------------------------------


def _change_policies(*, add: bool) -> Handler:
    def handler(call: Call) -> Body:
        row = _row(call)
        given = [url(key_of_url(call.control, link, call.project)) for link in call.body.get("resourcePolicies", ())]
        before = row.body.get("resourcePolicies", [])
        left = [link for link in before if link not in given]
        after = [*left, *given] if add else left
        return standard.update_to(call, row, {**row.body, "resourcePolicies": after}, call.method.name)

    return handler


def _power(call: Call) -> Body:
    row = _row(call)
    status, allowed = _POWER[call.method.name]
    if row.body.get("status") not in allowed:
        words = f"The resource '{call.path}' is not ready: it is {row.body.get('status')}."
        raise Fault("INVALID_ARGUMENT", words, reason="resourceNotReady")
    return standard.update_to(call, row, {**row.body, "status": status}, call.method.name)


def _protect(call: Call) -> Body:
    row = _row(call)
    wanted = call.query.get("deletionProtection", "true").lower() == "true"
    return standard.update_to(call, row, {**row.body, "deletionProtection": wanted}, call.method.name)


# --- shared -------------------------------------------------------------------------------------------------------


def _row(call: Call) -> Stored:
    row = call.control.store.get(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    return row


def _require_fingerprint(call: Call, before: Body, given: Body) -> None:
    stale = given.get("fingerprint") and given["fingerprint"] != before.get("fingerprint")
    if call.control.compares_etags and stale:
        raise stale_fingerprint()


def _operation(call: Call, row: Stored, verb: str) -> Body:
    standard.require_idle(call, row.key)
    return operations.start(call, row.key, verb, message_type=call.api.message_type("Operation"), effect="none")


def _ended(call: Call, answer: Body) -> Body:
    key = key_of_url(call.control, answer["selfLink"], call.project)
    record: dict[str, Any] | None = call.control.store.operation(key)
    if record is None:
        return answer
    operations.end(call.control, record, call.now)
    return operations.shown(call.control, record)


def _table() -> Mapping[str, Callable[[Call], Body]]:
    result: dict[str, Handler] = {
        "subnetworks.expandIpCidrRange": _expand,
        "disks.resize": _resize,
        "regionDisks.resize": _resize,
        "disks.createSnapshot": _create_snapshot,
        "regionDisks.createSnapshot": _create_snapshot,
        "networks.addPeering": _add_peering,
        "networks.removePeering": _remove_peering,
        "networks.switchToCustomMode": _custom_mode,
        "networks.getEffectiveFirewalls": _effective_firewalls,
        "instances.setDeletionProtection": _protect,
    }
    result |= {f"{collection}.{verb}": _set_fields for verb, where in _SETTERS.items() for collection in where}
    result |= {f"{collection}.setLabels": _set_labels for collection in _LABELLED}
    result |= {f"instances.{verb}": _power for verb in _POWER}
    for collection in _WITH_POLICIES:
        result[f"{collection}.addResourcePolicies"] = _change_policies(add=True)
        result[f"{collection}.removeResourcePolicies"] = _change_policies(add=False)
    return result


METHODS = _table()
"""By short id."""
