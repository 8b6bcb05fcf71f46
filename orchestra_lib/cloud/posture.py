"""Whether a project is as closed as it should be, read back from it: roles, keys, firewall."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.evidence import Bound, Evidence

BASIC_ROLES = frozenset({"roles/owner", "roles/editor", "roles/viewer"})
_ANYWHERE = frozenset({"0.0.0.0/0", "::/0"})


def posture(client: Client, place: Place, resources: Sequence[Resource]) -> tuple[Evidence, ...]:
    """Evidence that no service account has a basic role or a key of its own, and that nothing is open to everybody.

    What may not be read is a failed row with the reason.
    """
    project = f"projects/{place.project}"
    accounts = [one.id for one in resources if one.kind == "service account"]
    networks = {one.id for one in resources if one.kind == "network"}
    claims: tuple[tuple[str, Callable[[], list[str]]], ...] = (
        ("service accounts with a basic role on the project", lambda: _with_basic_roles(client, project)),
        ("keys of the service accounts that people made", lambda: _keys(client, project, accounts)),
        ("firewall rules of our networks that let everybody in", lambda: _open_to_everybody(client, project, networks)),
    )
    return tuple(_none_of(claim, place, find) for claim, find in claims)


def _none_of(claim: str, place: Place, find: Callable[[], list[str]]) -> Evidence:
    try:
        found = find()
    except CloudRefused as error:
        return Evidence(claim, place.source, None, "", Bound("==", 0), note=str(error))
    return Evidence(claim, place.source, len(found), "", Bound("==", 0), note=", ".join(found[:5]))


def _with_basic_roles(client: Client, project: str) -> list[str]:
    method_id = "cloudresourcemanager.projects.getIamPolicy"
    policy = client.call("cloudresourcemanager.v3", method_id, f"{project}:getIamPolicy", body={})
    return sorted(
        f"{member} has {row['role']}"
        for row in policy.get("bindings", ())
        if row["role"] in BASIC_ROLES
        for member in row["members"]
        if member.startswith("serviceAccount:")
    )


def _keys(client: Client, project: str, accounts: Sequence[str]) -> list[str]:
    found = []
    for account in accounts:
        path = f"{project}/serviceAccounts/{account}@{project.removeprefix('projects/')}.iam.gserviceaccount.com/keys"
        query = {"keyTypes": "USER_MANAGED"}
        answer = client.call("iam.v1", "iam.projects.serviceAccounts.keys.list", path, query=query)
        found += [str(key["name"]) for key in answer.get("keys", ())]
    return found


def _open_to_everybody(client: Client, project: str, networks: Set[str]) -> list[str]:
    """Rules of other networks are not ours to judge: a new project's ``default`` one comes with SSH open."""
    answer = client.call("compute.v1", "compute.firewalls.list", f"{project}/global/firewalls")
    return [
        str(rule["name"])
        for rule in answer.get("items", ())
        if rule.get("direction") == "INGRESS"
        and rule.get("allowed")
        and _ANYWHERE & set(rule.get("sourceRanges", ()))
        and str(rule["network"]).rsplit("/", 1)[1] in networks
    ]
