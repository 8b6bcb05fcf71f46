"""Phase 2: the workstations' cluster, configuration and image's builder, one workstation for each developer, snapshots.

Limits and meanings of fields: workstations.v1 in Google's discovery documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from orchestra_lib.blueprint import identities
from orchestra_lib.blueprint.foundation import foundation
from orchestra_lib.blueprint.identities import Identity
from orchestra_lib.blueprint.specification import Specification, specification
from orchestra_lib.cloud.home_disks import LABEL
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.errors import ParameterError
from orchestra_lib.settings import Settings
from orchestra_lib.settings.workstations import Machine, Workstations, workstation_id

USER = "roles/workstations.user"
"""Lets a person start, stop and use the one workstation that it is given on."""

BOOST = "gpu"
"""The id of the boost configuration: what a developer chooses to start with GPUs."""

IMAGE_BUILDER = "orchestra-image"
SNAPSHOT_SCHEDULE = "orchestra-homes"

_HOME = "/home"
# One image serves both machines: a boost configuration has none of its own. The same without CUDA is code-oss.
# https://cloud.google.com/workstations/docs/preconfigured-base-images
_PREDEFINED = "us-central1-docker.pkg.dev/cloud-workstations-images/predefined"
_BASES: Mapping[tuple[str, bool], str] = {("codeoss", False): "code-oss", ("codeoss", True): "code-oss-cuda"}
_BUILDER = Identity(IMAGE_BUILDER, "What Cloud Build is when it builds the workstations' image", ("logging.logWriter",))


@dataclass(frozen=True)
class Desk:
    """One developer's workstation: its id, whose it is, and the configuration that it is made from."""

    id: str
    email: str
    configuration: Resource

    @property
    def path(self) -> str:
        """The workstation's path."""
        return f"{path_of(self.configuration)}/workstations/{self.id}"


@dataclass(frozen=True)
class Restoration:
    """A home that is brought back: whose, from which snapshot, and the path of the disk that the snapshot is of."""

    email: str
    snapshot: str
    disk: str

    @property
    def id(self) -> str:
        """The id of the new workstation and of its configuration."""
        return f"restored-{self.snapshot}"[:60].rstrip("-")


@dataclass(frozen=True)
class WorkstationPlan:
    """What phase 2 wants, and what it stands on: ``foundation`` is phase 1's, as phase 1 wants it."""

    resources: tuple[Resource, ...]
    foundation: tuple[Resource, ...]
    desks: tuple[Desk, ...]
    restored: Desk | None = None


def workstations(settings: Settings, restoration: Restoration | None = None) -> WorkstationPlan:
    """Everything that phase 2 wants to exist. Raises ParameterError for what the settings lack or leave open."""
    spec, wanted, emails = specification(settings), _section(settings), _emails(settings)
    cluster = _cluster(spec, wanted)
    schedule = _snapshot_schedule(spec, wanted)
    ordinary = _configuration(spec, wanted, cluster, wanted.configuration, _new_home(wanted))
    desks = [Desk(workstation_id(email), email, ordinary) for email in emails]
    resources = [*identities.image_builder(spec, _BUILDER), cluster, schedule, ordinary]
    restored = None
    if restoration:
        snapshot = _snapshot(spec, restoration)
        home = {**_kept_home(wanted), "sourceSnapshot": f"{spec.project_path}/global/snapshots/{snapshot.id}"}
        again = _configuration(spec, wanted, cluster, restoration.id, home, (snapshot.key,))
        restored = Desk(restoration.id, restoration.email, again)
        resources += [snapshot, again]
    for desk in (*desks, *([restored] if restored else ())):
        resources += _desk(spec, desk, schedule)
    return WorkstationPlan(tuple(resources), foundation(settings, resources), tuple(desks), restored)


def asked_restoration(settings: Settings, today: date) -> tuple[str, str] | None:
    """Whose home the settings ask for, as an address, and the name of the snapshot: today's of that developer, if none
    is given. None when nothing is to be brought back. Raises ParameterError for somebody who is no developer.
    """
    asked = settings.restore.developer
    if asked is None:
        return None
    emails = _emails(settings)
    email = next((one for one in emails if asked in (one, workstation_id(one))), None)
    if email is None:
        raise ParameterError(f"restore is {asked!r}, and developers.emails has {', '.join(emails) or 'nobody'}")
    return email, settings.restore.snapshot or f"home-{workstation_id(email)}-{today:%Y%m%d}"


def image(settings: Settings) -> str:
    """The container image of the configuration: ours, once it has a tag, or Google's, which ours is built from."""
    wanted = _section(settings)
    return base_image(wanted) if wanted.image.tag is None else _own_image(specification(settings), wanted)


def base_image(wanted: Workstations) -> str:
    """Google's image: with CUDA, when one of the machines has GPUs."""
    has_gpus = any(machine.accelerator_type for machine in (wanted.development, wanted.boost))
    return f"{_PREDEFINED}/{_BASES[wanted.ide, has_gpus]}:latest"


def path_of(resource: Resource) -> str:
    """The path of a cluster, a configuration or a workstation."""
    segments = {"workstation cluster": "workstationClusters", "workstation configuration": "workstationConfigs"}
    return f"{resource.parent}/{segments[resource.kind]}/{resource.id}"


def _section(settings: Settings) -> Workstations:
    if settings.workstations is None:
        raise ParameterError(f"environment {settings.environment.name} has no section workstations")
    return settings.workstations


def _emails(settings: Settings) -> tuple[str, ...]:
    emails = settings.developers.emails if settings.developers else None
    if emails is None:
        raise ParameterError(
            f"environment {settings.environment.name} leaves open what only its owner can say: developers.emails (the "
            "addresses of those who get a workstation; [] makes the configuration and no workstation)"
        )
    return emails


def _cluster(spec: Specification, wanted: Workstations) -> Resource:
    region, name = spec.regions.primary, spec.network.name
    network = f"{spec.project_path}/global/networks/{name}"
    subnetwork = f"{spec.project_path}/regions/{region}/subnetworks/{name}-{region}"
    needs = (
        f"network:{spec.project_path}/global/{name}",
        f"subnetwork:{spec.project_path}/regions/{region}/{name}-{region}",
        f"router:{spec.project_path}/regions/{region}/{name}-{region}",
        f"firewall:{spec.project_path}/global/{name}-allow-workstation-control",
        spec.service("compute.googleapis.com").key,
    )
    body = {
        "displayName": "Orchestra workstations",
        "labels": dict(spec.labels),
        "network": network,
        "subnetwork": subnetwork,
        "privateClusterConfig": {"enablePrivateEndpoint": wanted.private_endpoint},
    }
    return spec.resource("workstation cluster", spec.location(region), wanted.cluster, body, needs)


def _configuration(
    spec: Specification,
    wanted: Workstations,
    cluster: Resource,
    id_: str,
    home: Mapping[str, Any],
    needs: tuple[str, ...] = (),
) -> Resource:
    boost = {
        "id": BOOST,
        **_machine(wanted.boost),
        "bootDiskSizeGb": wanted.boot_disk_gb,
        "poolSize": wanted.boost_pool_size,
    }
    instance = {
        **_machine(wanted.development),
        "bootDiskSizeGb": wanted.boot_disk_gb,
        "poolSize": wanted.pool_size,
        "boostConfigs": [boost],
        "serviceAccount": spec.email_of(identities.WORKSTATION),
        "disablePublicIpAddresses": True,
        "shieldedInstanceConfig": {
            "enableSecureBoot": True,
            "enableVtpm": True,
            "enableIntegrityMonitoring": True,
        },
    }
    body = {
        "labels": dict(spec.labels),
        "host": {"gceInstance": instance},
        "container": {"image": _own_image(spec, wanted) if wanted.image.tag else base_image(wanted)},
        "persistentDirectories": [{"mountPath": _HOME, "gcePd": dict(home)}],
        "replicaZones": list(wanted.replica_zones),
        # The action is left at STOP: machines with GPUs cannot be suspended.
        "idleTimeout": f"{wanted.idle_timeout_seconds}s",
        "runningTimeout": f"{wanted.running_timeout_seconds}s",
        "maxUsableWorkstations": 1,
    }
    account = identities.account(spec, identities.WORKSTATION).key
    repository = f"repository:{spec.location(spec.regions.primary)}/{spec.registry.repository}"
    needed = (cluster.key, account, repository, *needs)
    return spec.resource("workstation configuration", path_of(cluster), id_, body, needed)


def _own_image(spec: Specification, wanted: Workstations) -> str:
    host, own = f"{spec.regions.primary}-docker.pkg.dev", wanted.image
    return f"{host}/{spec.project.id}/{spec.registry.repository}/{own.name}:{own.tag}"


def _machine(machine: Machine) -> dict[str, Any]:
    if not machine.accelerator_type:
        return {"machineType": machine.machine_type}
    accelerators = [{"type": machine.accelerator_type, "count": machine.accelerator_count}]
    return {"machineType": machine.machine_type, "accelerators": accelerators}


def _kept_home(wanted: Workstations) -> dict[str, Any]:
    return {"diskType": wanted.home_disk_type, "reclaimPolicy": wanted.home_disk_reclaim}


def _new_home(wanted: Workstations) -> dict[str, Any]:
    return {**_kept_home(wanted), "sizeGb": wanted.home_disk_gb, "fsType": "ext4"}


def _snapshot_schedule(spec: Specification, wanted: Workstations) -> Resource:
    when = {"daysInCycle": 1, "startTime": f"{wanted.snapshots.start_hour_utc:02d}:00"}
    body = {
        "description": "Daily snapshots of the workstations' homes",
        "snapshotSchedulePolicy": {
            "schedule": {"dailySchedule": when},
            "retentionPolicy": {
                "maxRetentionDays": wanted.snapshots.retention_days,
                "onSourceDiskDelete": "KEEP_AUTO_SNAPSHOTS",
            },
            "snapshotProperties": {"labels": dict(spec.labels)},
        },
    }
    return spec.resource("snapshot schedule", _region(spec), SNAPSHOT_SCHEDULE, body)


def _snapshot(spec: Specification, restoration: Restoration) -> Resource:
    body = {"sourceDisk": restoration.disk}
    return spec.resource("snapshot", f"{spec.project_path}/global", restoration.snapshot, body)


def _desk(spec: Specification, desk: Desk, schedule: Resource) -> list[Resource]:
    """The workstation, its one user, and the snapshots of its home."""
    workstation = spec.resource(
        "workstation",
        path_of(desk.configuration),
        desk.id,
        # Who it belongs to is the role, not a label: an address is no label's value.
        {"displayName": desk.email, "labels": {**spec.labels, LABEL: desk.id}},
        (desk.configuration.key,),
    )
    user = spec.resource("workstation roles", desk.path, f"user:{desk.email}", {"roles": [USER]}, (workstation.key,))
    snapshots = spec.resource(
        "home schedule", _region(spec), desk.id, {"schedules": [schedule.id]}, (workstation.key, schedule.key)
    )
    return [workstation, user, snapshots]


def _region(spec: Specification) -> str:
    return f"{spec.project_path}/regions/{spec.regions.primary}"
