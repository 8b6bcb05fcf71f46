"""Compute Engine: networks and what hangs on them, disks, machines. https://cloud.google.com/compute/docs/reference/rest/v1

Resources are named by their own ``name``, refer to each other by URL, and every change is an operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control.call import Call, compute_timestamp, digits
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body, Each, Kind, Service
from orchestra_lib.local.control.operation_styles import compute_operation, in_scope, nothing
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.services import (
    compute_addresses,
    compute_balancing,
    compute_catalogue,
    compute_identity,
    compute_machines,
    compute_networks,
    compute_quotas,
    compute_verbs,
)
from orchestra_lib.local.control.services.compute_identity import fingerprint, url

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

# https://cloud.google.com/compute/docs/troubleshooting/troubleshooting-operations
_ERROR_CODES = {500: "INTERNAL_ERROR", 503: "SERVICE_UNAVAILABLE"}
Fill = Callable[[Call, Body, Body | None], None]
_NAME = "(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)"


def _name(_call: Call, body: Body) -> str:
    return str(body.get("name", ""))


_ANY = Kind(
    "",
    etag=False,
    uid=False,
    new_id=_name,
    id_pattern=_NAME,
    not_found="The resource '{path}' was not found",
    exists="The resource '{path}' already exists",
    busy="The resource '{path}' is not ready",
    in_use="call",
    in_use_words="The {noun} resource '{path}' is already being used by '{user}'",
    short_name=True,
    finish=compute_identity.ready,
)


def _within_quota(fill: Fill | None) -> Fill:
    """What completes a body, and after it the quotas, which count by what it then holds."""

    def complete(call: Call, body: Body, before: Body | None) -> None:
        if fill:
            fill(call, body, before)
        if before is None:
            compute_quotas.check(call, f"{call.key}/{body.get('name', '')}", body)

    return complete


def _row(collection: str, links: tuple[str, ...] = (), fill: Fill | None = None, **more: Any) -> Kind:
    """A row; ``links`` are the fields that name other resources of compute."""
    references = dict.fromkeys(links, "compute")
    return replace(_ANY, collection=collection, references=references, fill=_within_quota(fill), **more)


def _network_ready(control: ControlPlane, key: str, body: Body) -> None:
    compute_identity.ready(control, key, body)
    compute_networks.network_created(control, key, body)


def _shown_region(control: ControlPlane, key: str, _version: str, body: Body) -> Body:
    _, _, project, _, region = key.split("/")
    return {**body, "quotas": compute_quotas.regional_quotas(control, project, region)}


def _get_project(call: Call) -> Body:
    """The project as compute sees it, with its quotas."""
    project = str(call.project)
    row = call.control.find(f"cloudresourcemanager/projects/{project}")
    if row is None:
        raise Fault("NOT_FOUND", f"The resource '{call.path}' was not found")
    return {
        "kind": "compute#project",
        "id": digits(call.key, 19),
        "creationTimestamp": compute_timestamp(datetime.fromisoformat(row.body["createTime"]).timestamp()),
        "name": project,
        "selfLink": url(call.key),
        "commonInstanceMetadata": {"kind": "compute#metadata", "fingerprint": fingerprint({})},
        "quotas": compute_quotas.global_quotas(call.control, project),
        "defaultServiceAccount": f"{call.project_number}-compute@developer.gserviceaccount.com",
        "xpnProjectStatus": "UNSPECIFIED_XPN_PROJECT_STATUS",
        "defaultNetworkTier": "PREMIUM",
        "vmDnsSetting": "ZONAL_ONLY",
        "cloudArmorTier": "CA_STANDARD",
    }


def _delete(control: ControlPlane, record: Record) -> None:
    row = control.find(record["target"])
    compute_networks.delete(control, record)
    if row and record["target"].split("/")[-2] == "instances":
        compute_machines.instance_deleted(control, row.body)


def _operation(control: ControlPlane, record: Record) -> Body:
    """A ``compute#operation``: its type is not always its verb, its error codes are not those of calls."""
    shown = compute_operation(control, record)
    shown["operationType"] = compute_verbs.OPERATION_TYPES.get(record["short_id"], shown["operationType"])
    shown["targetId"] = record["target_id"] or shown["targetId"]
    if record["error"] and (code := _ERROR_CODES.get(record["error"]["http"])):
        shown["error"]["errors"][0]["code"] = code
    return shown


_KINDS = (
    _row(
        "networks",
        defaults={
            "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
            "routingConfig": {"routingMode": "REGIONAL", "bgpBestPathSelectionMode": "LEGACY"},
        },
        finish=_network_ready,
        show=compute_networks.shown_network,
        in_use="operation",
    ),
    _row(
        "subnetworks",
        ("network",),
        compute_networks.complete_subnetwork,
        defaults=compute_networks.SUBNETWORK_DEFAULTS,
        check=compute_networks.check_subnetwork,
        show=compute_networks.shown_subnetwork,
    ),
    _row(
        "addresses",
        ("network", "subnetwork"),
        compute_addresses.complete_address,
        defaults={"addressType": "EXTERNAL", "description": ""},
        show=compute_addresses.shown_address,
        before_delete=compute_addresses.refuse_address_in_use,
    ),
    _row(
        "routers",
        ("network", "nats.natIps", "nats.drainNatIps", "nats.subnetworks.name"),
        compute_networks.complete_router,
        defaults={
            "encryptedInterconnectRouter": False,
            "interfaces": Each({"ipVersion": "IPV4"}),
            "nats": Each(
                {"type": "PUBLIC", "endpointTypes": ["ENDPOINT_TYPE_VM"], "enableEndpointIndependentMapping": False}
            ),
        },
    ),
    _row(
        "firewalls",
        ("network",),
        compute_networks.complete_firewall,
        defaults={
            "description": "",
            "direction": "INGRESS",
            "disabled": False,
            "logConfig": {"enable": False},
            "priority": 1000,
        },
    ),
    _row("routes", ("network", "nextHopIlb"), defaults={"description": "", "priority": 1000}),
    _row(
        "healthChecks",
        fill=compute_balancing.complete_health_check,
        defaults={"checkIntervalSec": 5, "timeoutSec": 5, "healthyThreshold": 2, "unhealthyThreshold": 2},
    ),
    _row(
        "backendServices",
        ("healthChecks", "network", "backends.group", "securityPolicy", "edgeSecurityPolicy"),
        compute_balancing.complete_backend_service,
        defaults={
            "affinityCookieTtlSec": 0,
            "connectionDraining": {"drainingTimeoutSec": 0},
            "description": "",
            "loadBalancingScheme": "EXTERNAL",
            "protocol": "HTTP",
            "sessionAffinity": "NONE",
            "timeoutSec": 30,
        },
    ),
    _row("urlMaps", ("defaultService",)),
    _row("targetTcpProxies", ("service",), defaults={"proxyHeader": "NONE"}),
    _row("targetSslProxies", ("service", "sslCertificates"), defaults={"proxyHeader": "NONE"}),
    _row("targetHttpProxies", ("urlMap",)),
    _row(
        "targetHttpsProxies",
        ("urlMap", "sslCertificates", "sslPolicy"),
        defaults={"quicOverride": "NONE", "tlsEarlyData": "DISABLED"},
    ),
    _row(
        "forwardingRules",
        ("target", "network", "subnetwork", "backendService"),
        compute_addresses.complete_forwarding_rule,
        defaults={"IPProtocol": "TCP", "description": "", "loadBalancingScheme": "EXTERNAL"},
    ),
    _row("sslCertificates", fill=compute_balancing.complete_certificate),
    _row("networkEndpointGroups", ("network", "subnetwork"), defaults={"size": 0}),
    _row("instanceGroups", ("network", "subnetwork"), defaults={"size": 0}),
    _row("vpnGateways", ("network",)),
    _row(
        "disks",
        ("type", "sourceDisk", "sourceSnapshot", "resourcePolicies"),
        compute_machines.complete_disk,
        defaults={"physicalBlockSizeBytes": "4096"},
        show=compute_machines.shown_disk,
    ),
    _row("snapshots", ("sourceDisk",), compute_machines.complete_snapshot, defaults={"snapshotType": "STANDARD"}),
    _row("images", ("sourceDisk", "sourceSnapshot"), defaults={"sourceType": "RAW"}),
    _row("resourcePolicies", fill=compute_machines.complete_schedule),
    _row(
        "instances",
        (
            "networkInterfaces.network",
            "networkInterfaces.subnetwork",
            "disks.source",
            "disks.initializeParams.diskType",
            "resourcePolicies",
        ),
        compute_machines.complete_instance,
        defaults=compute_machines.INSTANCE_DEFAULTS,
        check=compute_machines.check_instance,
    ),
    _row("instanceTemplates", ("properties.networkInterfaces.network", "properties.networkInterfaces.subnetwork")),
    _row("regions", built_in=compute_catalogue.regions, show=_shown_region),
    _row("zones", built_in=compute_catalogue.zones),
    _row("machineTypes", built_in=compute_catalogue.machine_types),
    _row("acceleratorTypes", built_in=compute_catalogue.accelerator_types),
    _row("diskTypes", built_in=compute_catalogue.disk_types),
)

SERVICE = Service(
    name="compute",
    every=replace(_ANY, fill=_within_quota(None)),
    kinds=_KINDS,
    methods={"projects.get": _get_project, **compute_verbs.METHODS},
    effects={"delete": _delete},
    operations=Style(in_scope, nothing, whole=_operation),
    stamp=compute_identity.stamp,
    merge_patch=True,
)
