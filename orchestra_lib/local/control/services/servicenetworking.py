"""Private services access: connections of networks to service producers.

A connection is kept below its network; its path names the producer alone, as the API does.
https://cloud.google.com/service-infrastructure/docs/service-networking/reference/rest
"""

from __future__ import annotations

from typing import Any

from orchestra_lib.local.control import constraints, operations, references
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Service, not_found
from orchestra_lib.local.control.operation_styles import bare, nothing
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.services import compute_networks

_CONNECTION = "type.googleapis.com/google.cloud.servicenetworking.v1.Connection"
_STILL_USED = (
    "Failed to delete connection; Producer services (e.g. CloudSQL, Cloud Memstore, etc.) are still using this "
    "connection."
)


def _list(call: Call) -> Body:
    network = _network(call, call.query.get("network", ""))
    rows = call.control.store.below(f"{network}/connections/".replace("compute/", "servicenetworking/", 1))
    producer = call.path.removesuffix("/connections")
    found = [row.body for row in rows if producer in (row.body["service"], "services/-")]
    return {"connections": found} if found else {}


def _create(call: Call) -> Body:
    return _connect(call, call.path.removesuffix("/connections"), replace=False)


def _patch(call: Call) -> Body:
    return _connect(call, call.path.rsplit("/connections/", 1)[0], replace=True)


def _connect(call: Call, producer: str, *, replace: bool) -> Body:
    """Connect a network; its first PATCH connects it too, as the service was seen to do."""
    body = call.body or {}
    network = _network(call, body.get("network", ""))
    if call.control.find(network) is None:
        raise not_found(call.control, network)
    ranges = list(body.get("reservedPeeringRanges", ()))
    if not ranges:
        raise bad_field("connection.reserved_peering_ranges", "At least one reserved peering range is required.")
    project = network.split("/")[2]
    for name in ranges:
        address = f"compute/projects/{project}/global/addresses/{name}"
        if call.control.find(address) is None:
            raise not_found(call.control, address)
    peering = producer.removeprefix("services/").replace(".", "-")
    key = f"{network.replace('compute/', 'servicenetworking/', 1)}/connections/{peering}"
    if not replace and call.control.store.get(key):
        raise Fault("FAILED_PRECONDITION", f"The network is already connected to {producer}; modify that connection.")
    connection = {
        "network": call.control.projects.numbered(network.removeprefix("compute/")),
        "peering": peering,
        "reservedPeeringRanges": ranges,
    }
    constraints.check_policies(call, key, body, project)
    return operations.start(
        call,
        key,
        "create",
        message_type=_CONNECTION,
        effect="connect",
        answer={"@type": _CONNECTION, **connection},
        after={**connection, "service": producer},
    )


def _delete(call: Call) -> Body:
    producer, peering = call.path.rsplit("/connections/", 1)
    network = _network(call, (call.body or {}).get("consumerNetwork", ""))
    key = f"{network.replace('compute/', 'servicenetworking/', 1)}/connections/{peering}"
    if call.control.store.get(key) is None:
        raise Fault("NOT_FOUND", f"The connection of {network.removeprefix('compute/')} to {producer} was not found")
    return operations.start(
        call, key, "delete", message_type=_CONNECTION, effect="disconnect", answer=dict(operations.EMPTY)
    )


def _take_connection(control: Any, record: Record) -> None:
    control.store.put(record["target"], record["after"])
    compute_networks.connect_producer(control, *_network_and_peering(record["target"]))


def _drop_connection(control: Any, record: Record) -> None:
    """The end of a delete: refused while an AlloyDB cluster lies in the network."""
    project = record["target"].split("/")[2]
    network = record["target"].rsplit("/connections/", 1)[0].replace("servicenetworking/", "compute/", 1)
    clusters = control.store.below(f"alloydb/projects/{project}/", "alloydb/clusters")
    for row in clusters:
        named = row.body.get("networkConfig", {}).get("network") or row.body.get("network", "")
        if named and references.key_of(control, "compute", named, project) == network:
            raise Fault("FAILED_PRECONDITION", _STILL_USED)
    control.store.remove(record["target"])
    compute_networks.disconnect_producer(control, *_network_and_peering(record["target"]))


def _network_and_peering(key: str) -> tuple[str, str]:
    network, peering = key.rsplit("/connections/", 1)
    return network.replace("servicenetworking/", "compute/", 1), peering


def _network(call: Call, name: str) -> str:
    """The key of the network that a caller names by its project's number."""
    parts = name.split("/")
    if len(parts) != 5 or parts[0] != "projects" or parts[2:4] != ["global", "networks"]:
        raise bad_field("network", f"Invalid network name '{name}': projects/NUMBER/global/networks/NAME is expected.")
    if call.control.permissive and parts[1].isdigit():
        parts[1] = call.control.projects.adopt(parts[1], call.now)
    return references.key_of(call.control, "compute", "/".join(parts), None)


SERVICE = Service(
    name="servicenetworking",
    methods={
        "connections.list": _list,
        "connections.create": _create,
        "connections.patch": _patch,
        "connections.deleteConnection": _delete,
    },
    effects={"connect": _take_connection, "disconnect": _drop_connection},
    operations=Style(bare("pssn.p24"), nothing),
)
