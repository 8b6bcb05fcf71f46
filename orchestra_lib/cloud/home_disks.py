"""The disks that hold the homes of workstations: Cloud Workstations makes them and names them as it likes.

Labels of a workstation are passed on to its disk, so the label is what finds it.
https://cloud.google.com/workstations/docs/label-resources
"""

from __future__ import annotations

from typing import Any

from orchestra_lib.cloud.client import Client, Snapshot
from orchestra_lib.cloud.refusals import CloudRefused

LABEL = "workstation"
"""The key of the label that every workstation of ours has, with its own id as the value."""


def home_disk(client: Client | Snapshot, region: str, workstation: str) -> dict[str, Any] | None:
    """The home disk of a workstation; None where there is none. ``region`` is ``projects/<id>/regions/<region>``.

    A disk that was kept when an earlier workstation of the same id was deleted has the label too: the newest counts.
    Raises CloudRefused when the disks may not be listed.
    """
    query = {"filter": f"labels.{LABEL}={workstation}"}
    found: list[dict[str, Any]] = []
    while True:
        try:
            page = client.call("compute.v1", "compute.regionDisks.list", f"{region}/disks", query=query)
        except CloudRefused as error:
            if error.is_absence:
                return None
            raise
        found += page.get("items", ())
        if not page.get("nextPageToken"):
            return max(found, key=lambda disk: str(disk["creationTimestamp"]), default=None)
        query["pageToken"] = page["nextPageToken"]


def disk_path(disk: dict[str, Any]) -> str:
    """``projects/<id>/regions/<region>/disks/<name>`` of a disk that was read."""
    return str(disk["selfLink"]).split("/compute/v1/", 1)[1]
