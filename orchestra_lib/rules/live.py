"""Rules that need to know what is there: zones, machine types, quotas, policies, flags, and what cannot be changed.

The facts are handed in (:class:`~orchestra_lib.rules.facts.LiveFacts`); nothing here asks Google Cloud for anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from orchestra_lib.machine_types import machine_type
from orchestra_lib.rules import known
from orchestra_lib.rules.constraints import Policy, covers_location
from orchestra_lib.rules.kinds import ANYTHING, FLAG, MAPPING, TEXT, TEXTS, WHOLE, Kind
from orchestra_lib.rules.rule import Input, Level, Rule, Values, in_document, live, may, needs, on_page, used
from orchestra_lib.rules.run import connections_fit
from orchestra_lib.rules.workstations import MACHINES
from orchestra_lib.settings.document import value_at

POLICY = Kind("an effective policy", lambda value: value if isinstance(value, Policy) else None)


# --- zones ------------------------------------------------------------------------------------------------------------


def _pair(v: Values, offered: Mapping[str, frozenset[str]], name: str) -> Mapping[str, Any]:
    zones = sorted(zone for zone, names in offered.items() if name in names and zone.startswith(f"{v.region}-"))
    return {"workstations.replica_zones": zones[:2]} if len(zones) >= 2 else {}


def _lacking(v: Values, offered: Mapping[str, frozenset[str]], name: str) -> list[str]:
    return [zone for zone in v.zones if name not in offered.get(zone, frozenset())]


_ZONES = {"zones": needs("workstations.replica_zones", TEXTS), "region": needs("regions.primary", TEXT)}


def _accelerator_in_zones(place: str) -> Rule:
    return Rule(
        "L-WS-04",
        Level.FAIL,
        f"every zone has the GPUs of {place.rpartition('.')[2]}",
        {**_ZONES, "name": used(f"{place}.accelerator_type", TEXT), "offered": live("accelerator_types", MAPPING)},
        lambda v: not _lacking(v, v.offered, v.name),
        lambda v: f"{', '.join(_lacking(v, v.offered, v.name))} has no {v.name}, and zones cannot be changed later",
        in_document("compute.v1", "acceleratorTypes.aggregatedList"),
        lambda v: _pair(v, v.offered, v.name),
    )


def _machine_in_zones(place: str) -> Rule:
    return Rule(
        "L-WS-04",
        Level.FAIL,
        f"every zone has the machine type of {place.rpartition('.')[2]}",
        {**_ZONES, "name": needs(f"{place}.machine_type", TEXT), "offered": live("machine_types", MAPPING)},
        lambda v: not _lacking(v, v.offered, v.name),
        lambda v: f"{', '.join(_lacking(v, v.offered, v.name))} has no {v.name}",
        in_document("compute.v1", "machineTypes.aggregatedList"),
        lambda v: _pair(v, v.offered, v.name),
    )


# --- quotas -----------------------------------------------------------------------------------------------------------

_USE = {
    "developers": needs("usage.developers", WHOLE),
    "workstations": needs("workstations", MAPPING),
    "region": needs("regions.primary", TEXT),
}
_T4 = "nvidia-tesla-t4"


def _whole(v: Values, place: str) -> int:
    value = value_at(v.workstations, place)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _machines(v: Values, name: str) -> int:
    """How many of one machine may run at once: everybody's, and what stands ready."""
    pool = "pool_size" if name == "development" else "boost_pool_size"
    return max(v.developers, 0) + _whole(v, pool) if value_at(v.workstations, name) is not None else 0


def _cpus(*series: str) -> Callable[[Values], int]:
    """vCPUs of the machines of these series, or of all; a developer has one machine at a time: the most counts."""

    def need(v: Values) -> int:
        needed = []
        for name in ("development", "boost"):
            text = value_at(v.workstations, f"{name}.machine_type")
            machine = machine_type(text) if isinstance(text, str) else None
            if machine and (not series or machine.series in series):
                needed.append(machine.cpus * _machines(v, name))
        return max(needed, default=0)

    return need


def _gpus(*types: str) -> Callable[[Values], int]:
    def need(v: Values) -> int:
        return sum(
            (_whole(v, f"{name}.accelerator_count") or 1) * _machines(v, name)
            for name in ("development", "boost")
            if (kind := value_at(v.workstations, f"{name}.accelerator_type")) and (not types or kind in types)
        )

    return need


def _disks(v: Values) -> int:
    """GB of balanced and SSD disks: a home disk is in two zones, the boot disk belongs to a machine that runs."""
    developers: int = max(v.developers, 0)
    running = developers + _whole(v, "pool_size") + _whole(v, "boost_pool_size")
    return 2 * _whole(v, "home_disk_gb") * developers + _whole(v, "boot_disk_gb") * running


_NEEDS: Mapping[str, Callable[[Values], int]] = {
    "NVIDIA_T4_GPUS": _gpus(_T4),
    "NVIDIA_L4_GPUS": _gpus("nvidia-l4"),
    "GPUS_ALL_REGIONS": _gpus(),
    "CPUS": _cpus("n1"),
    "N2D_CPUS": _cpus("n2d"),
    "CPUS_ALL_REGIONS": _cpus(),
    "SSD_TOTAL_GB": _disks,
}
"""Metric of compute -> what the plan needs of it. N1 counts against CPUS, which has no letter of its own."""


def _quota(metric: str, need: Callable[[Values], int]) -> Rule:
    return Rule(
        "L-QU-01",
        Level.FAIL,
        f"the quota {metric} is enough",
        {**_USE, "left": live("quota_left", ANYTHING, metric)},
        lambda v: need(v) <= v.left,
        lambda v: (
            f"{need(v)} are needed, {v.left:g} are left: ask for {metric} in {v.region}, "
            f"{math.ceil(need(v) - v.left)} more than now"
        ),
        in_document("compute.v1", "Quota.metric"),
    )


# --- organisation policies --------------------------------------------------------------------------------------------


def _policy(
    constraint: str, claim: str, reads: Mapping[str, Input], violated: Callable[[Values], str], remedy: str
) -> Rule:
    """A constraint against the plan. ``violated`` returns what of the plan it forbids, or nothing."""
    return Rule(
        "L-OP-01",
        Level.FAIL,
        claim,
        {**reads, "policy": live("policies", POLICY, constraint)},
        lambda v: not violated(v),
        lambda v: f"{constraint} forbids {violated(v)}: {remedy}",
        in_document("orgpolicy.v2", "projects.policies.getEffectivePolicy"),
    )


def _outside(v: Values) -> str:
    places = (v.primary, v.secondary) if v.secondary else (v.primary,)
    return ", ".join(place for place in places if not v.policy.lets_pass(place, covers_location))


def _services(v: Values) -> str:
    hosts = sorted({
        f"{name}.googleapis.com"
        for names in v.services.values()
        if isinstance(names, list | tuple)
        for name in names
        if isinstance(name, str)
    })  # fmt: skip
    return ", ".join(host for host in hosts if not v.policy.lets_pass(host, lambda entry, value: entry == value))


_POLICIES = (
    _policy(
        "compute.vmExternalIpAccess",
        "workstations need no public addresses where none are allowed",
        {"private": needs("workstations.disable_public_ip_addresses", FLAG)},
        lambda v: (
            "" if v.private or not (v.policy.denies_all or v.policy.denied) else "public addresses of workstations"
        ),
        "set workstations.disable_public_ip_addresses: true",
    ),
    _policy(
        "compute.disableNestedVirtualization",
        "no nested virtualisation where it is forbidden",
        {"nested": used("workstations.nested_virtualization", FLAG)},
        lambda v: "nested virtualisation" if v.nested and v.policy.enforced else "",
        "set workstations.nested_virtualization: false",
    ),
    _policy(
        "compute.requireShieldedVm",
        "machines are shielded where they have to be",
        {"shielded": needs("workstations.shielded", FLAG)},
        lambda v: "machines that are not shielded" if v.policy.enforced and not v.shielded else "",
        "set workstations.shielded: true",
    ),
    _policy(
        "gcp.resourceLocations",
        "both regions are allowed",
        {"primary": needs("regions.primary", TEXT), "secondary": may("regions.secondary", TEXT)},
        _outside,
        "choose regions that are allowed, or ask for these",
    ),
    _policy(
        "gcp.restrictServiceUsage",
        "the services of all phases are allowed",
        {"services": needs("services", MAPPING)},
        _services,
        "ask the organisation to allow them",
    ),
    _policy(
        "iam.allowedPolicyMemberDomains",
        "nobody outside is invited where that is forbidden",
        {"invokers": used("api.invokers", TEXTS)},
        lambda v: "allUsers" if v.policy.allowed is not None and "allUsers" in v.invokers else "",
        "leave allUsers out of api.invokers and set api.invoker_iam_disabled: true",
    ),
    _policy(
        "compute.restrictVpcPeering",
        "the database's network may be peered",
        {"range": needs("network.service_range", TEXT)},
        lambda v: "" if v.policy.lets_pass("servicenetworking", _covers_peering) else "private services access",
        "ask for an exception for servicenetworking",
    ),
)


def _covers_peering(entry: str, value: str) -> bool:
    return entry == value or entry.endswith(f"/{value}")


# --- flags and connections of the database ----------------------------------------------------------------------------


def _refused_flags(v: Values) -> list[str]:
    return [why for name, value in v.flags.items() if (why := _refused(str(name), value, v.known))]


def _refused(name: str, value: Any, offered: Mapping[str, Any]) -> str:
    flag = offered.get(name)
    if not isinstance(flag, Mapping):
        return f"{name} is no flag of AlloyDB"
    allowed = (flag.get("stringRestrictions") or {}).get("allowedValues")
    if allowed and str(value).lower() not in {str(one).lower() for one in allowed}:
        return f"{name} is {value}, allowed: {', '.join(map(str, allowed))}"
    limits = flag.get("integerRestrictions") or {}
    if not limits:
        return ""
    least, most = (float(limits.get(end, default)) for end, default in (("minValue", "-inf"), ("maxValue", "inf")))
    try:
        within = least <= float(str(value)) <= most
    except ValueError:
        within = False
    return "" if within else f"{name} is {value}, allowed: {least:g} to {most:g}"


def _restarting(v: Values) -> list[str]:
    return [name for name in v.flags if (v.known.get(name) or {}).get("requiresDbRestart")]


_FLAGS = {"flags": used("memory.alloydb.flags", MAPPING), "known": live("database_flags", MAPPING)}

_DATABASE = (
    Rule(
        "L-AD-10",
        Level.FAIL,
        "the database takes the flags",
        _FLAGS,
        lambda v: not _refused_flags(v),
        lambda v: "; ".join(_refused_flags(v)),
        in_document(known.ALLOYDB, "supportedDatabaseFlags.list"),
    ),
    Rule(
        "L-AD-10",
        Level.INFO,
        "no flag restarts the database",
        _FLAGS,
        lambda v: not _restarting(v),
        lambda v: f"{', '.join(map(str, _restarting(v)))} restart it: set them before there is data",
        in_document(known.ALLOYDB, "SupportedDatabaseFlag.requiresDbRestart"),
    ),
    Rule(
        "R-RN-11",
        Level.FAIL,
        "the server has connections for all instances",
        {
            "each": needs("api.connections_per_instance", WHOLE),
            "instances": needs("api.max_instances", WHOLE),
            "most": live("max_connections", WHOLE),
        },
        connections_fit,
        lambda v: f"{v.instances} instances with {v.each} connections each: four fifths of {v.most} may be used",
        on_page("https://cloud.google.com/alloydb/docs/reference/database-flags"),
    ),
)


# --- what cannot be changed -------------------------------------------------------------------------------------------


def _fixed(
    id: str,
    place: str,
    kind: Kind,
    fact: str,
    schema: tuple[str, str],
    path: str,
    instead: str,
    of: Callable[[Any], Any],
) -> Rule:
    """A setting whose field can never be changed, against the resource that is there; ``of`` is the field's value."""
    api, name = schema
    field = path.rpartition(".")[2]

    def holds(v: Values) -> bool:
        there = value_at(v.there, path)
        return there is None or there == of(v.wanted) or not known.is_immutable(api, name, field)

    return Rule(
        id,
        Level.FAIL,
        f"{path} stays as it was made",
        {"wanted": used(place, kind), "there": live(fact, MAPPING)},
        holds,
        lambda v: (
            f"{of(v.wanted)} is wanted, {value_at(v.there, path)} is there, and it can never be changed: {instead}"
        ),
        in_document(api, f"{name}.{field}"),
    )


def _same(value: Any) -> Any:
    return value


_CONFIGURATION, _CLUSTER = "workstation_configuration", "workstation_cluster"
_NEW_ONE = "make a new one beside it, and bring the home disks over by snapshots"

_IMMUTABLE = (
    _fixed("R-WS-15", "workstations.replica_zones", TEXTS, _CONFIGURATION, (known.WORKSTATIONS, "WorkstationConfig"),
           "replicaZones", _NEW_ONE, list),
    _fixed("R-WS-15", "workstations.encryption_key", TEXT, _CONFIGURATION,
           (known.WORKSTATIONS, "CustomerEncryptionKey"), "encryptionKey.kmsKey", _NEW_ONE, _same),
    _fixed("R-WS-15", "workstations.private_endpoint", FLAG, _CLUSTER, (known.WORKSTATIONS, "PrivateClusterConfig"),
           "privateClusterConfig.enablePrivateEndpoint", _NEW_ONE, _same),
    _fixed("R-WS-15", "workstations.domain", TEXT, _CLUSTER, (known.WORKSTATIONS, "DomainConfig"),
           "domainConfig.domain", _NEW_ONE, _same),
    _fixed("R-GW-01", "api.gateway_service_account", TEXT, "api_configuration",
           ("apigateway.v1", "ApigatewayApiConfig"), "gatewayServiceAccount", "make a new configuration", _same),
    _fixed("R-GW-01", "api.gateway_streaming_mode", TEXT, "gateway", ("apigateway.v1", "ApigatewayGateway"),
           "streamingMode", "make a new gateway", _same),
)  # fmt: skip

RULES = (
    *(rule(place) for place in MACHINES for rule in (_accelerator_in_zones, _machine_in_zones)),
    *(_quota(metric, need) for metric, need in _NEEDS.items()),
    *_POLICIES,
    *_DATABASE,
    *_IMMUTABLE,
)
