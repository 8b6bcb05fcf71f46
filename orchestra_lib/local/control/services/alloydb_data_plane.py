"""What AlloyDB's control plane and its data plane say to each other at ``/_local/alloydb``.

The data plane asks what there has to be, makes it so, and reports the operations that wait for it. Asking and
reporting are calls like others, so it does not matter which of the two was killed in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestra_lib.local.alloydb import control_rows, presence
from orchestra_lib.local.control import operations
from orchestra_lib.local.control.kinds import Body
from orchestra_lib.local.control.operations import Record
from orchestra_lib.local.control.services import alloydb_clusters as clusters
from orchestra_lib.local.control.services import alloydb_instances as instances

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

# What is not done before a server has done it. A primary instance's server starts when somebody connects.
_AWAITED = frozenset(
    {
        "backups.create",
        "clusters.promote",
        "clusters.restore",
        "clusters.switchover",
        "instances.createsecondary",
        "instances.failover",
        "instances.injectFault",
        "instances.restart",
    }
)
_PREFIX = "alloydb/"


def awaits(control: ControlPlane, method: str) -> bool:
    """Whether a method's operation waits for the data plane: it does if one runs, which then sees to the end of it."""
    return method in _AWAITED and presence.status(control.directory) is not None


def wanted(control: ControlPlane, _given: Body) -> Body:
    """Everything that has to be, as of one moment: clusters, instances, users, backups, and operations that wait."""
    rows = control.store.below(_PREFIX, clusters.CLUSTERS)
    return {
        "clusters": [
            {**row.body, "origin": row.hidden.get(clusters.ORIGIN), "users": _users(control, row.key)} for row in rows
        ],
        "instances": [row.body for row in control.store.below(_PREFIX, instances.INSTANCES)],
        "backups": [row.body for row in control.store.below(_PREFIX, "alloydb/backups")],
        "operations": [_shown(record) for record in control.store.open_operations(_PREFIX)],
    }


def report(control: ControlPlane, given: Body) -> Body:
    """The data plane has done its part of an operation (``key``), or could not (``error``)."""
    operations.release(control, given["key"], given.get("error"))
    operations.settle(control, control.clock())
    return {}


def _users(control: ControlPlane, cluster: str) -> list[Body]:
    return list(control_rows.users_of(control, cluster).values())


def _shown(record: Record) -> Body:
    after = record["after"] if record["effect"] == "change roles" else {}
    return {
        "key": record["key"],
        "method": record["short_id"],
        "target": record["target"].removeprefix(_PREFIX),
        "primary": after.get("primary", "").removeprefix(_PREFIX),
        "failover": bool(after.get("failover")),
        "awaits": bool(record.get("awaits")),
        "failed": record["error"] is not None,
    }
