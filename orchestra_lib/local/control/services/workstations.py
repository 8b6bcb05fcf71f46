"""Cloud Workstations: clusters, configs, workstations. https://cloud.google.com/workstations/docs/reference/rest"""

from __future__ import annotations

import zlib
from typing import Any

from orchestra_lib.local.control import operations, places, standard
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body, Effect, Handler, Kind, Service, fill_missing, not_found
from orchestra_lib.local.control.operations import Record

_NOT_FOUND, _EXISTS = "Requested entity was not found.", "Requested entity already exists"
_CONFIG: Body = {
    "idleTimeout": "1200s",
    "runningTimeout": "43200s",
    "host": {
        "gceInstance": {
            "machineType": "e2-standard-4",
            "bootDiskSizeGb": 50,
            "confidentialInstanceConfig": {},
            "shieldedInstanceConfig": {},
        }
    },
}


def _mark(body: Body) -> str:
    return f"{zlib.crc32(body['name'].encode()):08x}"


def _fill_cluster(call: Call, body: Body, before: Body | None) -> None:
    body["controlPlaneIp"] = (before or {}).get("controlPlaneIp") or f"10.{zlib.crc32(body['name'].encode()) % 256}.0.2"
    private = body.setdefault("privateClusterConfig", {})
    if private.get("enablePrivateEndpoint"):
        mark = _mark(body)
        private["clusterHostname"] = f"cluster-{mark}.cloudworkstations.dev"
        attachment = f"serviceAttachments/k8s1-sa-{mark}-cloudshell-gateway-{mark}"
        base = f"https://www.googleapis.com/compute/v1/projects/{call.project}/regions/{call.location}"
        private["serviceAttachmentUri"] = f"{base}/{attachment}"


def _fill_config(call: Call, body: Body, _before: Body | None) -> None:
    """Two zones, the image with an editor, and the account of Cloud Workstations where nothing else was said."""
    image = f"{call.location}-docker.pkg.dev/cloud-workstations-images/predefined/code-oss:latest"
    account = f"service-{call.project_number}@gcp-sa-workstationsvm.iam.gserviceaccount.com"
    fill_missing(body, {"container": {"image": image}, "replicaZones": places.zones(call.location)[:2]})
    fill_missing(body["host"]["gceInstance"], {"serviceAccount": account})


def _fill_workstation(call: Call, body: Body, _before: Body | None) -> None:
    cluster = call.segments[5]
    workstation = body["name"].rsplit("/", 1)[1]
    body["host"] = f"{workstation}.cluster-{zlib.crc32(cluster.encode()):08x}.cloudworkstations.dev"


# --- starting and stopping ----------------------------------------------------------------------------------------


def _move(verb: str, allowed: str, meanwhile: str) -> Handler:
    """A method that takes a workstation out of one state towards another."""

    def handler(call: Call) -> Body:
        row = call.control.find(call.key)
        if row is None:
            raise not_found(call.control, call.key)
        standard.require_idle(call, call.key)
        if row.body["state"] != allowed:
            raise Fault("FAILED_PRECONDITION", f"Workstation {call.path} is in {row.body['state']}, not in {allowed}.")
        message_type = call.api.message_type("Workstation")
        if not call.validate_only:
            call.control.store.put(row.key, {**row.body, "state": meanwhile})
        return operations.start(call, row.key, verb, message_type=message_type, effect=verb)

    return handler


def _arrive(state: str) -> Effect:
    def effect(control: Any, record: Record) -> None:
        row = control.find(record["target"])
        if row is None:
            raise not_found(control, record["target"])
        control.store.put(row.key, {**row.body, "state": state})

    return effect


SERVICE = Service(
    name="workstations",
    every=Kind("", not_found=_NOT_FOUND, exists=_EXISTS),
    kinds=(
        Kind("workstationClusters", fill=_fill_cluster, not_found=_NOT_FOUND, exists=_EXISTS),
        Kind("workstationConfigs", defaults=_CONFIG, fill=_fill_config, not_found=_NOT_FOUND, exists=_EXISTS),
        Kind(
            "workstations",
            states=("STATE_STARTING", "STATE_STOPPED", "STATE_STOPPED", "STATE_STOPPING"),
            fill=_fill_workstation,
            not_found=_NOT_FOUND,
            exists=_EXISTS,
        ),
    ),
    methods={
        "workstations.start": _move("start", "STATE_STOPPED", "STATE_STARTING"),
        "workstations.stop": _move("stop", "STATE_RUNNING", "STATE_STOPPING"),
    },
    effects={"start": _arrive("STATE_RUNNING"), "stop": _arrive("STATE_STOPPED")},
)
