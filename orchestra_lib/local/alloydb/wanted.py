"""What each instance's server has to be, computed from what the control plane wants: its role, and whom it follows.

A change of roles that waits for the data plane counts already: it ends when the servers have changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestra_lib.local.alloydb import places
from orchestra_lib.local.alloydb.control_client import Cluster, Instance, Operation, Snapshot
from orchestra_lib.local.alloydb.roles import User

PRIMARY, SECONDARY, READ_POOL = "PRIMARY", "SECONDARY", "READ_POOL"


@dataclass(frozen=True)
class Wanted:
    """One instance's server as it has to be."""

    instance: Instance
    cluster: Cluster
    role: str
    """PRIMARY, SECONDARY or READ_POOL."""
    upstream: str | None
    """The instance that a secondary one or a read pool follows; None when that does not exist."""
    followers: tuple[str, ...]
    """The instances that follow it."""
    users: tuple[User, ...]
    """Who may log in. Followers have the users of the cluster whose data they have."""
    users_of: str
    """The name of that cluster."""
    is_failover: bool
    """Whether it takes over from a primary instance that may be gone for good."""

    @property
    def name(self) -> str:
        """The instance's full name."""
        return self.instance.name

    @property
    def is_writable(self) -> bool:
        """Whether it is written to, instead of following another one."""
        return self.role == PRIMARY


def wanted_of(snapshot: Snapshot) -> Mapping[str, Wanted]:
    """Every instance's server as it has to be, by the instance's name."""
    primaries = _primaries(snapshot)
    upstreams = {name: _upstream(name, snapshot, primaries) for name in snapshot.instances}
    failovers = {
        change.target for change in _role_changes(snapshot) if change.failover and change.method == "clusters.promote"
    }
    result = {}
    for name, instance in snapshot.instances.items():
        cluster = snapshot.clusters[places.cluster_of(name)]
        # As the control plane has it now: a promoted cluster gets users of its own when its operation ends.
        users_of = snapshot.clusters.get(cluster.primary, cluster)
        result[name] = Wanted(
            instance=instance,
            cluster=cluster,
            role=_role(instance, primaries),
            upstream=upstreams[name],
            followers=tuple(sorted(other for other, upstream in upstreams.items() if upstream == name)),
            users=users_of.users,
            users_of=users_of.name,
            is_failover=cluster.name in failovers,
        )
    return result


def _role_changes(snapshot: Snapshot) -> list[Operation]:
    methods = ("clusters.promote", "clusters.switchover")
    return [found for found in snapshot.operations if found.method in methods and not found.failed]


def _primaries(snapshot: Snapshot) -> dict[str, str]:
    """The cluster that each cluster follows, empty for a primary one, after the changes of roles under way."""
    found = {cluster.name: cluster.primary for cluster in snapshot.clusters.values()}
    for change in _role_changes(snapshot):
        if found.get(change.target):
            old = found[change.target]
            found[change.target] = ""
            if change.failover:
                moved = [name for name, primary in found.items() if name == old or primary == old]
                found.update(dict.fromkeys(moved, change.target))
    return found


def _role(instance: Instance, primaries: Mapping[str, str]) -> str:
    if instance.kind == READ_POOL:
        return READ_POOL
    return SECONDARY if primaries[places.cluster_of(instance.name)] else PRIMARY


def _upstream(name: str, snapshot: Snapshot, primaries: Mapping[str, str]) -> str | None:
    cluster, instance = places.cluster_of(name), snapshot.instances[name]
    followed = cluster if instance.kind == READ_POOL else primaries[cluster]
    if not followed:
        return None
    others = (other for other in snapshot.instances.values() if places.cluster_of(other.name) == followed)
    return next((other.name for other in others if other.kind != READ_POOL), None)
