"""Organisation policies and quotas: what they forbid of which create, as a table.

https://cloud.google.com/resource-manager/docs/organization-policy/org-policy-constraints
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import policy_violated, quota_exceeded
from orchestra_lib.local.control.injected import OrganizationPolicy
from orchestra_lib.local.control.kinds import Body

_ANYWHERE = "global"


@dataclass(frozen=True)
class Rule:
    """One constraint. ``forbids(call, body, policy)`` says what is wrong, or nothing."""

    constraint: str
    collections: tuple[str, ...]
    """``service/collection`` of the creates and updates that it is about; empty for all of them."""
    forbids: Callable[[Call, Body, OrganizationPolicy], str]


def _location(call: Call, _body: Body, policy: OrganizationPolicy) -> str:
    if call.location == _ANYWHERE or policy.allowed is None or _in_locations(call.location, policy.allowed):
        return ""
    return f"location '{call.location}' is not in the allowed locations"


def _in_locations(location: str, allowed: list[str]) -> bool:
    for value in allowed:
        name = value.removeprefix("in:").removesuffix("-locations")
        if location == name or location.startswith(f"{name}-"):
            return True
    return False


def _service(call: Call, _body: Body, policy: OrganizationPolicy) -> str:
    host = f"{call.service}.googleapis.com"
    return "" if policy.allowed is None or host in policy.allowed else f"service '{host}' is not allowed"


def _enforced(what: str) -> Callable[[Call, Body, OrganizationPolicy], str]:
    return lambda _call, _body, policy: what if policy.enforced else ""


def _value(*path: str) -> Callable[[Call, Body, OrganizationPolicy], str]:
    """The value at a path has to be one of the allowed ones."""

    def forbids(_call: Call, body: Body, policy: OrganizationPolicy) -> str:
        found: Any = body
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        if found is None or policy.allowed is None or str(found) in policy.allowed:
            return ""
        return f"value '{found}' of {'.'.join(path)} is not allowed"

    return forbids


def _public_address(_call: Call, body: Body, policy: OrganizationPolicy) -> str:
    host = (body.get("host") or {}).get("gceInstance") or {}
    restricted = policy.enforced or policy.allowed is not None
    return "" if host.get("disablePublicIpAddresses") or not restricted else "virtual machines may have no external IP"


def _peering(_call: Call, body: Body, policy: OrganizationPolicy) -> str:
    network = str(body.get("network", ""))
    return (
        "" if policy.allowed is None or network in policy.allowed else f"peering of network '{network}' is not allowed"
    )


RULES = (
    Rule("constraints/gcp.resourceLocations", (), _location),
    Rule("constraints/gcp.restrictServiceUsage", (), _service),
    Rule("constraints/compute.vmExternalIpAccess", ("workstations/workstationConfigs",), _public_address),
    Rule("constraints/compute.restrictVpcPeering", ("servicenetworking/connections",), _peering),
    Rule("constraints/iam.disableServiceAccountCreation", ("iam/serviceAccounts",), _enforced("accounts are not made")),
    Rule("constraints/iam.workloadIdentityPoolProviders", ("iam/providers",), _value("oidc", "issuerUri")),
    Rule("constraints/run.allowedIngress", ("run/services",), _value("ingress")),
    Rule("constraints/run.allowedVPCEgress", ("run/services",), _value("template", "vpcAccess", "egress")),
)


def check_policies(call: Call, key: str, body: Body, project: str | None = None) -> None:
    """Raise Fault (FAILED_PRECONDITION) for a create or update that an organisation policy forbids.

    ``project`` is the one whose policies hold, where the path of the call names none.
    """
    project = project or call.project
    if project is None:
        return
    service, collection = call.service, key.split("/")[-2]
    for rule in RULES:
        if rule.collections and f"{service}/{collection}" not in rule.collections:
            continue
        policy = effective(call, project, rule.constraint)
        wrong = rule.forbids(call, body, policy) if policy else ""
        if wrong:
            raise policy_violated(rule.constraint, f"projects/{project}", wrong)


def effective(call: Call, project: str, constraint: str) -> OrganizationPolicy | None:
    """The policy in force: one that a test set, the project's own, or the organisation's."""
    injected = call.control.injected.policy(project, constraint)
    if injected:
        return injected
    name = constraint.removeprefix("constraints/")
    organization = f"organizations/{call.control.organization.id}"
    for owner in (f"projects/{project}", organization):
        row = call.control.store.get(f"orgpolicy/{owner}/policies/{name}")
        if row:
            return _from_rules(constraint, (row.body.get("spec") or {}).get("rules", []))
    return None


def _from_rules(constraint: str, rules: list[Body]) -> OrganizationPolicy:
    allowed: list[str] | None = None
    for rule in rules:
        if rule.get("denyAll"):
            allowed = []
        elif (values := rule.get("values")) is not None and "allowedValues" in values:
            allowed = [*(allowed or []), *values["allowedValues"]]
    return OrganizationPolicy(
        constraint=constraint, enforced=any(rule.get("enforce") for rule in rules), allowed=allowed
    )


def check_quota(call: Call, key: str) -> None:
    """Raise Fault for a create that goes beyond the limit that a test set for its metric."""
    metric, project = call.control.kind(key).quota, call.project
    limit = call.control.injected.quota(project, metric) if metric and project else None
    if metric is None or limit is None:
        return
    scope = "globally" if "/global/" in key else f"in region {call.location}"
    owner = key.rpartition("/")[0].rpartition("/")[0]
    used = len(call.control.store.children(owner, f"{call.service}/{key.split('/')[-2]}"))
    if used >= limit:
        raise quota_exceeded(metric, limit, scope)
