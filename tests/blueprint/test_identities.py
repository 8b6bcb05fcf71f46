"""Who may do what: each identity has the roles of the table and no other, and nobody has a key."""

from __future__ import annotations

from collections import defaultdict

import pytest

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.resource import Resource

RESOURCES = infrastructure(settings.load("local"))
HOST = "@cherry-ai-project.iam.gserviceaccount.com"

# Written down here a second time, by hand: a role that is added to the blueprint has to be argued for here too.
ON_THE_PROJECT = {
    "orchestra-preflight": {
        "alloydb.viewer",
        "cloudquotas.viewer",
        "compute.viewer",
        "iam.securityReviewer",
        "run.viewer",
        "serviceusage.serviceUsageViewer",
    },
    "orchestra-infra": {
        "alloydb.admin",
        "apigateway.admin",
        "artifactregistry.admin",
        "compute.networkAdmin",
        "iam.serviceAccountAdmin",
        "iam.workloadIdentityPoolAdmin",
        "logging.admin",
        "monitoring.admin",
        "resourcemanager.projectIamAdmin",
        "run.admin",
        "secretmanager.admin",
        "serviceusage.serviceUsageAdmin",
        "workstations.admin",
    },
    "orchestra-workstation": {"logging.logWriter", "monitoring.metricWriter"},
    "orchestra-api": {
        "aiplatform.user",
        "alloydb.client",
        "alloydb.databaseUser",
        "cloudtrace.agent",
        "logging.logWriter",
        "monitoring.metricWriter",
        "serviceusage.serviceUsageConsumer",
    },
    "orchestra-gateway": set(),
    "orchestra-migration": {
        "alloydb.client",
        "alloydb.databaseUser",
        "logging.logWriter",
        "monitoring.metricWriter",
        "serviceusage.serviceUsageConsumer",
    },
    "orchestra-deployer": {"run.developer"},
    "orchestra-build": {"logging.logWriter"},
}
ON_ONE_RESOURCE = {
    ("orchestra-workstation", "artifactregistry.reader", "repositories/orchestra"),
    ("orchestra-deployer", "artifactregistry.writer", "repositories/orchestra"),
    ("orchestra-migration", "secretmanager.secretAccessor", "secrets/orchestra-source-dsn"),
    ("orchestra-migration", "secretmanager.secretAccessor", "secrets/orchestra-memory-endpoint"),
    ("orchestra-api", "secretmanager.secretAccessor", "secrets/orchestra-memory-endpoint"),
    ("orchestra-deployer", "iam.serviceAccountUser", f"serviceAccounts/orchestra-api{HOST}"),
    ("orchestra-infra", "iam.serviceAccountUser", f"serviceAccounts/orchestra-api{HOST}"),
    ("orchestra-infra", "iam.serviceAccountUser", f"serviceAccounts/orchestra-gateway{HOST}"),
    ("orchestra-infra", "iam.serviceAccountUser", f"serviceAccounts/orchestra-workstation{HOST}"),
    ("github", "iam.workloadIdentityUser", f"serviceAccounts/orchestra-deployer{HOST}"),
}


def grants() -> list[tuple[Resource, str, str]]:
    """Every grant: the resource that says so, the identity, the role without ``roles/``."""
    found = []
    for resource in RESOURCES:
        if KINDS[resource.kind].access == "roles":
            identity = resource.id.removeprefix("serviceAccount:").removesuffix(HOST)
            found += [(resource, identity, role.removeprefix("roles/")) for role in resource.body["roles"]]
    return found


def test_each_identity_has_an_account_of_its_own() -> None:
    accounts = [resource for resource in RESOURCES if resource.kind == "service account"]
    assert {account.id for account in accounts} == set(ON_THE_PROJECT)
    assert all(set(account.body) == {"displayName", "description"} for account in accounts)
    assert all(len(account.body["description"].encode()) <= 256 for account in accounts)


def test_on_the_project_each_has_the_roles_of_the_table_and_no_other() -> None:
    held: dict[str, set[str]] = defaultdict(set)
    for resource, identity, role in grants():
        if resource.kind == "roles":
            assert resource.parent == "projects/cherry-ai-project"
            held[identity].add(role)
    assert {identity: held[identity] for identity in ON_THE_PROJECT} == ON_THE_PROJECT
    assert set(held) <= set(ON_THE_PROJECT)


def test_what_is_for_one_resource_is_given_on_that_one() -> None:
    narrow = {
        (identity, role, "/".join(resource.parent.split("/")[-2:]))
        for resource, identity, role in grants()
        if resource.kind != "roles"
    }
    assert narrow == ON_ONE_RESOURCE


def test_nobody_has_a_basic_role() -> None:
    assert grants()
    basic = {"owner", "editor", "viewer", "admin", "writer", "reader", "browser"}
    assert [(identity, role) for _, identity, role in grants() if role in basic] == []


def test_only_the_infrastructures_identity_administers_anything() -> None:
    powerful = ("admin", "tokencreator", "keyadmin", "ownership", "mutator")
    assert {identity for _, identity, role in grants() if role.lower().endswith(powerful)} == {"orchestra-infra"}


def test_roles_belong_to_our_own_accounts_and_to_one_repository_and_to_nobody_else() -> None:
    for resource, identity, _ in grants():
        assert identity in ON_THE_PROJECT or (identity == "github" and "member" in resource.body)


def test_there_is_no_kind_for_keys_and_none_is_asked_for() -> None:
    assert [kind.name for kind in KINDS.values() if "keys" in kind.collection.lower()] == []
    assert "keys" not in " ".join(resource.key.lower() for resource in RESOURCES if resource.kind != "alert policy")


@pytest.mark.parametrize("identity", ["orchestra-build", "orchestra-gateway"])
def test_who_checks_or_forwards_may_deploy_nothing(identity: str) -> None:
    assert {role for _, held_by, role in grants() if held_by == identity} <= {"logging.logWriter"}
