"""The home disks of workstations: regional disks in the project, made with the workstation, kept or gone with it.

https://cloud.google.com/workstations/docs/architecture
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestra_lib.local.control import endings
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import bad_field
from orchestra_lib.local.control.kinds import Body, not_found
from orchestra_lib.local.control.operations import Record
from orchestra_lib.local.control.services.compute_identity import identify, key_of_url, url

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_SIZES_GB = frozenset({10, 50, 100, 200, 500, 1000})
_LEAST_STANDARD_GB = 200
_FAST_TYPES = frozenset({"pd-balanced", "pd-ssd"})


def check_directories(_call: Call, body: Body, _before: Body | None) -> None:
    """Raise Fault for persistent directories that the document's descriptions forbid."""
    directories = body.get("persistentDirectories", [])
    if len(directories) > 1:
        raise bad_field("workstation_config.persistent_directories", "A workstation has one persistent directory.")
    for directory in directories:
        _check_disk(directory.get("gcePd", {}))


def make_home(control: ControlPlane, key: str, body: Body) -> None:
    """The end of a workstation's create: its home disk is there, with the labels of everything that it lies in."""
    disk, project, region = _disk_of(control, key), key.split("/")[2], key.split("/")[4]
    home = _home_key(project, region, body)
    if disk is None or control.find(home):
        return
    place = f"compute/projects/{project}/regions/{region}"
    parents = ["/".join(key.split("/")[:length]) for length in (7, 9)]
    rows = [row.body for parent in parents if (row := control.find(parent))]
    labels = {name: value for one in (*rows, body) for name, value in one.get("labels", {}).items()}
    made: Body = {
        "name": home.rsplit("/", 1)[1],
        "type": url(f"{place}/diskTypes/{disk['diskType']}"),
        "sizeGb": str(disk.get("sizeGb", "")),
        "replicaZones": [url(f"compute/projects/{project}/zones/{zone}") for zone in rows[-1]["replicaZones"]],
        "region": url(place),
        "labels": labels,
        "physicalBlockSizeBytes": "4096",
    }
    if "sourceSnapshot" in disk:
        source = control.find(key_of_url(control, disk["sourceSnapshot"], project))
        if source is None:
            raise not_found(control, key_of_url(control, disk["sourceSnapshot"], project))
        made |= {"sourceSnapshot": url(source.key), "sourceSnapshotId": source.body["id"]}
        made["sizeGb"] = source.body["diskSizeGb"]
    identify(control.catalog.apis["compute", "v1"].schema("Disk"), home, made, {}, control.clock())
    control.store.put(home, {**made, "status": "READY"})


def delete(control: ControlPlane, record: Record) -> None:
    """The end of a delete: a workstation's home goes too, unless its configuration retains it."""
    key, row = record["target"], control.find(record["target"])
    if row and key.split("/")[-2] == "workstations":
        disk = _disk_of(control, key)
        if disk is not None and disk.get("reclaimPolicy") != "RETAIN":
            control.store.remove(_home_key(key.split("/")[2], key.split("/")[4], row.body))
    endings.delete_in_operation(control, record)


def _check_disk(disk: Body) -> None:
    if "sourceSnapshot" in disk:
        if "sizeGb" in disk or "fsType" in disk:
            raise bad_field("source_snapshot", "A disk from a snapshot has the size and file system of the snapshot.")
        return
    size = disk.get("sizeGb", _LEAST_STANDARD_GB)
    if size not in _SIZES_GB:
        raise bad_field("size_gb", f"A home disk has 10, 50, 100, 200, 500 or 1000 GB, not {size}.")
    if size < _LEAST_STANDARD_GB and disk.get("diskType", "pd-standard") not in _FAST_TYPES:
        raise bad_field("disk_type", f"A home disk of {size} GB has to be of type pd-balanced or pd-ssd.")


def _disk_of(control: ControlPlane, workstation: str) -> Body | None:
    """What the workstation's configuration says of home disks; None when there is none."""
    row = control.find(workstation.rsplit("/", 2)[0])
    directories = row.body.get("persistentDirectories", ()) if row else ()
    return next((one["gcePd"] for one in directories if "gcePd" in one), None)


def _home_key(project: str, region: str, workstation: Body) -> str:
    return f"compute/projects/{project}/regions/{region}/disks/workstations-{workstation['uid']}"
