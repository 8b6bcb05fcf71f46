"""Phase 3: AlloyDB. A cluster with its instance, who may log in, and the copy of it in the other region.

Limits and meanings of fields: alloydb.v1 in Google's discovery documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestra_lib.blueprint import identities
from orchestra_lib.blueprint.foundation import foundation
from orchestra_lib.blueprint.network import SERVICE_PRODUCER
from orchestra_lib.blueprint.specification import Specification, specification
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.errors import ParameterError
from orchestra_lib.settings import Settings
from orchestra_lib.settings.memory import AlloyDB

ADMINISTRATORS, IAM_USERS = "alloydbsuperuser", "alloydbiamuser"
"""AlloyDB's roles: that of who may do nearly everything, and the one that every IAM user is in.

https://cloud.google.com/alloydb/docs/database-users/overview
"""

_SERVICE_ACCOUNT_END = ".gserviceaccount.com"
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class MemoryPlan:
    """What phase 3 wants, and what it stands on: ``foundation`` is phase 1's, as phase 1 wants it."""

    resources: tuple[Resource, ...]
    foundation: tuple[Resource, ...]


def memory(settings: Settings, operator: str | None = None) -> MemoryPlan:
    """Everything that phase 3 wants to exist. ``operator`` is the address of who runs it, and so has to log in.

    Raises ParameterError for what the settings lack or leave open.
    """
    spec, wanted = specification(settings), _section(settings)
    cluster = _cluster(spec, wanted)
    instance = _instance(spec, wanted, cluster)
    secondary = _secondary_cluster(spec, wanted, cluster, instance)
    resources = (
        cluster,
        instance,
        *_users(spec, wanted, cluster, instance, operator),
        secondary,
        _secondary_instance(spec, wanted, secondary),
    )
    return MemoryPlan(resources, foundation(settings, resources, _used_by_name(spec)))


def database_user(email: str) -> str:
    """The name that an IAM principal has in the database: its address, a service account's without its usual end.

    https://cloud.google.com/alloydb/docs/database-users/manage-iam-auth
    """
    return email.lower().removesuffix(_SERVICE_ACCOUNT_END)


def path_of(cluster: Resource) -> str:
    """The path of a cluster."""
    return f"{cluster.parent}/clusters/{cluster.id}"


def _section(settings: Settings) -> AlloyDB:
    if settings.memory.alloydb is None:
        raise ParameterError(f"environment {settings.environment.name} has no section memory.alloydb")
    return settings.memory.alloydb


def _cluster(spec: Specification, wanted: AlloyDB) -> Resource:
    window = wanted.maintenance_window
    body = {
        "displayName": "Orchestra memory",
        "databaseVersion": wanted.database_version,
        **_network(spec),
        **_backups(spec, wanted),
        "maintenanceUpdatePolicy": {
            "maintenanceWindows": [{"day": window.day, "startTime": {"hours": window.start_hour_utc}}]
        },
        "labels": dict(spec.labels),
    }
    parent = spec.location(spec.regions.primary)
    return spec.resource("database cluster", parent, wanted.cluster, body, _network_needs(spec))


def _secondary_cluster(spec: Specification, wanted: AlloyDB, cluster: Resource, instance: Resource) -> Resource:
    """The cluster in the other region. Backups are copied when it is made and not later, so they are said here too."""
    body = {
        "displayName": "Orchestra memory, disaster recovery",
        "secondaryConfig": {"primaryClusterName": path_of(cluster)},
        **_network(spec),
        **_backups(spec, wanted),
        "labels": dict(spec.labels),
    }
    needs = (cluster.key, instance.key, *_network_needs(spec))
    parent = spec.location(spec.regions.secondary)
    return spec.resource("secondary database cluster", parent, wanted.secondary_cluster, body, needs)


def _instance(spec: Specification, wanted: AlloyDB, cluster: Resource) -> Resource:
    body = {
        "displayName": "Orchestra memory",
        "instanceType": "PRIMARY",
        "availabilityType": wanted.availability,
        "queryInsightsConfig": {
            "queryPlansPerMinute": wanted.query_plans_per_minute,
            "queryStringLength": wanted.query_string_length,
            "recordApplicationTags": True,
            "recordClientAddress": False,
        },
        **_served_alike(spec, wanted),
    }
    return spec.resource("database instance", path_of(cluster), wanted.instance, body, (cluster.key,))


def _secondary_instance(spec: Specification, wanted: AlloyDB, cluster: Resource) -> Resource:
    """As the primary, which it may have to replace. Flags are copied when it is made, not later: so they are said."""
    body = {
        "displayName": "Orchestra memory, disaster recovery",
        "instanceType": "SECONDARY",
        "availabilityType": "ZONAL",  # it waits: a second node of it would be paid for and do nothing
        **_served_alike(spec, wanted),
    }
    return spec.resource(
        "secondary database instance", path_of(cluster), wanted.secondary_instance, body, (cluster.key,)
    )


def _served_alike(spec: Specification, wanted: AlloyDB) -> dict[str, Any]:
    """What both instances have: after a switchover the one is the other."""
    return {
        "databaseFlags": {**wanted.flags, "max_connections": str(wanted.max_connections)},
        "machineConfig": {"cpuCount": wanted.cpu_count, "machineType": wanted.machine_type},
        # Connectors alone: mutual TLS with certificates of an hour, whoever has a password.
        "clientConnectionConfig": {"requireConnectors": True, "sslConfig": {"sslMode": "ENCRYPTED_ONLY"}},
        # Lets statements in over the internet otherwise, private address or not.
        "dataApiAccess": "DISABLED",
        "networkConfig": {"enablePublicIp": False},
        "labels": dict(spec.labels),
    }


def _network(spec: Specification) -> dict[str, Any]:
    name = spec.network.name
    return {
        "networkConfig": {
            "network": f"{spec.project_path}/global/networks/{name}",
            "allocatedIpRange": f"{name}-services",  # the firewall opens to this range and to no other
        }
    }


def _network_needs(spec: Specification) -> tuple[str, ...]:
    name = spec.network.name
    return (
        f"network:{spec.project_path}/global/{name}",
        f"global address:{spec.project_path}/global/{name}-services",
        f"peering:{SERVICE_PRODUCER}/{name}",
    )


def _backups(spec: Specification, wanted: AlloyDB) -> dict[str, Any]:
    times = [{"hours": int(time.partition(":")[0])} for time in wanted.backup_start_times]
    return {
        "continuousBackupConfig": {"enabled": True, "recoveryWindowDays": wanted.recovery_window_days},
        "automatedBackupPolicy": {
            "enabled": True,
            "backupWindow": f"{wanted.backup_window_seconds}s",
            "weeklySchedule": {"daysOfWeek": list(wanted.backup_days), "startTimes": times},
            "timeBasedRetention": {"retentionPeriod": f"{wanted.automated_backup_retention_days * _SECONDS_A_DAY}s"},
            "labels": dict(spec.labels),
        },
    }


def _users(
    spec: Specification, wanted: AlloyDB, cluster: Resource, instance: Resource, operator: str | None
) -> list[Resource]:
    """Who may log in, each by IAM. The API gets its rights on tables in SQL, and no others."""
    migration, api = (spec.email_of(name) for name in (identities.MIGRATION, identities.API))
    administrators = (migration, *wanted.administrators, *((operator,) if operator else ()))
    roles: dict[str, tuple[str, ...]] = {database_user(api): (IAM_USERS,)}
    roles |= {database_user(email): (IAM_USERS, ADMINISTRATORS) for email in administrators}
    accounts = {database_user(spec.email_of(one.id)): identities.account(spec, one.id) for one in identities.IDENTITIES}
    return [
        spec.resource(
            "database user",
            path_of(cluster),
            name,
            {"userType": "ALLOYDB_IAM_USER", "databaseRoles": sorted(held)},
            (instance.key, *((accounts[name].key,) if name in accounts else ())),
        )
        for name, held in sorted(roles.items())
    ]


def _used_by_name(spec: Specification) -> tuple[str, ...]:
    """What phase 3 uses and none of its resources needs: roles that let its accounts log in, and the secrets."""
    accounts = (identities.MIGRATION, identities.API)
    roles = [f"roles:{spec.project_path}/{identities.member(spec, name)}" for name in accounts]
    secrets = [f"secret:{spec.project_path}/{name}" for name in (spec.secrets.memory_endpoint, spec.secrets.source_dsn)]
    return (*roles, *secrets)
