"""Compute's disks, instances and schedules: what the service computes for them.

https://cloud.google.com/compute/docs/instances
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.kinds import Body, Each, fill_missing
from orchestra_lib.local.control.services.compute_addresses import free_host
from orchestra_lib.local.control.services.compute_catalogue import default_disk_gb
from orchestra_lib.local.control.services.compute_identity import identify, invalid, key_of_url, url

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

INSTANCE_DEFAULTS: Mapping[str, object] = {
    "canIpForward": False,
    "cpuPlatform": "Unknown CPU Platform",
    "deletionProtection": False,
    "metadata": {"kind": "compute#metadata"},
    "scheduling": {"onHostMaintenance": "MIGRATE", "automaticRestart": True, "preemptible": False},
    "shieldedInstanceIntegrityPolicy": {"updateAutoLearnPolicy": True},
    "startRestricted": False,
    "tags": {},
    "networkInterfaces": Each(
        {
            "kind": "compute#networkInterface",
            "name": "nic0",
            "stackType": "IPV4_ONLY",
            "accessConfigs": Each(
                {
                    "kind": "compute#accessConfig",
                    "name": "external-nat",
                    "networkTier": "PREMIUM",
                    "type": "ONE_TO_ONE_NAT",
                }
            ),
        }
    ),
    "disks": Each({"kind": "compute#attachedDisk", "mode": "READ_WRITE", "type": "PERSISTENT", "interface": "SCSI"}),
}
_WITH_CARDS = "n1-"  # the only series here that GPUs can be attached to
_SCHEDULES = ("hourlySchedule", "dailySchedule")
_SNAPSHOT_WINDOW = "PT14400S"  # snapshots of a schedule start within four hours
_SOURCES = ("sourceDisk", "sourceSnapshot", "sourceImage")
_SMALLEST_BOOT_DISK_GB = "10"


def complete_disk(call: Call, body: Body, before: Body | None) -> None:
    """The type and the size of a disk for which nobody gave them, and the ids of what it was made from."""
    if before is not None:
        return
    body.setdefault("type", _zonal(call, "diskTypes", "pd-standard"))
    for name in _SOURCES:
        row = call.control.find(key_of_url(call.control, body[name], call.project)) if name in body else None
        if row:
            body[f"{name}Id"] = row.body["id"]
            body.setdefault("sizeGb", row.body.get("sizeGb") or row.body.get("diskSizeGb", _SMALLEST_BOOT_DISK_GB))
    body.setdefault("sizeGb", default_disk_gb(body["type"]))


def complete_snapshot(call: Call, body: Body, before: Body | None) -> None:
    """What a new snapshot holds of its disk."""
    link = body.get("sourceDisk") if before is None else None
    row = call.control.find(key_of_url(call.control, link, call.project)) if link else None
    if row:
        body |= content_of(row.body)


def content_of(disk: Body) -> Body:
    """What a snapshot says of the disk that it is taken of, and of what it stores."""
    stored = {"storageBytes": "0", "storageBytesStatus": "UP_TO_DATE", "storageLocations": ["us"]}
    return {"sourceDiskId": disk["id"], "diskSizeGb": disk["sizeGb"], **stored}


def shown_disk(control: ControlPlane, key: str, _version: str, body: Body) -> Body:
    """A disk with the instances that it is attached to."""
    project, link = key.split("/")[2], url(key)
    rows = control.store.below(f"compute/projects/{project}/zones/", "compute/instances")
    users = [url(row.key) for row in rows if any(disk.get("source") == link for disk in row.body.get("disks", ()))]
    return {**body, "users": users} if users else body


def complete_schedule(_call: Call, body: Body, _before: Body | None) -> None:
    """How long the window of a snapshot schedule is."""
    schedule = (body.get("snapshotSchedulePolicy") or {}).get("schedule") or {}
    for name in _SCHEDULES:
        if name in schedule:
            schedule[name]["duration"] = _SNAPSHOT_WINDOW
    for day in (schedule.get("weeklySchedule") or {}).get("dayOfWeeks", ()):
        day["duration"] = _SNAPSHOT_WINDOW


def check_instance(call: Call, body: Body, _before: Body | None) -> None:
    """Write the links of what the catalogue holds; raise Fault (400) for a type that the zone does not have."""
    body["machineType"] = _known(call, "machineType", str(body.get("machineType", "")))
    machine = body["machineType"].rsplit("/", 1)[1]
    for index, card in enumerate(body.get("guestAccelerators", ())):
        field = f"guestAccelerators[{index}].acceleratorType"
        card["acceleratorType"] = _known(call, field, str(card.get("acceleratorType", "")))
        if not machine.startswith(_WITH_CARDS):
            name = card["acceleratorType"].rsplit("/", 1)[1]
            raise invalid(field, name, f"It cannot be attached to machine type {machine}.")


def _known(call: Call, field: str, value: str) -> str:
    key = key_of_url(call.control, value, call.project)
    if call.control.find(key) is None:
        raise invalid(field, value, "The referenced resource does not exist.")
    return url(key)


def complete_instance(call: Call, body: Body, before: Body | None) -> None:
    """Addresses of the interfaces, names of the disks; disks that are described are created."""
    for index, interface in enumerate(body.get("networkInterfaces", ())):
        interface["name"] = f"nic{index}"
        if before is None:
            _connect(call, interface)
    for index, disk in enumerate(body.get("disks", ())):
        fill_missing(disk, {"index": index, "boot": index == 0, "autoDelete": False})
        disk.setdefault("deviceName", f"persistent-disk-{index}")
        if "initializeParams" in disk:
            disk["source"] = _created_disk(call, body["name"], index, disk.pop("initializeParams"))


def instance_deleted(control: ControlPlane, body: Body) -> None:
    """The disks of a deleted instance that were to go with it."""
    for disk in body.get("disks", ()):
        if disk.get("autoDelete") and disk.get("source"):
            control.store.remove(key_of_url(control, disk["source"], None))


def _connect(call: Call, interface: Body) -> None:
    if "subnetwork" not in interface:
        network = interface.setdefault("network", url(f"compute/projects/{call.project}/global/networks/default"))
        region = call.location.rpartition("-")[0]
        prefix = f"compute/projects/{call.project}/regions/{region}/"
        rows = call.control.store.below(prefix, "compute/subnetworks")
        found = next((row for row in rows if row.body["network"] == network), None)
        if found is None:
            raise invalid("networkInterfaces[0].network", network, "The referenced network resource cannot be found.")
        interface["subnetwork"] = url(found.key)
    row = call.control.find(key_of_url(call.control, interface["subnetwork"], call.project))
    if row:
        interface.setdefault("network", row.body["network"])
    interface.setdefault("networkIP", free_host(call.control, interface["subnetwork"], call.project))


def _created_disk(call: Call, instance: str, index: int, described: Body) -> str:
    name = described.get("diskName") or (instance if index == 0 else f"{instance}-{index}")
    key = f"compute/projects/{call.project}/zones/{call.location}/disks/{name}"
    disk: Body = {"name": name, "type": described.get("diskType") or _zonal(call, "diskTypes", "pd-standard")}
    disk["sizeGb"] = described.get("diskSizeGb", _SMALLEST_BOOT_DISK_GB)
    disk |= {field: described[field] for field in (*_SOURCES, "labels") if field in described}
    disk["physicalBlockSizeBytes"] = "4096"
    identify(call.api.schema("Disk"), key, disk, {}, call.now)
    call.control.store.put(key, {**disk, "status": "READY"})
    return url(key)


def _zonal(call: Call, collection: str, name: str) -> str:
    return url(f"compute/projects/{call.project}/zones/{call.location}/{collection}/{name}")
