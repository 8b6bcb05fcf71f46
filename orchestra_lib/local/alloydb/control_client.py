"""What the data plane asks the control plane: what there has to be, and whether a token counts; and what it reports.

Plain HTTP on loopback with the control plane's own REST interface; nothing is remembered between two questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from orchestra_lib.local.alloydb.roles import User
from orchestra_lib.local.control_calls import ControlCalls

API = "alloydb/v1beta"
_EXCHANGE = "_local/alloydb"
_SERVING = frozenset({"READY", "UPDATING", "MAINTENANCE"})


def database_user(principal: str) -> str:
    """The name that an IAM principal, given by its e-mail address, has in the database.

    https://cloud.google.com/alloydb/docs/database-users/manage-iam-auth
    """
    return principal.removesuffix(".gserviceaccount.com")


@dataclass(frozen=True)
class Origin:
    """Where the data of a cluster comes from that does not begin empty. Names are full; what is not so is empty."""

    primary: str = ""
    """The cluster that it was made to follow."""
    backup: str = ""
    backup_uid: str = ""
    cluster: str = ""
    """The cluster whose continuous backup it was restored from."""
    cluster_uid: str = ""
    point_in_time: str = ""
    """RFC 3339."""


@dataclass(frozen=True)
class Cluster:
    """A cluster as the data plane needs it. ``name`` is the full resource name."""

    name: str
    uid: str
    state: str
    primary: str
    """The cluster that it follows; empty for a primary one."""
    continuous_backup: bool
    users: tuple[User, ...]
    origin: Origin | None


@dataclass(frozen=True)
class Instance:
    """An instance as the data plane needs it. ``name`` is the full resource name."""

    name: str
    uid: str
    kind: str
    state: str
    address: str
    flags: Mapping[str, str]
    version: str
    """``POSTGRES_16``"""

    @property
    def is_serving(self) -> bool:
        """Whether connections are taken now."""
        return self.state in _SERVING

    @property
    def iam_authentication(self) -> bool:
        """Whether IAM users may log in. https://cloud.google.com/alloydb/docs/database-users/manage-iam-auth"""
        return self.flags.get("alloydb.iam_authentication", "off").lower() == "on"


@dataclass(frozen=True)
class Backup:
    """A backup: its full name and uid, and the cluster that it is of."""

    name: str
    uid: str
    cluster: str


@dataclass(frozen=True)
class Operation:
    """An operation that has not ended. ``method`` is ``clusters.promote``, ``target`` a full resource name."""

    key: str
    method: str
    target: str
    primary: str
    """The cluster that gives up its role, in a change of roles."""
    failover: bool
    awaits: bool
    """Whether it waits for a report."""
    failed: bool


@dataclass(frozen=True)
class Snapshot:
    """What the control plane wants there to be, as of one moment."""

    clusters: Mapping[str, Cluster]
    instances: Mapping[str, Instance]
    backups: Mapping[str, Backup]
    operations: tuple[Operation, ...]


class ControlClient(ControlCalls):
    """The calls that AlloyDB's data plane makes."""

    def snapshot(self) -> Snapshot:
        """Everything that has to be."""
        found = self.call("GET", _EXCHANGE)
        clusters = [_cluster(body) for body in found["clusters"]]
        instances = [_instance(body) for body in found["instances"]]
        backups = [Backup(body["name"], body["uid"], body["clusterName"]) for body in found["backups"]]
        return Snapshot(
            {cluster.name: cluster for cluster in clusters},
            {instance.name: instance for instance in instances},
            {backup.name: backup for backup in backups},
            tuple(Operation(**body) for body in found["operations"]),
        )

    def report(self, operation: str, error: str | None) -> None:
        """Say that the data plane has done its part of an operation, or why it could not."""
        self.call("POST", _EXCHANGE, body={"key": operation, "error": error})

    def full_name(self, instance: str) -> str:
        """An instance's name with the project's id, which a caller may have given by number. Raises ControlFault."""
        return str(self.call("GET", f"{API}/{instance}")["name"])


def _cluster(body: Mapping[str, Any]) -> Cluster:
    return Cluster(
        body["name"],
        body["uid"],
        body.get("state", ""),
        body.get("secondaryConfig", {}).get("primaryClusterName", ""),
        bool(body.get("continuousBackupConfig", {}).get("enabled")),
        tuple(_user(user) for user in body["users"]),
        Origin(**body["origin"]) if body["origin"] else None,
    )


def _instance(body: Mapping[str, Any]) -> Instance:
    return Instance(
        body["name"],
        body["uid"],
        body.get("instanceType", ""),
        body.get("state", ""),
        body.get("ipAddress", ""),
        body.get("databaseFlags", {}),
        body.get("maintenanceVersionName", "").partition(".")[0],
    )


def _user(body: Mapping[str, Any]) -> User:
    name = unquote(body["name"].rpartition("/users/")[2])
    is_iam = body.get("userType") == "ALLOYDB_IAM_USER"
    return User(database_user(name) if is_iam else name, is_iam, tuple(body.get("databaseRoles", [])))
