"""Findings that are planted on the local target, so that each can be seen before a real organisation shows it.

They go through the endpoint that only the local target has, beside what is set there, and are taken out again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import requests

from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import ParameterError, TargetUnreachable
from orchestra_lib.evidence import Source, Verdict
from orchestra_lib.preflight.check import Check, judged
from orchestra_lib.settings.preflight import FindingName

_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Planted:
    """What is set at the endpoint's key, and words of the row that then finds it.

    ``needs_project``: what it goes wrong with is only asked of a project that is there.
    """

    key: str
    value: Mapping[str, Any]
    words: str
    needs_project: bool = False


def _policy(constraint: str, **holds: Any) -> Planted:
    value = {"constraint": f"constraints/{constraint}", **holds}
    return Planted("organization_policies", value, f"constraints/{constraint}")


FINDINGS: Mapping[FindingName, Planted] = MappingProxyType(
    {
        "billing": Planted("missing_permissions", {"permissions": ["billing.accounts.get"]}, "the billing account"),
        "permission": Planted(
            "missing_permissions",
            {"permissions": ["resourcemanager.projects.create", "resourcemanager.projects.setIamPolicy"]},
            "permissions that the plan needs",
        ),
        "policy_accounts": _policy("iam.disableServiceAccountCreation", enforced=True),
        "policy_issuers": _policy("iam.workloadIdentityPoolProviders", allowed=["https://accounts.google.com"]),
        "policy_locations": _policy("gcp.resourceLocations", allowed=["in:europe-locations"]),
        "policy_members": _policy("iam.allowedPolicyMemberDomains", allowed=["C0abcdefg"]),
        "policy_peering": _policy("compute.restrictVpcPeering", allowed=[]),
        "policy_services": _policy(
            "gcp.restrictServiceUsage", allowed=["iam.googleapis.com", "compute.googleapis.com"]
        ),
        "quota": Planted("quotas", {"metric": "NVIDIA_T4_GPUS", "limit": 0}, "L-QU-01", needs_project=True),
        "service": Planted("disabled_services", {"service": "monitoring"}, "monitoring", needs_project=True),
        "vertex": Planted(
            "missing_permissions", {"permissions": ["aiplatform.*"]}, "aiplatform answers a read", needs_project=True
        ),
    }
)
"""What usually stops such a plan, by the names of ``-p findings``."""


@contextmanager
def planted(target: Target, names: Sequence[FindingName]) -> Iterator[None]:
    """Plant the findings beside what goes wrong already, and put that back at the end.

    Raises ParameterError on anything but the local target.
    """
    if not names:
        yield
        return
    if target.kind != "local":
        raise ParameterError(f"findings {', '.join(names)} are planted on the local target only")
    before = _ask(target, "GET", "state")["injected"]
    wanted = {key: list(rows) for key, rows in before.items()}
    for name in names:
        finding = FINDINGS[name]
        wanted[finding.key] = [dict(finding.value), *wanted.get(finding.key, [])]
    _ask(target, "POST", "faults", wanted)
    try:
        yield
    finally:
        _ask(target, "POST", "faults", before)


def found_checks(names: Sequence[FindingName], rows: Sequence[Check]) -> Iterator[Check]:
    """For each planted finding whether the checks have found it. One that they missed proves that a check is blind."""
    red = [row.evidence for row in rows if row.evidence.verdict in (Verdict.FAIL, Verdict.MISSING)]
    for name in names:
        finding, claim = FINDINGS[name], f"the planted finding {name} was found"
        found = [row.claim for row in red if finding.words in f"{row.claim} {row.note}"]
        needs = "it is only met once the project is there: run 01 first" if finding.needs_project else ""
        yield judged("planted", claim, Source.REHEARSED, bool(found), "; ".join(found) if found else needs)


def _ask(target: Target, verb: str, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {target.credentials.token}"}
    url = f"{target.base_url}/_local/{what}"
    try:
        answer = requests.request(verb, url, json=body, headers=headers, timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise TargetUnreachable(f"the local target does not let findings be planted: {error}") from None
    found: dict[str, Any] = answer.json()
    return found
