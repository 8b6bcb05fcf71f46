"""The kinds of resource that the engine knows: one row each, as data.

Methods, parameters and read-only fields come from Google's discovery documents; a row says what they do not. The ids of
methods are those of the documents (https://developers.google.com/discovery/v1/reference/apis).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Kind:
    """How the engine reaches one kind of resource.

    ``collection`` is the prefix of its methods' ids, ``segment`` the last collection in its path. The id of a new
    resource goes into the query parameter ``id_parameter`` or the body's field ``id_field``; where the service chooses
    the id, the resource is ``found_by`` that field of its body, whose value is the wanted id. Without ``create`` it
    comes with its project, without ``delete`` it goes with what it lies in.
    """

    name: str
    api: str
    collection: str
    segment: str = ""
    access: str = "standard"
    id_parameter: str | None = None
    id_field: str | None = None
    found_by: str | None = None
    create: str | None = "create"
    update: str | None = "patch"
    delete: str | None = "delete"
    wrapped: str | None = None  # create and patch take {"<wrapped>": body} beside the id or the mask
    whole_name: bool = False  # id_field takes the whole path, not the id alone
    extra: tuple[tuple[str, str], ...] = ()  # query parameters of create and update
    extra_of_get: tuple[tuple[str, str], ...] = ()
    extra_of_delete: tuple[tuple[str, str], ...] = ()
    create_only: frozenset[str] = frozenset()  # given at creation, afterwards neither compared nor changed
    complete_with: str | None = None  # a field that one has once its creation has come to its end
    fixed: frozenset[str] = frozenset()  # cannot be changed in place, beyond what the document calls immutable
    identity: frozenset[str] = frozenset()  # fields of the body that say which resource it is
    generated: frozenset[str] = frozenset()  # fields of nested messages that the service names by itself
    sets: frozenset[str] = frozenset()  # lists whose order means nothing
    holds_data: bool = False  # deleting it destroys what people put there
    undelete: bool = False  # deleted ones stay for a time and keep their id
    permission: str = ""  # the prefix of its IAM permissions
    permissions: Mapping[str, str] = field(default_factory=dict)  # by verb, where they are not prefix.verb
    quota: str | None = None  # the compute quota that a new one counts against
    timeout_seconds: float = 600.0

    @property
    def service(self) -> str:
        """The API's host name, as Service Usage knows it: ``compute.googleapis.com``."""
        return f"{self.api.split('.')[0]}.googleapis.com"

    def needed_permission(self, verb: str) -> str:
        """The IAM permission that creating, updating or deleting one takes."""
        return self.permissions.get(verb, f"{self.permission}.{verb}")

    @property
    def path_segment(self) -> str:
        """The collection in the resource's path."""
        return self.segment or self.collection.rsplit(".", 1)[-1]


def _set_policy(prefix: str) -> Mapping[str, str]:
    return MappingProxyType(dict.fromkeys(("create", "update", "delete"), f"{prefix}.setIamPolicy"))


def _compute(name: str, collection: str, quota: str | None = None, **differs: object) -> Kind:
    row: dict[str, object] = {
        "api": "compute.v1",
        "collection": f"compute.{collection}",
        "create": "insert",
        "id_field": "name",
        "permission": f"compute.{collection}",
        "quota": quota,
    }
    return Kind(name, **{**row, **differs})  # type: ignore[arg-type]


def _alloydb(name: str, collection: str, **differs: object) -> Kind:
    row: dict[str, object] = {
        "api": "alloydb.v1",
        "collection": f"alloydb.projects.locations.{collection}",
        "permission": f"alloydb.{collection.rsplit('.', 1)[-1]}",
    }
    return Kind(name, **{**row, **differs})  # type: ignore[arg-type]


# What a cluster is and is not changed into: a newer version takes clusters.upgrade, a network a new cluster.
_FIXED_OF_A_CLUSTER = frozenset({"databaseVersion", "networkConfig", "secondaryConfig"})

_ROWS = (
    Kind(
        "project",
        "cloudresourcemanager.v3",
        "cloudresourcemanager.projects",
        access="project",
        id_field="projectId",
        fixed=frozenset({"projectId", "parent"}),  # another parent takes projects.move
        holds_data=True,
        undelete=True,
        permission="resourcemanager.projects",
    ),
    Kind(
        "billing",
        "cloudbilling.v1",
        "cloudbilling.projects",
        segment="billingInfo",
        access="billing",
        create=None,
        permission="billing.resourceAssociations",
    ),
    Kind(
        "service",
        "serviceusage.v1",
        "serviceusage.services",
        access="service",
        update=None,
        permissions=MappingProxyType(
            {"create": "serviceusage.services.enable", "delete": "serviceusage.services.disable"}
        ),
        permission="serviceusage.services",
    ),
    _compute("network", "networks", "NETWORKS", fixed=frozenset({"autoCreateSubnetworks"})),
    _compute(
        "subnetwork",
        "subnetworks",
        "SUBNETWORKS",
        fixed=frozenset({"network", "ipCidrRange"}),
    ),
    _compute("router", "routers", "ROUTERS", fixed=frozenset({"network"})),
    _compute(
        "firewall",
        "firewalls",
        "FIREWALLS",
        fixed=frozenset({"network", "direction"}),
        sets=frozenset({"sourceRanges", "destinationRanges"}),
    ),
    _compute(
        "global address",
        "globalAddresses",
        "GLOBAL_INTERNAL_ADDRESSES",
        segment="addresses",
        update=None,
    ),
    Kind(
        "peering",
        "servicenetworking.v1",
        "servicenetworking.services.connections",
        access="peering",
        identity=frozenset({"network"}),
        sets=frozenset({"reservedPeeringRanges"}),
        permissions=MappingProxyType(
            dict.fromkeys(("create", "update", "delete"), "servicenetworking.services.addPeering")
        ),
        timeout_seconds=900.0,
    ),
    Kind(
        "service account",
        "iam.v1",
        "iam.projects.serviceAccounts",
        access="service account",
        id_field="accountId",
        wrapped="serviceAccount",
        permission="iam.serviceAccounts",
    ),
    Kind(
        "roles",
        "cloudresourcemanager.v3",
        "cloudresourcemanager.projects",
        access="roles",
        identity=frozenset({"member"}),
        sets=frozenset({"roles"}),
        permissions=_set_policy("resourcemanager.projects"),
    ),
    Kind(
        "grant",
        "cloudresourcemanager.v3",
        "cloudresourcemanager.projects",
        access="grant",
        identity=frozenset({"member", "role"}),
        permissions=_set_policy("resourcemanager.projects"),
    ),
    Kind(
        "service account roles",
        "iam.v1",
        "iam.projects.serviceAccounts",
        access="roles",
        identity=frozenset({"member"}),
        sets=frozenset({"roles"}),
        permissions=_set_policy("iam.serviceAccounts"),
    ),
    Kind(
        "repository roles",
        "artifactregistry.v1",
        "artifactregistry.projects.locations.repositories",
        access="roles",
        identity=frozenset({"member"}),
        sets=frozenset({"roles"}),
        permissions=_set_policy("artifactregistry.repositories"),
    ),
    Kind(
        "secret roles",
        "secretmanager.v1",
        "secretmanager.projects.secrets",
        access="roles",
        identity=frozenset({"member"}),
        sets=frozenset({"roles"}),
        permissions=_set_policy("secretmanager.secrets"),
    ),
    Kind(
        "audit logs",
        "cloudresourcemanager.v3",
        "cloudresourcemanager.projects",
        access="audit logs",
        sets=frozenset({"logTypes"}),
        permissions=_set_policy("resourcemanager.projects"),
    ),
    Kind(
        "workload identity pool",
        "iam.v1",
        "iam.projects.locations.workloadIdentityPools",
        id_parameter="workloadIdentityPoolId",
        undelete=True,
        permission="iam.workloadIdentityPools",
    ),
    Kind(
        "workload identity provider",
        "iam.v1",
        "iam.projects.locations.workloadIdentityPools.providers",
        id_parameter="workloadIdentityPoolProviderId",
        undelete=True,
        permission="iam.workloadIdentityPoolProviders",
    ),
    Kind(
        "log bucket",
        "logging.v2",
        "logging.projects.locations.buckets",
        id_parameter="bucketId",
        undelete=True,
        holds_data=True,
        permission="logging.buckets",
    ),
    Kind(
        "log sink",
        "logging.v2",
        "logging.projects.sinks",
        id_field="name",
        extra=(("uniqueWriterIdentity", "true"),),
        permission="logging.sinks",
    ),
    Kind(
        "notification channel",
        "monitoring.v3",
        "monitoring.projects.notificationChannels",
        found_by="displayName",
        fixed=frozenset({"type"}),
        permission="monitoring.notificationChannels",
    ),
    Kind(
        "alert policy",
        "monitoring.v3",
        "monitoring.projects.alertPolicies",
        found_by="displayName",
        generated=frozenset({"name"}),
        permission="monitoring.alertPolicies",
    ),
    Kind(
        "uptime check",
        "monitoring.v3",
        "monitoring.projects.uptimeCheckConfigs",
        found_by="displayName",
        fixed=frozenset({"monitoredResource"}),
        permission="monitoring.uptimeCheckConfigs",
    ),
    Kind(
        "dashboard",
        "monitoring.v1",
        "monitoring.projects.dashboards",
        id_field="name",
        whole_name=True,
        permission="monitoring.dashboards",
    ),
    Kind(
        "budget",
        "billingbudgets.v1",
        "billingbudgets.billingAccounts.budgets",
        found_by="displayName",
        permission="billing.budgets",
    ),
    Kind(
        "secret",
        "secretmanager.v1",
        "secretmanager.projects.secrets",
        id_parameter="secretId",
        holds_data=True,
        fixed=frozenset({"replication"}),
        permission="secretmanager.secrets",
    ),
    Kind(
        "assistant settings",  # a secret without a value, whose annotations hold them: nothing in it is data
        "secretmanager.v1",
        "secretmanager.projects.secrets",
        id_parameter="secretId",
        fixed=frozenset({"replication"}),
        permission="secretmanager.secrets",
    ),
    Kind(
        "repository",
        "artifactregistry.v1",
        "artifactregistry.projects.locations.repositories",
        id_parameter="repositoryId",
        holds_data=True,
        fixed=frozenset({"format", "mode"}),
        permission="artifactregistry.repositories",
    ),
    Kind(
        "build trigger",
        "cloudbuild.v1",
        "cloudbuild.projects.locations.triggers",
        found_by="name",
        permission="cloudbuild.builds",
        permissions=MappingProxyType({"delete": "cloudbuild.builds.update"}),
    ),
    _compute(
        "snapshot schedule",
        "resourcePolicies",
        "RESOURCE_POLICIES",
        # Only its description can be changed while disks use it, and a schedule without disks is soon made anew.
        fixed=frozenset({"snapshotSchedulePolicy"}),
    ),
    _compute("snapshot", "snapshots", "SNAPSHOTS", update=None, holds_data=True),
    Kind(
        "home schedule",
        "compute.v1",
        "compute.regionDisks",
        access="home schedule",
        permissions=MappingProxyType(
            {
                **dict.fromkeys(("create", "update"), "compute.disks.addResourcePolicies"),
                "delete": "compute.disks.removeResourcePolicies",
            }
        ),
    ),
    Kind(
        "workstation cluster",
        "workstations.v1",
        "workstations.projects.locations.workstationClusters",
        id_parameter="workstationClusterId",
        fixed=frozenset({"privateClusterConfig", "domainConfig"}),  # what we set of them is immutable
        permission="workstations.workstationClusters",
        timeout_seconds=2_400.0,  # a quarter of an hour is usual
    ),
    Kind(
        "workstation configuration",
        "workstations.v1",
        "workstations.projects.locations.workstationClusters.workstationConfigs",
        id_parameter="workstationConfigId",
        sets=frozenset({"replicaZones"}),
        permission="workstations.workstationConfigs",
        timeout_seconds=1_200.0,
    ),
    Kind(
        "workstation",
        "workstations.v1",
        "workstations.projects.locations.workstationClusters.workstationConfigs.workstations",
        id_parameter="workstationId",
        fixed=frozenset({"sourceWorkstation"}),
        holds_data=True,
        permission="workstations.workstations",
    ),
    _alloydb(
        "database cluster",
        "clusters",
        id_parameter="clusterId",
        fixed=_FIXED_OF_A_CLUSTER,
        sets=frozenset({"daysOfWeek"}),
        holds_data=True,
        timeout_seconds=1_800.0,
    ),
    _alloydb(
        "secondary database cluster",
        "clusters",
        id_parameter="clusterId",
        create="createsecondary",
        extra_of_delete=(("force", "true"),),  # with its instance, which cannot be deleted by itself
        fixed=_FIXED_OF_A_CLUSTER,
        sets=frozenset({"daysOfWeek"}),
        holds_data=True,
        timeout_seconds=3_600.0,
    ),
    _alloydb(
        "database instance",
        "clusters.instances",
        id_parameter="instanceId",
        fixed=frozenset({"instanceType"}),
        holds_data=True,
        timeout_seconds=3_600.0,  # twenty minutes are usual
    ),
    _alloydb(
        "secondary database instance",
        "clusters.instances",
        id_parameter="instanceId",
        create="createsecondary",
        delete=None,
        fixed=frozenset({"instanceType"}),
        timeout_seconds=3_600.0,
    ),
    _alloydb(
        "database user",
        "clusters.users",
        id_parameter="userId",
        fixed=frozenset({"userType"}),
        sets=frozenset({"databaseRoles"}),
    ),
    Kind(
        "run service",
        "run.v2",
        "run.projects.locations.services",
        id_parameter="serviceId",
        create_only=frozenset({"template", "traffic"}),  # what serves is a rollout's to say
        complete_with="latestReadyRevision",
        permission="run.services",
        timeout_seconds=900.0,  # a startup probe waits for 240 s at most, and an image is pulled before it
    ),
    Kind(
        "run service roles",
        "run.v2",
        "run.projects.locations.services",
        access="roles",
        identity=frozenset({"member"}),
        sets=frozenset({"roles"}),
        permissions=_set_policy("run.services"),
    ),
    Kind(
        "gateway api",
        "apigateway.v1",
        "apigateway.projects.locations.apis",
        id_parameter="apiId",
        permission="apigateway.apis",
        timeout_seconds=1_200.0,
    ),
    Kind(
        "gateway config",
        "apigateway.v1",
        "apigateway.projects.locations.apis.configs",
        id_parameter="apiConfigId",
        extra_of_get=(("view", "FULL"),),  # its documents are left out otherwise
        create_only=frozenset({"gatewayServiceAccount"}),  # immutable, and shown in another form than it is given
        fixed=frozenset({"openapiDocuments"}),
        permission="apigateway.apiconfigs",
        timeout_seconds=1_200.0,
    ),
    Kind(
        "gateway",
        "apigateway.v1",
        "apigateway.projects.locations.gateways",
        id_parameter="gatewayId",
        permission="apigateway.gateways",
        timeout_seconds=1_200.0,
    ),
    Kind(
        "workstation roles",
        "workstations.v1",
        "workstations.projects.locations.workstationClusters.workstationConfigs.workstations",
        access="roles",
        identity=frozenset({"member"}),
        sets=frozenset({"roles"}),
        permissions=_set_policy("workstations.workstations"),
    ),
)

KINDS: Mapping[str, Kind] = MappingProxyType({row.name: row for row in _ROWS})
"""Every kind by its name."""
