"""AlloyDB's own verbs, called and waited for: restore to a moment, switch over, delete a cluster that a drill made.

https://cloud.google.com/alloydb/docs/reference/rest/v1/projects.locations.clusters
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.refusals import CloudRefused

API = "alloydb.v1"
CLUSTERS, INSTANCES = KINDS["database cluster"].collection, KINDS["database instance"].collection
_TIMEOUT_SECONDS = 3_600.0
_TAKEN_FROM_CLUSTER = ("databaseVersion", "labels")
_TAKEN_FROM_INSTANCE = ("machineConfig", "databaseFlags", "clientConnectionConfig", "labels")


class Clusters:
    """The clusters of one project. Paths are full resource names, without ``//alloydb.googleapis.com/``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, path: str) -> dict[str, Any] | None:
        """A cluster; None when there is none."""
        try:
            return self._client.call(API, f"{CLUSTERS}.get", path)
        except CloudRefused as error:
            if error.is_absence:
                return None
            raise

    def restore(self, cluster: str, instance: str, restored: str, moment: datetime) -> str:
        """Restore a cluster as it was at that moment into a new one, with an instance like ``instance``.

        Returns the path of the new instance, once it serves. Raises CloudRefused.
        """
        parent, identifier = restored.split("/clusters/")
        live = self._client.call(API, f"{CLUSTERS}.get", cluster)
        body = {
            "clusterId": identifier,
            "cluster": {**_only(live, _TAKEN_FROM_CLUSTER), "networkConfig": _network(live)},
            "continuousBackupSource": {"cluster": cluster, "pointInTime": moment.isoformat()},
        }
        started = self._client.call(API, f"{CLUSTERS}.restore", f"{parent}/clusters:restore", body=body)
        self._finish(f"restore {restored}", started)
        return self._like(instance, restored)

    def switch_over(self, secondary: str) -> None:
        """Let a secondary cluster and its primary change places. Raises CloudRefused."""
        started = self._client.call(API, f"{CLUSTERS}.switchover", f"{secondary}:switchover", body={})
        self._finish(f"switch over to {secondary}", started)

    def delete(self, path: str) -> bool:
        """Delete a cluster and what is in it; returns whether it was there. Raises CloudRefused."""
        try:
            started = self._client.call(API, f"{CLUSTERS}.delete", path, query={"force": "true"})
        except CloudRefused as error:
            if error.is_absence:
                return False
            raise
        self._finish(f"delete {path}", started)
        return True

    def _like(self, instance: str, cluster: str) -> str:
        live = self._client.call(API, f"{INSTANCES}.get", instance)
        # One node suffices to look at the rows.
        body = {**_only(live, _TAKEN_FROM_INSTANCE), "instanceType": "PRIMARY", "availabilityType": "ZONAL"}
        identifier = instance.rpartition("/")[2]
        started = self._client.call(
            API, f"{INSTANCES}.create", f"{cluster}/instances", body=body, query={"instanceId": identifier}
        )
        self._finish(f"create {cluster}/instances/{identifier}", started)
        return f"{cluster}/instances/{identifier}"

    def _finish(self, what: str, operation: Mapping[str, Any]) -> None:
        self._client.finish(API, what, operation, _TIMEOUT_SECONDS)


def _network(live: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in live.get("networkConfig", {}).items() if value}


def _only(body: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: body[name] for name in names if name in body}
