"""Rules of what everything stands on: organisation, project, regions, federation, objectives, rolling back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestra_lib.cloud.discovery import has_method
from orchestra_lib.rules import known
from orchestra_lib.rules.kinds import ANYTHING, FLAG, NUMBER, TEXT, TEXTS, WHOLE
from orchestra_lib.rules.rule import Level, Rule, Values, in_document, may, needs, on_page, used

_RESOURCE_MANAGER = "cloudresourcemanager.v3"
_CREATE_ORGANIZATION = "cloudresourcemanager.organizations.create"
_FEDERATION = on_page("https://github.com/google-github-actions/auth")
_COPIES = {
    "AlloyDB": "memory.alloydb.secondary_cluster",
    "Cloud Run": "api.secondary_service",
    "workstations": "workstations.secondary_cluster",
}
"""Where a component would declare what it has in the secondary region."""


def _copied(v: Values) -> list[str]:
    return [name for index, name in enumerate(_COPIES) if getattr(v, f"copy{index}") is not None]


def _not_copied(v: Values) -> str:
    return ", ".join(name for name in _COPIES if name not in _copied(v))


_RECOVERY = {
    "secondary": needs("regions.secondary", TEXT),
    **{f"copy{index}": may(place, ANYTHING) for index, place in enumerate(_COPIES.values())},
    "cluster": may("memory.alloydb.cluster", TEXT, "orchestra-memory"),
}


def _subject(v: Values) -> str:
    return f"repo:{v.owner}/{v.repository}:ref:refs/heads/{v.branch}"


def _condition_holds(v: Values) -> bool:
    condition = v.condition.strip()
    return bool(re.search(r"_id\s*==\s*['\"][0-9]+['\"]", condition)) and condition != "true"


def _condition(v: Values) -> Mapping[str, Any]:
    if v.owner is None or v.repository is None:
        return {}
    both = f"assertion.repository_owner_id=='{v.owner}' && assertion.repository_id=='{v.repository}'"
    return {"github.attribute_condition": both} if v.owner.isdigit() and v.repository.isdigit() else {}


RULES = (
    Rule(
        "R-PJ-01",
        Level.FAIL,
        "the project's id has the form of one",
        {"id": needs("project.id", TEXT)},
        lambda v: bool(re.fullmatch(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", v.id)),
        lambda v: f"{v.id!r}: 6 to 30 lower-case letters, digits and hyphens, beginning with a letter",
        in_document(_RESOURCE_MANAGER, "Project.projectId"),
    ),
    Rule(
        "R-PJ-02",
        Level.FAIL,
        "the organisation is there already",
        {"create": used("organization.create", FLAG), "id": may("organization.id", TEXT)},
        lambda v: not v.create or has_method(_RESOURCE_MANAGER, _CREATE_ORGANIZATION),
        lambda v: (
            f"organisation {v.id or 'of any id'} is to be created: no call does that, it comes with a domain of Cloud "
            "Identity; a project can be attached to one that exists"
        ),
        in_document(_RESOURCE_MANAGER, "organizations"),
        lambda _: {"organization.create": False},
    ),
    Rule(
        "R-DR-01",
        Level.FAIL,
        "the region for disaster recovery has something in it",
        _RECOVERY,
        lambda v: bool(_copied(v)),
        lambda v: (
            f"{v.secondary} is named for disaster recovery, and nothing is declared there: not of {_not_copied(v)}"
        ),
        on_page("https://cloud.google.com/alloydb/docs/cross-region-replication/about-cross-region-replication"),
        lambda v: {"memory.alloydb.secondary_cluster": f"{v.cluster}-dr"},
    ),
    Rule(
        "R-DR-02",
        Level.WARN,
        "every component has something in the region for disaster recovery",
        _RECOVERY,
        lambda v: not _copied(v) or not _not_copied(v),
        lambda v: (
            f"in {v.secondary} there is {', '.join(_copied(v))}; {_not_copied(v)} would have to be made there first"
        ),
        on_page("https://cloud.google.com/architecture/dr-scenarios-planning-guide"),
    ),
    Rule(
        "R-RB-01",
        Level.WARN,
        "going back means applying what was there before",
        {"how": used("rollback.infrastructure", TEXT)},
        lambda v: "state" not in v.how.lower(),
        lambda v: f"{v.how!r}: an older state file changes nothing in the cloud, it only makes Terraform forget it",
        on_page("https://developer.hashicorp.com/terraform/language/state"),
        lambda _: {"rollback.infrastructure": "previous configuration, applied again"},
    ),
    Rule(
        "R-CI-01",
        Level.FAIL,
        "the federation trusts numeric ids",
        {
            "condition": needs("github.attribute_condition", TEXT),
            "owner": may("github.owner_id", TEXT),
            "repository": may("github.repository_id", TEXT),
        },
        _condition_holds,
        lambda v: f"{v.condition!r} lets in who is not meant: it has to compare the owner's or the repository's number",
        in_document(known.IAM, "WorkloadIdentityPoolProvider.attributeCondition"),
        _condition,
    ),
    Rule(
        "R-CI-01",
        Level.FAIL,
        "the ids of owner and repository are numbers",
        {"owner": needs("github.owner_id", TEXT), "repository": needs("github.repository_id", TEXT)},
        lambda v: v.owner.isdigit() and v.repository.isdigit(),
        lambda v: f"{v.owner} and {v.repository}: names can be taken over, numbers cannot",
        _FEDERATION,
    ),
    Rule(
        "R-CI-01",
        Level.FAIL,
        "the longest subject fits",
        {
            "branch": needs("github.branch", TEXT),
            "owner": needs("github.owner", TEXT),
            "repository": needs("github.repository", TEXT),
        },
        lambda v: len(_subject(v).encode()) <= known.federated_subject_maximum_bytes(),
        lambda v: (
            f"{_subject(v)} has {len(_subject(v).encode())} bytes; "
            f"{known.federated_subject_maximum_bytes()} are possible"
        ),
        in_document(known.IAM, "WorkloadIdentityPoolProvider.attributeMapping"),
    ),
    Rule(
        "R-CI-02",
        Level.FAIL,
        "the provider is named with the project's number",
        {"provider": needs("github.provider", TEXT)},
        lambda v: bool(
            re.fullmatch(
                r"projects/[0-9]+/locations/global/workloadIdentityPools/[a-z0-9-]+/providers/[a-z0-9-]+", v.provider
            )
        ),
        lambda v: f"{v.provider}: the token exchange takes projects/NUMBER/locations/global/…, not the project's id",
        _FEDERATION,
    ),
    Rule(
        "R-CI-03",
        Level.WARN,
        "one deployer",
        {"deployers": used("delivery.deployers", TEXTS)},
        lambda v: len(v.deployers) <= 1,
        lambda v: f"{' and '.join(v.deployers)}: each undoes what the other deploys, and each needs an identity",
        _FEDERATION,
        lambda v: {"delivery.deployers": ["GitHub Actions" if "GitHub Actions" in v.deployers else v.deployers[0]]},
    ),
    Rule(
        "R-OB-01",
        Level.FAIL,
        "the objective can be promised",
        {"goal": used("slo.goal", NUMBER)},
        lambda v: 0 < v.goal <= known.slo_goal_maximum(),
        lambda v: f"{v.goal:g}: more than 0 and at most {known.slo_goal_maximum():g}",
        in_document(known.MONITORING, "ServiceLevelObjective.goal"),
        lambda _: {"slo.goal": 0.999},
    ),
    Rule(
        "R-OB-01",
        Level.FAIL,
        "the objective's period is one that there is",
        {"days": used("slo.rolling_days", WHOLE)},
        lambda v: 1 <= v.days <= known.slo_rolling_days_maximum(),
        lambda v: f"{v.days} days: from 1 to {known.slo_rolling_days_maximum()}",
        in_document(known.MONITORING, "ServiceLevelObjective.rollingPeriod"),
        lambda _: {"slo.rolling_days": 28},
    ),
)
