"""Compute's quotas: limits from a table, usage counted in the store. https://cloud.google.com/compute/resource-usage

The limits are of the size that new projects have, and a test can set others. Only what somebody has to ask Google for
before GPUs and large machines start is granted here: a new project has no GPU and 24 CPUs of a series in a region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import quota_exceeded
from orchestra_lib.local.control.kinds import Body
from orchestra_lib.local.control.services.compute_catalogue import shape_of

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane


def _one(_body: Body) -> float:
    return 1


def _gigabytes(*types: str) -> Callable[[Body], float]:
    def amount(body: Body) -> float:
        name = str(body.get("type", "pd-standard")).rsplit("/", 1)[-1]
        return float(body.get("sizeGb", 0)) if name in types else 0

    return amount


def _cpus(*series: str) -> Callable[[Body], float]:
    def amount(body: Body) -> float:
        machine = str(body.get("machineType", "")).rsplit("/", 1)[-1]
        return shape_of(machine)[0] if not series or machine.split("-", 1)[0] in series else 0

    return amount


def _accelerators(name: str = "") -> Callable[[Body], float]:
    def amount(body: Body) -> float:
        cards = body.get("guestAccelerators", ())
        return sum(
            float(card.get("acceleratorCount", 0))
            for card in cards
            if not name or str(card.get("acceleratorType", "")).endswith(f"/{name}")
        )

    return amount


def _addresses(kind: str) -> Callable[[Body], float]:
    return lambda body: 1 if body.get("addressType", "EXTERNAL") == kind else 0


def _external_addresses(body: Body) -> float:
    return sum(len(interface.get("accessConfigs", ())) for interface in body.get("networkInterfaces", ()))


@dataclass(frozen=True)
class Quota:
    """A metric: its limit, what it counts, and how much each counts. Regional ones count the zones of a region too."""

    metric: str
    limit: float
    collection: str
    amount: Callable[[Body], float] = _one
    regional: bool = False
    only_global: bool = False
    """Whether it counts only what lies in no region."""

    def counts(self, key: str) -> bool:
        """Whether the resource of a key is of those that it counts."""
        parts = key.split("/")
        return parts[-2] == self.collection and (not self.only_global or parts[3] == "global")


GLOBAL = (
    Quota("SNAPSHOTS", 5000, "snapshots"),
    Quota("NETWORKS", 5, "networks"),
    Quota("FIREWALLS", 100, "firewalls"),
    Quota("IMAGES", 2000, "images"),
    Quota("STATIC_ADDRESSES", 8, "addresses", _addresses("EXTERNAL"), only_global=True),
    Quota("GLOBAL_INTERNAL_ADDRESSES", 5000, "addresses", _addresses("INTERNAL"), only_global=True),
    Quota("ROUTES", 250, "routes"),
    Quota("FORWARDING_RULES", 15, "forwardingRules"),
    Quota("TARGET_POOLS", 50, "targetPools"),
    Quota("HEALTH_CHECKS", 75, "healthChecks"),
    Quota("TARGET_INSTANCES", 50, "targetInstances"),
    Quota("TARGET_HTTP_PROXIES", 10, "targetHttpProxies"),
    Quota("TARGET_HTTPS_PROXIES", 10, "targetHttpsProxies"),
    Quota("TARGET_SSL_PROXIES", 10, "targetSslProxies"),
    Quota("TARGET_TCP_PROXIES", 10, "targetTcpProxies"),
    Quota("TARGET_VPN_GATEWAYS", 5, "targetVpnGateways"),
    Quota("URL_MAPS", 10, "urlMaps"),
    Quota("BACKEND_SERVICES", 50, "backendServices"),
    Quota("BACKEND_BUCKETS", 3, "backendBuckets"),
    Quota("INSTANCE_TEMPLATES", 300, "instanceTemplates"),
    Quota("VPN_GATEWAYS", 5, "vpnGateways"),
    Quota("VPN_TUNNELS", 10, "vpnTunnels"),
    Quota("ROUTERS", 20, "routers"),
    Quota("SSL_CERTIFICATES", 10, "sslCertificates"),
    Quota("SUBNETWORKS", 275, "subnetworks"),
    Quota("SECURITY_POLICIES", 10, "securityPolicies"),
    Quota("CPUS_ALL_REGIONS", 512, "instances", _cpus()),
    Quota("GPUS_ALL_REGIONS", 16, "instances", _accelerators()),
)
REGIONAL = (
    # N1 and E2 count as plain CPUS; the newer series have metrics of their own.
    Quota("CPUS", 256, "instances", _cpus("n1", "e2", "f1", "g1"), regional=True),
    Quota("N2_CPUS", 24, "instances", _cpus("n2"), regional=True),
    Quota("N2D_CPUS", 256, "instances", _cpus("n2d"), regional=True),
    Quota("NVIDIA_T4_GPUS", 16, "instances", _accelerators("nvidia-tesla-t4"), regional=True),
    Quota("INSTANCES", 720, "instances", regional=True),
    Quota("DISKS_TOTAL_GB", 4096, "disks", _gigabytes("pd-standard"), regional=True),
    Quota("SSD_TOTAL_GB", 8192, "disks", _gigabytes("pd-ssd", "pd-balanced"), regional=True),
    Quota("STATIC_ADDRESSES", 8, "addresses", _addresses("EXTERNAL"), regional=True),
    Quota("INTERNAL_ADDRESSES", 200, "addresses", _addresses("INTERNAL"), regional=True),
    Quota("IN_USE_ADDRESSES", 8, "instances", _external_addresses, regional=True),
    Quota("INSTANCE_GROUPS", 100, "instanceGroups", regional=True),
    Quota("INSTANCE_GROUP_MANAGERS", 50, "instanceGroupManagers", regional=True),
    Quota("RESOURCE_POLICIES", 10, "resourcePolicies", regional=True),
    Quota("NETWORK_ENDPOINT_GROUPS", 100, "networkEndpointGroups", regional=True),
)


def global_quotas(control: ControlPlane, project: str) -> list[Body]:
    """The ``quotas`` of a project."""
    return [_row(control, quota, project, "") for quota in GLOBAL]


def regional_quotas(control: ControlPlane, project: str, region: str) -> list[Body]:
    """The ``quotas`` of a region in a project."""
    return [_row(control, quota, project, region) for quota in REGIONAL]


def check(call: Call, key: str, body: Body) -> None:
    """Raise Fault (403, quotaExceeded) for a create that goes beyond a limit."""
    project, region = str(call.project), _region_of(key)
    for quota in (*GLOBAL, *(REGIONAL if region else ())):
        amount = quota.amount(body) if quota.counts(key) else 0
        if not amount:
            continue
        place = region if quota.regional else ""
        limit = _limit(call.control, quota, project)
        if _used(call.control, quota, project, place) + amount > limit:
            raise quota_exceeded(quota.metric, limit, f"in region {place}" if place else "globally")


def _row(control: ControlPlane, quota: Quota, project: str, region: str) -> Body:
    used = _used(control, quota, project, region)
    return {"metric": quota.metric, "limit": float(_limit(control, quota, project)), "usage": float(used)}


def _limit(control: ControlPlane, quota: Quota, project: str) -> float:
    injected = control.injected.quota(project, quota.metric)
    return float(quota.limit if injected is None else injected)


def _used(control: ControlPlane, quota: Quota, project: str, region: str) -> float:
    base = f"compute/projects/{project}/"
    prefixes: Iterable[str] = (f"{base}regions/{region}/", f"{base}zones/{region}-") if region else (base,)
    rows = (row for prefix in prefixes for row in control.store.below(prefix, f"compute/{quota.collection}"))
    return sum(quota.amount(row.body) for row in rows if quota.counts(row.key))


def _region_of(key: str) -> str:
    """The region that a resource counts in; empty for a global one."""
    parts = key.split("/")
    if parts[3] == "zones":
        return parts[4].rpartition("-")[0]
    return parts[4] if parts[3] == "regions" else ""
