"""What can be known before anything is changed: who we are, what we may, what is left of quotas, what is forbidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.plan import CloudPlan
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.evidence import Bound, Evidence, Source, yes_or_no
from orchestra_lib.plan import Verb
from orchestra_lib.rules import CONSTRAINTS, Policy, violations

_PERMISSIONS_AT_ONCE = 100  # https://cloud.google.com/iam/docs/testing-permissions
# Of alloydb.client, alloydb.databaseUser and serviceusage.serviceUsageConsumer: with a connector, by IAM.
# https://cloud.google.com/alloydb/docs/database-users/manage-iam-auth
_LOGIN_PERMISSIONS = (
    "alloydb.clusters.generateClientCertificate",
    "alloydb.clusters.get",
    "alloydb.instances.connect",
    "alloydb.instances.get",
    "alloydb.users.login",
    "serviceusage.services.use",
)


def checks(client: Client, place: Place, plan: CloudPlan) -> tuple[Evidence, ...]:
    """Evidence for everything that a plan needs and that can be read now. Changes nothing.

    A call that is refused is a failed check, not an error: its message says what to do.
    """
    rows = [_readable(client, place, "organisation", "cloudresourcemanager.v3", f"organizations/{place.organization}")]
    rows += [_billing(client, place)]
    rows += list(_permissions(client, place, plan))
    rows += list(_quotas(client, place, plan))
    rows += list(_policies(client, place, plan))
    return tuple(rows)


def _readable(client: Client, place: Place, what: str, api: str, path: str) -> Evidence:
    claim, collection = f"the {what} {path} is there and open to us", path.split("/", maxsplit=1)[0]
    try:
        client.call(api, f"{api.split('.')[0]}.{collection}.get", path)
    except CloudRefused as error:
        return yes_or_no(claim, place.source, False, note=str(error))
    return yes_or_no(claim, place.source, True)


def _billing(client: Client, place: Place) -> Evidence:
    claim = "the billing account is open"
    if place.billing_account is None:
        return Evidence(claim, Source.MISSING, None, note="name it as billing.account: without one nothing is created")
    path = f"billingAccounts/{place.billing_account}"
    try:
        account = client.call("cloudbilling.v1", "cloudbilling.billingAccounts.get", path)
    except CloudRefused as error:
        return yes_or_no(claim, place.source, False, note=str(error))
    return yes_or_no(claim, place.source, bool(account.get("open")), note=path)


def _permissions(client: Client, place: Place, plan: CloudPlan) -> Iterator[Evidence]:
    """One row for each place on which permissions are needed; a project that is to be created is asked for above it."""
    exists = _project_exists(plan)
    needed: dict[str, set[str]] = {}
    for step in plan.steps:
        if step.verb is Verb.KEEP:
            continue
        kind, verbs = KINDS[step.wanted.kind], {Verb.REPLACE: ("delete", "create")}.get(step.verb, (step.verb.value,))
        asked = _asked_on(step.wanted.kind, place, exists)
        if asked:
            needed.setdefault(asked, set()).update(kind.needed_permission(verb) for verb in verbs)
    for path, permissions in sorted(needed.items()):
        yield _held(client, place, "the plan", path, sorted(permissions))
    if exists and any(step.wanted.kind == "database user" for step in plan.steps):
        yield _held(client, place, "a login to the database", f"projects/{place.project}", _LOGIN_PERMISSIONS)


def _project_exists(plan: CloudPlan) -> bool:
    return any(step.wanted.kind == "project" and step.live for step in plan.steps)


def _asked_on(kind: str, place: Place, project_exists: bool) -> str | None:
    if kind == "project":
        return f"projects/{place.project}" if project_exists else f"organizations/{place.organization}"
    if kind == "budget":
        return f"billingAccounts/{place.billing_account}" if place.billing_account else None
    if kind == "billing":
        return None  # the link takes a role on both sides, which no single answer covers
    # Who creates a project owns it: nothing to ask for before it is there.
    return f"projects/{place.project}" if project_exists else None


def _held(client: Client, place: Place, what: str, path: str, permissions: Sequence[str]) -> Evidence:
    collection = path.split("/", maxsplit=1)[0]
    api = "cloudbilling.v1" if collection == "billingAccounts" else "cloudresourcemanager.v3"
    held: set[str] = set()
    claim = f"permissions that {what} needs on {path} and that we lack"
    try:
        for start in range(0, len(permissions), _PERMISSIONS_AT_ONCE):
            body = {"permissions": list(permissions[start : start + _PERMISSIONS_AT_ONCE])}
            method_id = f"{api.split('.')[0]}.{collection}.testIamPermissions"
            answer = client.call(api, method_id, f"{path}:testIamPermissions", body=body)
            held |= set(answer.get("permissions", ()))
    except CloudRefused as error:
        return Evidence(claim, Source.MISSING, None, "permissions", Bound("==", 0), note=str(error))
    missing = [name for name in permissions if name not in held]
    note = f"ask for a role that holds {', '.join(missing)}" if missing else f"{len(permissions)} asked for"
    return Evidence(claim, place.source, len(missing), "permissions", Bound("==", 0), note=note)


def _quotas(client: Client, place: Place, plan: CloudPlan) -> Iterator[Evidence]:
    wanted = Counter(
        KINDS[step.wanted.kind].quota
        for step in plan.steps
        if step.verb is Verb.CREATE and KINDS[step.wanted.kind].quota
    )
    if not wanted:
        return
    if not _project_exists(plan):
        note = "the project does not exist yet; a quota that is exhausted stops the run with its name"
        yield Evidence("quotas of compute", place.source, None, note=note)
        return
    try:
        project = client.call("compute.v1", "compute.projects.get", f"projects/{place.project}")
    except CloudRefused as error:
        note = f"not to be read yet: {error}"
        yield Evidence("quotas of compute", place.source, None, note=note)
        return
    left = {row["metric"]: row["limit"] - row["usage"] for row in project.get("quotas", ())}
    for metric, count in sorted(wanted.items()):
        if metric in left:
            yield Evidence(
                f"quota {metric} left for {count} more",
                place.source,
                left[metric],
                "",
                Bound(">=", count),
                note="" if left[metric] >= count else "ask for a higher quota, or delete what is not needed",
            )


def forbidden(resources: Sequence[Resource], policies: Mapping[str, Policy], source: Source) -> tuple[Evidence, ...]:
    """A failed row for each resource that an organisation policy forbids. ``policies`` by constraint id."""
    return tuple(
        yes_or_no(
            f"constraints/{constraint.id} allows the {resource.kind} {resource.id}",
            source,
            False,
            note=f"it forbids {', '.join(values)}; {constraint.remedy}",
        )
        for constraint, resource, values in violations(resources, policies)
    )


def _policies(client: Client, place: Place, plan: CloudPlan) -> Iterator[Evidence]:
    exists = _project_exists(plan)
    parent = f"projects/{place.project}" if exists else f"organizations/{place.organization}"
    policies: dict[str, Policy] = {}
    unread: list[str] = []
    for constraint in CONSTRAINTS:
        path = f"{parent}/policies/{constraint.id}:getEffectivePolicy"
        method_id = f"orgpolicy.{parent.split('/', maxsplit=1)[0]}.policies.getEffectivePolicy"
        try:
            policies[constraint.id] = Policy.from_json(client.call("orgpolicy.v2", method_id, path))
        except CloudRefused as error:
            if not error.is_absence:
                unread.append(f"{constraint.id}: {error}")
    found = forbidden([step.wanted for step in plan.steps], policies, place.source)
    yield from found
    yield Evidence(
        "organisation policies that forbid what the plan wants",
        place.source,
        len(found),
        "",
        Bound("==", 0),
        note=f"{len(policies)} constraints read on {parent}" + (f"; not read: {'; '.join(unread)}" if unread else ""),
    )
