"""Cloud Workstations: clusters, configs, workstations. https://cloud.google.com/workstations/docs/reference/rest"""

from __future__ import annotations

import secrets
import zlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control import endings, operations, places, standard
from orchestra_lib.local.control.call import Call, digits, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Each, Effect, Handler, Kind, Service, fill_missing, not_found
from orchestra_lib.local.control.operation_styles import COMPUTE_BASE
from orchestra_lib.local.control.operations import Record
from orchestra_lib.local.control.services import workstation_homes
from orchestra_lib.local.control.store import Stored

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_NOT_FOUND, _EXISTS = "Requested entity was not found.", "Requested entity already exists"
_ID = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
_MACHINE: Body = {"machineType": "e2-standard-4", "bootDiskSizeGb": 50}
_DISK: Body = {"diskType": "pd-standard", "reclaimPolicy": "DELETE"}
_CONFIG: Body = {
    "idleTimeout": "1200s",
    "runningTimeout": "43200s",
    "host": {
        "gceInstance": {
            **_MACHINE,
            "boostConfigs": Each(_MACHINE),
            "confidentialInstanceConfig": {},
            "shieldedInstanceConfig": {},
        }
    },
    "persistentDirectories": [{"mountPath": "/home", "gcePd": {**_DISK, "fsType": "ext4", "sizeGb": 200}}],
}
_LEAST_BOOT_DISK_GB = 30
_DISK_SIZES_GB = frozenset({10, 50, 100, 200, 500, 1000})
_LEAST_STANDARD_DISK_GB = 200
_FAST_DISKS = frozenset({"pd-balanced", "pd-ssd"})
_OPEN_PORTS = (range(22, 23), range(80, 81), range(1024, 65536))
_DAY_SECONDS = 24 * 3600
_TOKEN_SECONDS = 3600
_STOPPED, _RUNNING, _SUSPENDED = "STATE_STOPPED", "STATE_RUNNING", "STATE_SUSPENDED"
_STATES_DURING = {
    "workstations.start": "STATE_STARTING",
    "workstations.stop": "STATE_STOPPING",
    "workstations.suspend": "STATE_SUSPENDING",
}


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


# --- clusters -----------------------------------------------------------------------------------------------------


def _domain(cluster: str) -> str:
    return f"cluster-{_mark(cluster)}.cloudworkstations.dev"


def _mark(name: str) -> str:
    return f"{zlib.crc32(name.encode()):08x}"


def _fill_cluster(call: Call, body: Body, before: Body | None) -> None:
    name = body["name"]
    body["controlPlaneIp"] = (before or {}).get("controlPlaneIp") or f"10.{zlib.crc32(name.encode()) % 256}.0.2"
    private = body.setdefault("privateClusterConfig", {})
    if private.get("enablePrivateEndpoint"):
        private["clusterHostname"] = _domain(name)
        attachment = f"k8s1-sa-{_mark(name)}-cloudshell-gateway-{_mark(name)}"
        place = f"projects/{call.project}/regions/{call.location}"
        private["serviceAttachmentUri"] = f"{COMPUTE_BASE}/{place}/serviceAttachments/{attachment}"


# --- configs ------------------------------------------------------------------------------------------------------


def _check_config(call: Call, body: Body, _before: Body | None) -> None:
    host = body.get("host", {}).get("gceInstance", {})
    for machine in (host, *host.get("boostConfigs", ())):
        _check_machine(machine)
    zones = body.get("replicaZones", [])
    if zones and (len(set(zones)) != 2 or not set(zones) <= set(places.zones(call.location))):
        raise bad_field("workstation_config.replica_zones", f"Two zones of {call.location} are expected, not {zones}.")
    directories = body.get("persistentDirectories", [])
    if len(directories) > 1:
        raise bad_field("workstation_config.persistent_directories", "A workstation has one persistent directory.")
    for directory in directories:
        _check_disk(directory.get("gcePd", {}))
    for ports in body.get("allowedPorts", ()):
        first, last = ports.get("first", 0), ports.get("last", 0)
        if not any(first in known and last in known and first <= last for known in _OPEN_PORTS):
            raise bad_field("workstation_config.allowed_ports", f"Ports {first} to {last}: use 22, 80 or 1024-65535.")
    if body.get("encryptionKey") and not 0 < _seconds(body.get("runningTimeout", "43200s")) <= _DAY_SECONDS:
        words = "With a key of one's own, a workstation runs for more than 0 and at most 86400 seconds."
        raise bad_field("workstation_config.running_timeout", words)


def _check_machine(machine: Body) -> None:
    size = machine.get("bootDiskSizeGb", _LEAST_BOOT_DISK_GB)
    if size < _LEAST_BOOT_DISK_GB:
        raise bad_field("boot_disk_size_gb", f"A boot disk has at least {_LEAST_BOOT_DISK_GB} GB, not {size}.")
    kind = str(machine.get("machineType", _MACHINE["machineType"]))
    if machine.get("enableNestedVirtualization") and not kind.startswith(("n1-", "n2-")):
        raise bad_field("enable_nested_virtualization", f"Machine type {kind} has none: use an N1 or N2 machine.")


def _check_disk(disk: Body) -> None:
    if "sourceSnapshot" in disk:
        if "sizeGb" in disk or "fsType" in disk:
            raise bad_field("source_snapshot", "A disk from a snapshot has the size and file system of the snapshot.")
        return
    size = disk.get("sizeGb", _LEAST_STANDARD_DISK_GB)
    if size not in _DISK_SIZES_GB:
        raise bad_field("size_gb", f"A home disk has 10, 50, 100, 200, 500 or 1000 GB, not {size}.")
    if size < _LEAST_STANDARD_DISK_GB and disk.get("diskType", "pd-standard") not in _FAST_DISKS:
        raise bad_field("disk_type", f"A home disk of {size} GB has to be of type pd-balanced or pd-ssd.")


def _fill_config(call: Call, body: Body, _before: Body | None) -> None:
    """Two zones, the image with an editor, and the account of Cloud Workstations where nothing else was said."""
    image = f"{call.location}-docker.pkg.dev/cloud-workstations-images/predefined/code-oss:latest"
    account = f"service-{call.project_number}@gcp-sa-workstationsvm.iam.gserviceaccount.com"
    fill_missing(body, {"container": {"image": image}, "replicaZones": places.zones(call.location)[:2]})
    fill_missing(body["host"]["gceInstance"], {"serviceAccount": account})
    for directory in body["persistentDirectories"]:
        disk = directory.get("gcePd")
        directory.setdefault("mountPath", "/home")
        if disk is not None:
            fill_missing(disk, _DISK if "sourceSnapshot" in disk else {**_DISK, "fsType": "ext4", "sizeGb": 200})


# --- workstations -------------------------------------------------------------------------------------------------


def _fill_workstation(_call: Call, body: Body, _before: Body | None) -> None:
    cluster, _, name = body["name"].partition("/workstationConfigs/")
    body["host"] = f"{name.rsplit('/', 1)[1]}.{_domain(cluster)}"


def _shown_workstation(control: ControlPlane, key: str, _version: str, body: Body) -> Body:
    running = control.store.open_operation_on(key)
    state = _STATES_DURING.get(running["short_id"]) if running else None
    return {**body, "state": state} if state else body


def _workstation(call: Call) -> Stored:
    row = call.control.find(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    standard.require_idle(call, call.key)
    standard.require_etag(call, row, (call.body or {}).get("etag"))
    return row


def _gce_instance(control: ControlPlane, key: str) -> Body:
    config = control.find(key.rpartition("/workstations/")[0])
    return dict(config.body["host"]["gceInstance"]) if config else {}


def _move(verb: str, *allowed: str) -> Handler:
    """A method that takes a workstation out of one state towards another."""

    def handler(call: Call) -> Body:
        row = _workstation(call)
        if row.body["state"] not in allowed:
            wanted = " or ".join(allowed)
            raise Fault("FAILED_PRECONDITION", f"Workstation {call.path} is in {row.body['state']}, not in {wanted}.")
        machine = _machine(call)
        message_type = call.api.message_type("Workstation")
        return operations.start(call, row.key, verb, message_type=message_type, effect=verb, after=machine)

    return handler


def _machine(call: Call) -> Body:
    """What a workstation is to run on: the config's machine, or the boost that was asked for."""
    host = _gce_instance(call.control, call.key)
    boost = call.body.get("boostConfig")
    if not boost:
        return host
    chosen = next((one for one in host.get("boostConfigs", ()) if one["id"] == boost), None)
    if chosen is None:
        raise bad_field("boost_config", f"The configuration of {call.path} has no boost '{boost}'.")
    return dict(chosen)


def _started(control: ControlPlane, record: Record) -> None:
    """The end of a start. Whether a machine can have its accelerators shows when it is made, not before.

    https://cloud.google.com/compute/docs/gpus#n1-gpus
    """
    kind = record["after"].get("machineType", "")
    for card in record["after"].get("accelerators", ()):
        if card.get("type", "").startswith("nvidia-tesla-") and not kind.startswith(("n1-", "a2-", "a3-")):
            words = f"[{kind}, {card['type']}] features are not compatible for creating instance."
            raise Fault("INVALID_ARGUMENT", words)
    body = _body(control, record)
    zone, name = _zone(control, record["target"]), f"workstations-{body['uid']}"
    host = {"name": name, "id": digits(body["uid"], 19), "zone": zone}
    started = {"state": _RUNNING, "startTime": timestamp(control.clock()), "runtimeHost": {"gceInstanceHost": host}}
    _keep(control, record, {**body, **started})


def _zone(control: ControlPlane, key: str) -> str:
    config = control.find(key.rpartition("/workstations/")[0])
    return str(config.body["replicaZones"][0]) if config else ""


def _arrive(state: str) -> Effect:
    """The end of a stop or a suspension: the machine is gone."""

    def effect(control: ControlPlane, record: Record) -> None:
        body = {name: value for name, value in _body(control, record).items() if name != "runtimeHost"}
        _keep(control, record, {**body, "state": state})

    return effect


def _body(control: ControlPlane, record: Record) -> Body:
    row = control.find(record["target"])
    if row is None:
        raise not_found(control, record["target"])
    return dict(row.body)


def _keep(control: ControlPlane, record: Record, body: Body) -> None:
    endings.make_ready(control, record["version"], record["target"], dict(body))
    control.store.put(record["target"], body)


def _finish_workstation(control: ControlPlane, key: str, body: Body) -> None:
    """A workstation has its home disk; an update does not stop it."""
    workstation_homes.make_home(control, key, body)
    if "runtimeHost" in body:
        body["state"] = _RUNNING


def _access_token(call: Call) -> Body:
    row = _workstation(call)
    if row.body["state"] != _RUNNING:
        raise Fault("FAILED_PRECONDITION", f"Workstation {call.path} is in {row.body['state']}, not in {_RUNNING}.")
    until = call.now + _seconds(call.body.get("ttl", f"{_TOKEN_SECONDS}s"))
    if "expireTime" in call.body:
        until = datetime.fromisoformat(call.body["expireTime"]).timestamp()
    if not call.now < until <= call.now + _DAY_SECONDS:
        raise bad_field("expire_time", "A token is valid for at most 24 hours from now.")
    return {"accessToken": secrets.token_urlsafe(48), "expireTime": timestamp(until)}


def _kind(collection: str, **more: Any) -> Kind:
    return Kind(collection, id_pattern=_ID, not_found=_NOT_FOUND, exists=_EXISTS, **more)


SERVICE = Service(
    name="workstations",
    every=Kind("", not_found=_NOT_FOUND, exists=_EXISTS),
    kinds=(
        _kind("workstationClusters", fill=_fill_cluster, children_block=True),
        _kind(
            "workstationConfigs",
            defaults=_CONFIG,
            check=_check_config,
            fill=_fill_config,
            references={"persistentDirectories.gcePd.sourceSnapshot": "compute"},
            children_block=True,
        ),
        _kind(
            "workstations",
            states=(_STOPPED, _STOPPED, _STOPPED, "STATE_STOPPING"),
            fill=_fill_workstation,
            finish=_finish_workstation,
            show=_shown_workstation,
        ),
    ),
    methods={
        "workstationConfigs.listUsable": standard.list_,
        "workstations.generateAccessToken": _access_token,
        "workstations.listUsable": standard.list_,
        "workstations.start": _move("start", _STOPPED, _SUSPENDED),
        "workstations.stop": _move("stop", _RUNNING, _SUSPENDED),
        "workstations.suspend": _move("suspend", _RUNNING),
    },
    effects={
        "start": _started,
        "stop": _arrive(_STOPPED),
        "suspend": _arrive(_SUSPENDED),
        "delete": workstation_homes.delete,
    },
    permissions={
        "workstationConfigs.listUsable": "workstations.workstationConfigs.list",
        "workstations.generateAccessToken": "workstations.workstations.use",
        "workstations.listUsable": "workstations.workstations.list",
    },
)
