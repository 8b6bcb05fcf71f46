"""The identities: a service account for each, with the roles that it needs and no other. No keys, no basic roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from orchestra_lib.blueprint.specification import Specification
from orchestra_lib.cloud.resource import Resource

PREFLIGHT = "orchestra-preflight"
INFRA = "orchestra-infra"
WORKSTATION = "orchestra-workstation"
API = "orchestra-api"
GATEWAY = "orchestra-gateway"
MIGRATION = "orchestra-migration"
DEPLOYER = "orchestra-deployer"
BUILD = "orchestra-build"


@dataclass(frozen=True)
class Identity:
    """A service account, what it is for, and its roles on the project (without ``roles/``)."""

    id: str
    purpose: str
    roles: tuple[str, ...] = ()


IDENTITIES = (
    # Organisation policies and the billing account are read with roles that only exist there, not on a project.
    Identity(
        PREFLIGHT,
        "Reads what is there before anything is changed",
        (
            "alloydb.viewer",
            "cloudquotas.viewer",
            "compute.viewer",
            "iam.securityReviewer",
            "run.viewer",
            "serviceusage.serviceUsageViewer",
        ),
    ),
    Identity(
        INFRA,
        "Creates and changes the infrastructure of the later phases; people act as it, nobody has its key",
        (
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
        ),
    ),
    Identity(
        WORKSTATION,
        "What a workstation's VM is: it pulls its image and writes its logs",
        ("logging.logWriter", "monitoring.metricWriter"),
    ),
    Identity(
        API,
        "What the memory API is on Cloud Run",
        (
            "aiplatform.user",
            "alloydb.client",
            "alloydb.databaseUser",
            "cloudtrace.agent",
            "logging.logWriter",
            "monitoring.metricWriter",
            "serviceusage.serviceUsageConsumer",
        ),
    ),
    # It may invoke one service, and gets that role when the service exists.
    Identity(GATEWAY, "What the API gateway is when it calls the memory API"),
    Identity(
        MIGRATION,
        "Copies the memories and streams their changes",
        (
            "alloydb.client",
            "alloydb.databaseUser",
            # It writes the metrics of the stream that the alerts watch.
            "logging.logWriter",
            "monitoring.metricWriter",
            "serviceusage.serviceUsageConsumer",
        ),
    ),
    Identity(DEPLOYER, "What the GitHub workflow becomes: it pushes images and deploys revisions", ("run.developer",)),
    Identity(BUILD, "What Cloud Build is when it checks a change; it cannot deploy", ("logging.logWriter",)),
)
"""Every identity of the project. Roles on a single resource stand in :func:`narrow_roles`."""

_USERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {API: (DEPLOYER, INFRA), GATEWAY: (INFRA,), WORKSTATION: (INFRA,)}
)
"""Account -> those that may run something as it."""


def identities(spec: Specification) -> list[Resource]:
    """The service accounts and their roles on the project."""
    accounts = [_account(spec, identity) for identity in IDENTITIES]
    roles = [
        spec.resource("roles", spec.project_path, member(spec, identity.id), _roles(*identity.roles), (account.key,))
        for identity, account in zip(IDENTITIES, accounts, strict=True)
        if identity.roles
    ]
    return [*accounts, *roles]


def narrow_roles(spec: Specification, repository: Resource, secrets: Mapping[str, Resource]) -> list[Resource]:
    """The roles that hold on one resource only: images, secrets, and acting as another account.

    ``secrets`` by the name of their setting.
    """
    images = f"{repository.parent}/repositories/{repository.id}"
    pullers = ((WORKSTATION, "artifactregistry.reader"), (DEPLOYER, "artifactregistry.writer"))
    readers = (("source_dsn", MIGRATION), ("memory_endpoint", MIGRATION), ("memory_endpoint", API))
    roles = [_on(spec, "repository roles", images, repository, identity, role) for identity, role in pullers]
    for name, identity in readers:
        path = f"{secrets[name].parent}/secrets/{secrets[name].id}"
        roles.append(_on(spec, "secret roles", path, secrets[name], identity, "secretmanager.secretAccessor"))
    for used, users in _USERS.items():
        path, used_account = spec.account_path(used), account(spec, used)
        roles += [
            _on(spec, "service account roles", path, used_account, user, "iam.serviceAccountUser") for user in users
        ]
    return roles


def image_builder(spec: Specification, builder: Identity) -> list[Resource]:
    """An account that may push images and write its log. Phase 1's build account can push nothing, and stays so."""
    made = _account(spec, builder)
    who = member(spec, builder.id)
    repository = f"{spec.location(spec.regions.primary)}/repositories/{spec.registry.repository}"
    return [
        made,
        spec.resource("roles", spec.project_path, who, _roles(*builder.roles), (made.key,)),
        spec.resource(
            "repository roles",
            repository,
            who,
            _roles("artifactregistry.writer"),
            (made.key, f"repository:{repository.replace('/repositories/', '/')}"),
        ),
        spec.resource(
            "service account roles",
            spec.account_path(builder.id),
            member(spec, INFRA),
            _roles("iam.serviceAccountUser"),
            (made.key, account(spec, INFRA).key),
        ),
    ]


def account(spec: Specification, identity: str) -> Resource:
    """The service account of an identity."""
    return _account(spec, next(one for one in IDENTITIES if one.id == identity))


def member(spec: Specification, identity: str) -> str:
    """How a policy names a service account."""
    return f"serviceAccount:{spec.email_of(identity)}"


def _account(spec: Specification, identity: Identity) -> Resource:
    body = {"displayName": identity.id.replace("orchestra-", "Orchestra "), "description": identity.purpose}
    return spec.resource("service account", spec.project_path, identity.id, body)


def _on(spec: Specification, kind: str, path: str, resource: Resource, identity: str, role: str) -> Resource:
    needs = (resource.key, account(spec, identity).key)
    return spec.resource(kind, path, member(spec, identity), _roles(role), needs)


def _roles(*names: str) -> dict[str, list[str]]:
    return {"roles": [f"roles/{name}" for name in sorted(names)]}
