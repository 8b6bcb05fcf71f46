"""The organisation policies that can forbid what a plan wants, and what each of them judges. Pure.

https://cloud.google.com/resource-manager/docs/organization-policy/org-policy-constraints
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra_lib.cloud.resource import Resource, Text

_ROLE_KINDS = (
    "roles",
    "service account roles",
    "repository roles",
    "secret roles",
    "workstation roles",
    "run service roles",
)
_DIRECTORY = re.compile(r"C[0-9a-z]{7,}")
_SHIELDS = ("enableSecureBoot", "enableVtpm", "enableIntegrityMonitoring")


@dataclass(frozen=True)
class Policy:
    """The effective policy of one constraint: whether it is enforced, or which values it lets pass."""

    enforced: bool = False
    denies_all: bool = False
    allowed: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Policy:
        """The policy in a ``getEffectivePolicy`` answer; rules under conditions are taken as if they held."""
        rules = body.get("spec", {}).get("rules", ())
        values = [rule["values"] for rule in rules if rule.get("values")]
        allowed = frozenset(value for row in values for value in row.get("allowedValues", ()))
        return cls(
            enforced=any(rule.get("enforce") for rule in rules),
            denies_all=any(rule.get("denyAll") for rule in rules),
            allowed=allowed or None,
            denied=frozenset(value for row in values for value in row.get("deniedValues", ())),
        )

    def lets_pass(self, value: str, covers: Callable[[str, str], bool]) -> bool:
        """Whether a list policy lets a value pass; ``covers(entry, value)`` says what an entry of it covers."""
        if self.denies_all or any(covers(entry, value) for entry in self.denied):
            return False
        return self.allowed is None or any(covers(entry, value) for entry in self.allowed)


@dataclass(frozen=True)
class Constraint:
    """One constraint: the values of a resource that it judges, and what to do about a violation.

    A boolean constraint judges by the values alone: a resource that has any is forbidden while it is enforced.
    """

    id: str
    values: Callable[[Resource], Sequence[str]]
    remedy: str
    boolean: bool = False
    covers: Callable[[str, str], bool] = lambda entry, value: entry == value

    def violated_by(self, resource: Resource, policy: Policy) -> tuple[str, ...]:
        """The values of the resource that the policy forbids."""
        values = tuple(self.values(resource))
        if self.boolean:
            return values if policy.enforced else ()
        return tuple(value for value in values if not policy.lets_pass(value, self.covers))


def violations(
    resources: Sequence[Resource], policies: Mapping[str, Policy]
) -> Iterator[tuple[Constraint, Resource, tuple[str, ...]]]:
    """Every constraint that forbids something of a resource, with the values; ``policies`` by constraint id."""
    for constraint in CONSTRAINTS:
        policy = policies.get(constraint.id)
        for resource in resources if policy else ():
            forbidden = constraint.violated_by(resource, policy)  # type: ignore[arg-type]
            if forbidden:
                yield constraint, resource, forbidden


def _location(resource: Resource) -> Sequence[str]:
    match = re.search(r"/(?:regions|locations)/([a-z0-9-]+)", f"/{resource.parent}")
    return (match[1],) if match and match[1] != "global" else ()


def covers_location(entry: str, location: str) -> bool:
    """``in:us-locations`` covers every location of the us, ``in:us-east1-locations`` that region."""
    group = re.fullmatch(r"in:(.+)-locations", entry)
    if not group:
        return entry == location
    return group[1] == location or location.startswith(f"{group[1]}-")


def _members_outside(resource: Resource) -> Sequence[str]:
    named = resource.body.get("member", resource.id) if resource.kind in _ROLE_KINDS else ""
    member = named.template if isinstance(named, Text) else str(named)  # what it begins with is known before the rest
    return (member,) if member.startswith(("principal:", "principalSet:", "user:", "group:", "allUsers")) else ()


def _covers_member(entry: str, member: str) -> bool:
    name = entry.removeprefix("is:")
    if _DIRECTORY.fullmatch(name):
        # The id of a directory: which addresses are in it cannot be seen from here, and the service has the last word.
        return member.startswith(("user:", "group:"))
    return member == name or (entry.startswith("principalSet:") and member.startswith(entry.removesuffix("/*")))


def _machine_of(resource: Resource) -> Mapping[str, Any] | None:
    if resource.kind != "workstation configuration":
        return None
    machine: Mapping[str, Any] | None = resource.body.get("host", {}).get("gceInstance")
    return machine


def _with_public_addresses(resource: Resource) -> Sequence[str]:
    machine = _machine_of(resource)
    return (resource.id,) if machine and not machine.get("disablePublicIpAddresses") else ()


def _without_shields(resource: Resource) -> Sequence[str]:
    machine = _machine_of(resource)
    shields = machine.get("shieldedInstanceConfig", {}) if machine else {}
    return [name for name in _SHIELDS if not shields.get(name)] if machine else ()


def _with_nested_machines(resource: Resource) -> Sequence[str]:
    machine = _machine_of(resource)
    machines = (machine, *machine.get("boostConfigs", ())) if machine else ()
    return (resource.id,) if any(one.get("enableNestedVirtualization") for one in machines) else ()


def _of_kind(*kinds: str) -> Callable[[Resource], Sequence[str]]:
    return lambda resource: (resource.id,) if resource.kind in kinds else ()


CONSTRAINTS = (
    Constraint(
        "gcp.resourceLocations",
        _location,
        "choose regions that the organisation allows (regions.primary, regions.secondary), or ask for these",
        covers=covers_location,
    ),
    Constraint(
        "gcp.restrictServiceUsage",
        lambda resource: (resource.id,) if resource.kind == "service" else (),
        "ask the organisation to allow the service",
    ),
    Constraint(
        "compute.restrictVpcPeering",
        _of_kind("peering"),
        "ask for an exception for servicenetworking, which AlloyDB's private address needs",
        covers=lambda entry, value: entry.endswith("/servicenetworking") or entry == value,
    ),
    Constraint(
        "compute.restrictCloudNATUsage",
        _of_kind("router"),
        "ask for an exception for the private subnets, which reach the internet through NAT alone",
        covers=lambda entry, value: entry.startswith("under:") or entry.endswith(f"/{value}"),
    ),
    Constraint(
        "iam.allowedPolicyMemberDomains",
        _members_outside,
        "ask the organisation to allow the workload identity pool's principal set, or the developers' directory",
        covers=_covers_member,
    ),
    Constraint(
        "compute.vmExternalIpAccess",
        _with_public_addresses,
        "switch public addresses off (disablePublicIpAddresses): NAT and Private Google Access are there",
        covers=lambda _entry, _value: False,  # the names of workstations' machines are not ours to choose
    ),
    Constraint(
        "compute.requireShieldedVm",
        _without_shields,
        "switch secure boot, vTPM and integrity monitoring on",
        boolean=True,
    ),
    Constraint(
        "compute.disableNestedVirtualization",
        _with_nested_machines,
        "switch nested virtualisation off",
        boolean=True,
    ),
    Constraint(
        "iam.workloadIdentityPoolProviders",
        lambda resource: (
            (str(resource.body.get("oidc", {}).get("issuerUri", "")),)
            if resource.kind == "workload identity provider"
            else ()
        ),
        "ask the organisation to allow GitHub's issuer",
    ),
    Constraint(
        "iam.disableServiceAccountCreation",
        _of_kind("service account"),
        "ask for an exception, or let the organisation create the accounts and run this again: they are adopted",
        boolean=True,
    ),
)
"""What phases 1 and 2 can meet. Constraints on keys and OS login forbid nothing that they create."""
