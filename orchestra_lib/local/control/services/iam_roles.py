"""The predefined roles that a deployment of this project needs, and the basic ones.

What a role includes is said by patterns over the permissions of the methods that are served here, with permissions
added that belong to no method. https://cloud.google.com/iam/docs/roles-permissions
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

from orchestra_lib.local.control.kinds import Body
from orchestra_lib.local.control.shapes import etag_of

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_READING = (".get", ".list", ".getIamPolicy", ".search")
_PROJECTS = ("resourcemanager.projects.get", "resourcemanager.projects.list")


@dataclass(frozen=True)
class Role:
    """A predefined role. ``patterns`` name permissions, ``*`` stands for anything; ``reads`` are patterns of
    collections (``alloydb.*``) of which it may read everything."""

    id: str
    title: str
    patterns: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def permissions(self, served: Iterable[str]) -> list[str]:
        """What the role includes of the served permissions, and the permissions that it names itself."""
        found = {name for name in self.patterns if "*" not in name}
        for name in served:
            reads = name.endswith(_READING) and _any(self.reads, name)
            if (reads or _any(self.patterns, name)) and not _any(self.without, name):
                found.add(name)
        return sorted(found)


def _any(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _admin(service: str, name: str, *more: str) -> Role:
    return Role(f"{service}.admin", f"{name} Admin", (f"{service}.*", *_PROJECTS, *more))


def _viewer(service: str, name: str) -> Role:
    return Role(f"{service}.viewer", f"{name} Viewer", _PROJECTS, (f"{service}.*",))


_BESIDE_METHODS = ("run.routes.invoke",)
"""Permissions that no method of an API needs: calling a service goes to its own address."""
_TOKENS = ("iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.getOpenIdToken", "iam.serviceAccounts.list")
_NETWORKING = (
    "addresses",
    "forwardingRules",
    "globalAddresses",
    "globalForwardingRules",
    "networks",
    "routers",
    "routes",
    "serviceAttachments",
    "subnetworks",
)
_SETTING_POLICIES = ("*.setIamPolicy", "iam.roles.create", "iam.roles.delete", "iam.roles.update")

ROLES = (
    Role("owner", "Owner", ("*",)),
    Role("editor", "Editor", ("*",), without=(*_SETTING_POLICIES, "resourcemanager.projects.delete")),
    Role("viewer", "Viewer", reads=("*",)),
    Role("aiplatform.admin", "Vertex AI Administrator", ("aiplatform.*", *_PROJECTS)),
    Role(
        "aiplatform.user",
        "Vertex AI User",
        ("aiplatform.endpoints.predict", "aiplatform.*", *_PROJECTS),
        without=("*.setIamPolicy", "*.getIamPolicy"),
    ),
    _viewer("aiplatform", "Vertex AI"),
    _admin("alloydb", "Cloud AlloyDB"),
    _viewer("alloydb", "Cloud AlloyDB"),
    Role(
        "alloydb.client",
        "Cloud AlloyDB Client",
        (
            "alloydb.clusters.generateClientCertificate",
            "alloydb.clusters.get",
            "alloydb.instances.connect",
            "alloydb.instances.get",
            *_PROJECTS,
        ),
    ),
    Role("alloydb.databaseUser", "Cloud AlloyDB Database User", ("alloydb.users.login", *_PROJECTS)),
    _admin("apigateway", "ApiGateway", "servicemanagement.services.get", "serviceusage.services.list"),
    _viewer("apigateway", "ApiGateway"),
    Role("artifactregistry.admin", "Artifact Registry Administrator", ("artifactregistry.*", *_PROJECTS)),
    Role("artifactregistry.reader", "Artifact Registry Reader", (), ("artifactregistry.*",)),
    Role(
        "artifactregistry.writer",
        "Artifact Registry Writer",
        (
            "artifactregistry.repositories.uploadArtifacts",
            "artifactregistry.tags.create",
            "artifactregistry.tags.update",
        ),
        ("artifactregistry.*",),
    ),
    Role("billing.admin", "Billing Account Administrator", ("billing.*", *_PROJECTS)),
    Role("billing.costsManager", "Billing Account Costs Manager", ("billing.budgets.*",), ("billing.*",)),
    Role("billing.user", "Billing Account User", ("billing.resourceAssociations.create",), ("billing.accounts.*",)),
    Role("billing.viewer", "Billing Account Viewer", (), ("billing.*",)),
    Role(
        "cloudbuild.builds.builder", "Cloud Build Service Account", ("cloudbuild.builds.*", "logging.logEntries.create")
    ),
    Role("cloudbuild.builds.editor", "Cloud Build Editor", ("cloudbuild.builds.*", *_PROJECTS)),
    Role("cloudbuild.builds.viewer", "Cloud Build Viewer", _PROJECTS, ("cloudbuild.builds.*",)),
    Role("cloudbuild.connectionAdmin", "Cloud Build Connection Admin", ("cloudbuild.connections.*",)),
    Role(
        "cloudbuild.workerPoolOwner",
        "Cloud Build WorkerPool Owner",
        ("cloudbuild.workerpools.*",),
    ),
    Role("cloudtrace.agent", "Cloud Trace Agent", ("cloudtrace.traces.patch",)),
    Role("compute.admin", "Compute Admin", ("compute.*", *_PROJECTS)),
    Role(
        "compute.networkAdmin",
        "Compute Network Admin",
        (
            *(f"compute.{collection}.*" for collection in _NETWORKING),
            "networkconnectivity.*",
            "servicenetworking.*",
            *_PROJECTS,
        ),
        ("compute.*",),
    ),
    Role(
        "compute.networkUser", "Compute Network User", ("compute.subnetworks.use", *_PROJECTS), ("compute.*networks.*",)
    ),
    Role("compute.networkViewer", "Compute Network Viewer", _PROJECTS, ("compute.*networks.*", "compute.routers.*")),
    Role(
        "compute.securityAdmin",
        "Compute Security Admin",
        ("compute.firewalls.*", "compute.sslCertificates.*", *_PROJECTS),
    ),
    _viewer("compute", "Compute"),
    Role(
        "iam.denyAdmin",
        "Deny Admin",
        ("iam.denypolicies.*",),
    ),
    Role("iam.roleAdmin", "Role Administrator", ("iam.roles.*", *_PROJECTS)),
    Role("iam.roleViewer", "Role Viewer", _PROJECTS, ("iam.roles.*",)),
    Role("iam.securityReviewer", "Security Reviewer", reads=("*",)),
    Role(
        "iam.serviceAccountAdmin",
        "Service Account Admin",
        ("iam.serviceAccounts.*", *_PROJECTS),
        without=("iam.serviceAccounts.signBlob", "iam.serviceAccounts.signJwt"),
    ),
    Role(
        "iam.serviceAccountCreator",
        "Create Service Accounts",
        ("iam.serviceAccounts.create", *_PROJECTS),
        ("iam.serviceAccounts.*",),
    ),
    Role("iam.serviceAccountKeyAdmin", "Service Account Key Admin", ("iam.serviceAccountKeys.*", *_PROJECTS)),
    Role(
        "iam.serviceAccountTokenCreator",
        "Service Account Token Creator",
        (
            *_TOKENS,
            "iam.serviceAccounts.get",
            "iam.serviceAccounts.implicitDelegation",
            "iam.serviceAccounts.signBlob",
            "iam.serviceAccounts.signJwt",
            *_PROJECTS,
        ),
    ),
    Role(
        "iam.serviceAccountUser",
        "Service Account User",
        ("iam.serviceAccounts.actAs", "iam.serviceAccounts.get", "iam.serviceAccounts.list", *_PROJECTS),
    ),
    Role(
        "iam.workloadIdentityPoolAdmin",
        "IAM Workload Identity Pool Admin",
        ("iam.workloadIdentityPools.*", "iam.workloadIdentityPoolProviders.*", *_PROJECTS),
    ),
    Role(
        "iam.workloadIdentityPoolViewer",
        "IAM Workload Identity Pool Viewer",
        _PROJECTS,
        ("iam.workloadIdentityPools.*",),
    ),
    Role("iam.workloadIdentityUser", "Workload Identity User", (*_TOKENS, "iam.serviceAccounts.get")),
    _admin("logging", "Logging"),
    Role(
        "logging.configWriter",
        "Logs Configuration Writer",
        ("logging.buckets.*", "logging.exclusions.*", "logging.sinks.*"),
    ),
    Role("logging.logWriter", "Logs Writer", ("logging.logEntries.create", "logging.logEntries.route")),
    Role("logging.viewer", "Logs Viewer", ("logging.logEntries.list", *_PROJECTS), ("logging.*",)),
    _admin("monitoring", "Monitoring"),
    Role("monitoring.editor", "Monitoring Editor", ("monitoring.*", *_PROJECTS), without=("*.setIamPolicy",)),
    Role(
        "monitoring.metricWriter",
        "Monitoring Metric Writer",
        ("monitoring.metricDescriptors.create", "monitoring.timeSeries.create"),
        ("monitoring.metricDescriptors.*", "monitoring.monitoredResourceDescriptors.*"),
    ),
    _viewer("monitoring", "Monitoring"),
    Role(
        "networkconnectivity.consumerNetworkAdmin",
        "Service Automation Consumer Network Admin",
        ("networkconnectivity.*",),
    ),
    Role("orgpolicy.policyAdmin", "Organization Policy Administrator", ("orgpolicy.*",)),
    Role("orgpolicy.policyViewer", "Organization Policy Viewer", reads=("orgpolicy.*",)),
    Role("resourcemanager.folderAdmin", "Folder Admin", ("resourcemanager.folders.*", *_PROJECTS)),
    Role("resourcemanager.organizationAdmin", "Organization Administrator", ("resourcemanager.*",)),
    Role("resourcemanager.projectCreator", "Project Creator", ("resourcemanager.projects.create",)),
    Role(
        "resourcemanager.projectIamAdmin",
        "Project IAM Admin",
        ("resourcemanager.projects.getIamPolicy", "resourcemanager.projects.setIamPolicy", *_PROJECTS),
    ),
    _admin("run", "Cloud Run"),
    Role("run.developer", "Cloud Run Developer", ("run.*", *_PROJECTS), without=("*.setIamPolicy", *_BESIDE_METHODS)),
    Role("run.invoker", "Cloud Run Invoker", ("run.jobs.run", "run.routes.invoke")),
    _viewer("run", "Cloud Run"),
    Role("secretmanager.admin", "Secret Manager Admin", ("secretmanager.*", *_PROJECTS)),
    Role(
        "secretmanager.secretAccessor", "Secret Manager Secret Accessor", ("secretmanager.versions.access", *_PROJECTS)
    ),
    Role(
        "secretmanager.secretVersionAdder",
        "Secret Manager Secret Version Adder",
        ("secretmanager.versions.add", *_PROJECTS),
    ),
    Role("secretmanager.viewer", "Secret Manager Viewer", _PROJECTS, ("secretmanager.*",)),
    Role("serviceusage.serviceUsageAdmin", "Service Usage Admin", ("serviceusage.*", *_PROJECTS)),
    Role(
        "serviceusage.serviceUsageConsumer",
        "Service Usage Consumer",
        ("serviceusage.services.use",),
        ("serviceusage.*",),
    ),
    Role("serviceusage.serviceUsageViewer", "Service Usage Viewer", reads=("serviceusage.*",)),
    Role(
        "storage.objectUser",
        "Storage Object User",
        tuple(f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list", "update")),
    ),
    Role("storage.objectViewer", "Storage Object Viewer", ("storage.objects.get", "storage.objects.list")),
    _admin("workstations", "Cloud Workstations"),
    Role(
        "workstations.networkAdmin", "Cloud Workstations Network Admin", ("compute.firewalls.*", "dns.managedZones.*")
    ),
    Role(
        "workstations.user",
        "Cloud Workstations User",
        ("workstations.workstations.start", "workstations.workstations.stop", "workstations.workstations.use"),
        ("workstations.workstations.*",),
    ),
    Role(
        "workstations.workstationCreator",
        "Cloud Workstations Creator",
        ("workstations.workstations.create",),
        ("workstations.workstationConfigs.*",),
    ),
)


@lru_cache(maxsize=1)
def predefined(control: ControlPlane) -> Mapping[str, Body]:
    """The predefined roles as the API shows them, by id (``run.invoker``)."""
    served = testable(control)
    bodies: dict[str, Body] = {}
    for role in ROLES:
        body: Body = {"name": f"roles/{role.id}", "title": role.title, "stage": "GA"}
        body["includedPermissions"] = role.permissions(served)
        bodies[role.id] = {**body, "etag": etag_of(body)}
    return bodies


@lru_cache(maxsize=1)
def testable(control: ControlPlane) -> tuple[str, ...]:
    """Every permission that a method which is served here needs, and those of the addresses behind them."""
    names = {
        control.services[method.api.service].permissions.get(method.short_id, method.permission)
        for method in control.catalog.methods()
        if method.name != "testIamPermissions"
    }
    return tuple(sorted(names.union(_BESIDE_METHODS)))
