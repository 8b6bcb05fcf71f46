"""AlloyDB's instances: what they are filled with, what their types demand, restarts, failovers and injected faults.

A cluster has one primary (or secondary) instance and any number of read pools.
https://cloud.google.com/alloydb/docs/instance-primary-create
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from orchestra_lib.local.alloydb import control_rows
from orchestra_lib.local.control import operations, places, references, standard
from orchestra_lib.local.control.call import Call, digits
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Handler, not_found
from orchestra_lib.local.control.operation_styles import COMPUTE_BASE
from orchestra_lib.local.control.operations import Record
from orchestra_lib.local.control.services import alloydb_flags
from orchestra_lib.local.control.store import Stored

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

INSTANCES = "alloydb/instances"
PRIMARY, SECONDARY, READ_POOL = "PRIMARY", "SECONDARY", "READ_POOL"
ZONAL, REGIONAL = "ZONAL", "REGIONAL"
# https://cloud.google.com/alloydb/docs/choose-machine-type
_CPU_COUNTS = frozenset({1, 2, 4, 8, 14, 16, 22, 24, 32, 44, 48, 64, 72, 88, 96, 128, 144, 176, 192, 288})
_DEFAULT_CPU_COUNT = 2
_POOL_NODES = range(1, 21)
_POOLER_CPUS = 2
_MAINTENANCE_RELEASE = "20251210.01_04"

DEFAULTS: Body = {
    "activationPolicy": "ALWAYS",
    "clientConnectionConfig": {"sslConfig": {"sslMode": "ENCRYPTED_ONLY"}},
    "geminiConfig": {},
    "observabilityConfig": {
        "assistiveExperiencesEnabled": False,
        "enabled": False,
        "maxQueryStringLength": 10_240,
        "preserveComments": False,
        "queryPlansPerMinute": 20,
        "recordApplicationTags": False,
        "trackActiveQueries": False,
        "trackClientAddress": False,
        "trackWaitEventTypes": True,
        "trackWaitEvents": True,
    },
    "queryInsightsConfig": {
        "queryPlansPerMinute": 5,
        "queryStringLength": 1_024,
        "recordApplicationTags": False,
        "recordClientAddress": False,
    },
}


def of_cluster(control: ControlPlane, cluster: str) -> list[Stored]:
    """The instances of a cluster (a key)."""
    return control.store.children(cluster, INSTANCES)


def maintenance_version(database_version: str) -> str:
    """The release that an instance of a version runs."""
    return f"{database_version}.{_MAINTENANCE_RELEASE}"


def tenant_number(cluster: str) -> str:
    """The number of Google's project in which a cluster lies."""
    return digits(f"tenant of {cluster}", 12)


# --- what is refused ----------------------------------------------------------------------------------------------


def check(call: Call, body: Body, before: Body | None) -> None:
    """Raise Fault for an instance that does not fit its cluster, its type or a machine."""
    cluster = _cluster(call)
    kind = body["instanceType"]
    if before is None:
        _check_type(call, cluster, kind)
        _check_network(call, cluster)
    elif kind != before["instanceType"]:
        raise bad_field("instance.instance_type", "The type of an instance cannot be changed.")
    _check_machine(body.get("machineConfig", {}))
    nodes = body.get("readPoolConfig", {}).get("nodeCount")
    if kind == READ_POOL and nodes not in _POOL_NODES:
        raise bad_field("instance.read_pool_config.node_count", f"A read pool has 1 to {_POOL_NODES[-1]} nodes.")
    if body.get("gceZone") and body.get("availabilityType", REGIONAL) != ZONAL:
        raise bad_field("instance.gce_zone", "Only an instance of availability type ZONAL can have a zone.")
    if body.get("gceZone") and body["gceZone"] not in places.zones(call.location):
        raise bad_field("instance.gce_zone", f"'{body['gceZone']}' is no zone of {call.location}.")
    alloydb_flags.check(body.get("databaseFlags", {}), cluster.body["databaseVersion"])
    if kind == PRIMARY and body.get("activationPolicy") == "NEVER" and _running_pools(call, cluster.key):
        raise Fault(
            "FAILED_PRECONDITION", "The read pools of a cluster have to be stopped before its primary instance."
        )


def _check_type(call: Call, cluster: Stored, kind: str) -> None:
    wanted = cluster.body["clusterType"]
    others = [row.body["instanceType"] for row in of_cluster(call.control, cluster.key)]
    if (kind == SECONDARY) != (call.method.name == "createsecondary"):
        raise bad_field("instance.instance_type", f"An instance of type {kind} is not made by {call.method.name}.")
    if kind != READ_POOL and kind != wanted:
        raise Fault("FAILED_PRECONDITION", f"Cluster '{cluster.body['name']}' is {wanted}; its instance has that type.")
    if kind != READ_POOL and kind in others:
        raise Fault("FAILED_PRECONDITION", f"Cluster '{cluster.body['name']}' already has a {kind} instance.")
    if kind == READ_POOL and wanted not in others:
        words = f"Cluster '{cluster.body['name']}' has no {wanted} instance yet; a read pool needs it."
        raise Fault("FAILED_PRECONDITION", words)


def _check_network(call: Call, cluster: Stored) -> None:
    """Private addresses come from a range that the network gives to service producers.

    https://cloud.google.com/alloydb/docs/configure-connectivity
    """
    network = cluster.body.get("networkConfig", {}).get("network")
    if not network or call.control.permissive or cluster.body.get("pscConfig", {}).get("pscEnabled"):
        return
    key = references.key_of(call.control, "compute", network, call.project)
    connections = f"{key.replace('compute/', 'servicenetworking/', 1)}/connections/"
    if call.control.find(key) and not call.control.store.below(connections):
        words = f"Network '{network}' has no private services access; connect servicenetworking.googleapis.com to it."
        raise Fault("FAILED_PRECONDITION", words)


def _check_machine(machine: Body) -> None:
    count, named = machine.get("cpuCount"), machine.get("machineType", "")
    in_name = next((int(part) for part in named.split("-")[1:] if part.isdigit()), None)
    if named and in_name is None:
        raise bad_field("instance.machine_config.machine_type", f"'{named}' is no machine type.")
    for value in (count, in_name):
        if value is not None and value not in _CPU_COUNTS:
            raise bad_field("instance.machine_config.cpu_count", f"No machine of AlloyDB has {value} CPUs.")
    if count and in_name and count != in_name:
        raise bad_field("instance.machine_config.cpu_count", f"{named} has {in_name} CPUs, not {count}.")


def _running_pools(call: Call, cluster: str) -> bool:
    rows = of_cluster(call.control, cluster)
    return any(row.body["instanceType"] == READ_POOL and row.body["state"] != "STOPPED" for row in rows)


def _cluster(call: Call) -> Stored:
    """The cluster that a call on an instance, or on a cluster's instances, is about."""
    key = call.key.partition("/instances")[0]
    row = call.control.find(key)
    if row is None:
        raise not_found(call.control, key)
    return row


def before_delete(call: Call, row: Stored) -> None:
    """Raise Fault (400) for an instance that others need."""
    kind = row.body["instanceType"]
    if kind == SECONDARY:
        words = "A secondary instance cannot be deleted; delete its cluster with force."
        raise Fault("FAILED_PRECONDITION", words)
    others = of_cluster(call.control, row.parent)
    if kind == PRIMARY and any(other.body["instanceType"] == READ_POOL for other in others):
        raise Fault("FAILED_PRECONDITION", f"The read pools of the cluster of '{call.path}' have to be deleted first.")


# --- what is filled -----------------------------------------------------------------------------------------------


def fill(call: Call, body: Body, before: Body | None) -> None:
    """What follows from the type, the machine, the zones and the network."""
    machine = body.setdefault("machineConfig", {})
    named = [int(part) for part in machine.get("machineType", "").split("-") if part.isdigit()]
    machine.setdefault("cpuCount", named[0] if named else _DEFAULT_CPU_COUNT)
    if body["instanceType"] != READ_POOL:
        body.setdefault("availabilityType", REGIONAL)
    pooler = body.get("connectionPoolConfig", {})
    if pooler.get("enabled"):
        pooler["poolerCount"] = max(1, machine["cpuCount"] // _POOLER_CPUS)
    body["maintenanceVersionName"] = maintenance_version(_cluster(call).body["databaseVersion"])
    if before is None or _spread(body) != _spread(before):
        body.update(nodes=_nodes(body, call.location))
    _settle_nodes(body)
    _publish(body)
    _attach(call, body)
    body.pop("updatePolicy", None)


def _spread(body: Body) -> tuple[object, ...]:
    """What decides in which zones an instance has its nodes."""
    pool = body.get("readPoolConfig", {}).get("nodeCount")
    return body["instanceType"], body.get("availabilityType"), body.get("gceZone"), pool


def _nodes(body: Body, region: str) -> list[Body]:
    zones = places.zones(region)
    count = body["readPoolConfig"]["nodeCount"] if body["instanceType"] == READ_POOL else 2
    chosen = [zones[index % len(zones)] for index in range(count)] if zones else []
    if body.get("availabilityType") == ZONAL:
        chosen = [body.get("gceZone") or zone for zone in chosen[:1]]
    body.pop("writableNode", None)
    return [{"zoneId": zone} for zone in chosen]


def _settle_nodes(body: Body) -> None:
    """The node that a primary instance writes at stands apart from the others."""
    nodes = ([body["writableNode"]] if "writableNode" in body else []) + body.get("nodes", [])
    for name in ("writableNode", "nodes"):
        body.pop(name, None)
    if body["instanceType"] == PRIMARY and nodes:
        body["writableNode"], *nodes = nodes
    if nodes:
        body["nodes"] = nodes


def in_role(body: Body, role: str) -> Body:
    """A primary or secondary instance in the role of its cluster."""
    after = {**body, "instanceType": role}
    _settle_nodes(after)
    return after


def _publish(body: Body) -> None:
    network = body.get("networkConfig", {})
    if network.get("enableOutboundPublicIp"):
        mark = hashlib.sha256(body["uid"].encode()).digest()
        # Addresses for documentation: nothing here can reach the internet. https://datatracker.ietf.org/doc/html/rfc5737
        body["outboundPublicIpAddresses"] = [f"203.0.113.{mark[0]}", f"198.51.100.{mark[1]}"]
    else:
        body.pop("outboundPublicIpAddresses", None)
    if not network.get("enablePublicIp"):
        body.pop("publicIpAddress", None)


def _attach(call: Call, body: Body) -> None:
    cluster = _cluster(call).body
    if not cluster.get("pscConfig", {}).get("pscEnabled"):
        return
    project, mark = tenant_number(cluster["name"]), body["uid"].replace("-", "")[:12]
    attachment = f"projects/{project}/regions/{call.location}/serviceAttachments/alloydb-{mark}"
    body.setdefault("pscInstanceConfig", {}).update(
        serviceAttachmentLink=f"{COMPUTE_BASE}/{attachment}",
        pscDnsName=f"{mark}.{cluster['uid']}.{call.location}.alloydb-psc.goog.",
    )


def finish(control: ControlPlane, key: str, body: Body) -> None:
    """An instance that is ready has an address; one that is not to be active is stopped."""
    control_rows.give_address(control, key, body)
    if body.get("networkConfig", {}).get("enablePublicIp"):
        # The data plane listens at one address alone, whichever way a client comes.
        body["publicIpAddress"] = body["ipAddress"]
    if body.get("activationPolicy") == "NEVER":
        body["state"] = "STOPPED"
    body["reconciling"] = False


# --- methods ------------------------------------------------------------------------------------------------------


def create_secondary(call: Call) -> Body:
    """``instances.createsecondary``: like the primary instance that it follows, as far as nothing else is wanted."""
    body: Body = dict(call.body or {})
    body.setdefault("instanceType", SECONDARY)
    primary = _cluster(call).body.get("secondaryConfig", {}).get("primaryClusterName", "")
    followed = of_cluster(call.control, references.key_of(call.control, call.service, primary, call.project))
    for row in followed:
        if row.body["instanceType"] == PRIMARY:
            body = {name: row.body[name] for name in ("machineConfig", "databaseFlags") if name in row.body} | body
    return standard.create(_with_body(call, body))


def _with_body(call: Call, body: Body) -> Call:
    call.body = body
    return call


def restart(call: Call) -> Body:
    """``instances.restart``: all of an instance, or some nodes of a read pool."""
    row = _idle(call)
    if call.body.get("nodeIds") and row.body["instanceType"] != READ_POOL:
        raise bad_field("node_ids", "Only nodes of a read pool can be restarted by themselves.")
    return _started(call, "restart", "none")


def fail_over(call: Call) -> Body:
    """``instances.failover``: the standby takes the primary's place."""
    row = _idle(call)
    if row.body["instanceType"] != PRIMARY or row.body.get("availabilityType") != REGIONAL:
        raise Fault("FAILED_PRECONDITION", f"Instance '{call.path}' is no primary instance with a standby.")
    return _started(call, "failover", "fail over")


def inject_fault(call: Call) -> Body:
    """``instances.injectFault``: a stopped machine; where there is a standby, it takes over."""
    row = _idle(call)
    if call.body.get("faultType") != "STOP_VM":
        raise bad_field("fault_type", "Required field 'fault_type' has to be STOP_VM.")
    has_standby = row.body["instanceType"] == PRIMARY and row.body.get("availabilityType") == REGIONAL
    return _started(call, "injectFault", "fail over" if has_standby else "none")


def swap_nodes(control: ControlPlane, record: Record) -> None:
    """The end of a failover."""
    row = control.find(record["target"])
    if row is None:
        raise not_found(control, record["target"])
    body = dict(row.body)
    standby, *rest = body["nodes"]
    control.store.put(row.key, {**body, "writableNode": standby, "nodes": [body["writableNode"], *rest]})


def _idle(call: Call) -> Stored:
    row = call.control.find(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    standard.require_idle(call, call.key)
    if row.body["state"] != "READY":
        raise Fault("FAILED_PRECONDITION", f"Instance '{call.path}' is in state {row.body['state']}, not READY.")
    return row


def _started(call: Call, verb: str, effect: str) -> Body:
    kind = call.api.message_type("Instance")
    return operations.start(call, call.key, verb, message_type=kind, effect=effect)


METHODS: dict[str, Handler] = {
    "instances.createsecondary": create_secondary,
    "instances.restart": restart,
    "instances.failover": fail_over,
    "instances.injectFault": inject_fault,
    "instances.getConnectionInfo": control_rows.connection_info,
}
