"""What is read back of the workstations: who may use which, what their machines are open to, what becomes of homes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from orchestra_lib.blueprint.workstations import USER, Desk, path_of
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.home_disks import home_disk
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.place import Place
from orchestra_lib.cloud.posture import BASIC_ROLES
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.evidence import Bound, Evidence, yes_or_no
from orchestra_lib.settings.workstations import Workstations

_API = "workstations.v1"
_SHIELDS = ("enableSecureBoot", "enableVtpm", "enableIntegrityMonitoring")


def read_back(
    client: Client, place: Place, region: str, wanted: Workstations, desks: Sequence[Desk], foreign: Sequence[str] = ()
) -> tuple[Evidence, ...]:
    """Evidence that each developer may use their own workstation and no other, that machines are closed, homes kept.

    ``foreign`` are paths of workstations that need not be stopped. What may not be read is a row without a value.
    """
    regional = f"projects/{place.project}/regions/{region}"
    configurations = tuple({path_of(desk.configuration): desk.configuration for desk in desks}.values())
    claims: tuple[tuple[str, Callable[[], Iterator[str]]], ...] = (
        ("configurations whose machines get public addresses", lambda: _public(client, configurations)),
        ("configurations without secure boot, vTPM or integrity monitoring", lambda: _open(client, configurations)),
        ("configurations whose homes go with their workstation", lambda: _forgetting(client, configurations, wanted)),
        ("home disks that are missing or have no snapshots", lambda: _without_snapshots(client, regional, desks)),
        ("workstations that their developer may not use", lambda: _locked_out(client, desks)),
        ("people who may use a workstation that is not theirs", lambda: _intruders(client, place, desks)),
        ("workstations that run and that we did not find running", lambda: _running(client, desks, foreign)),
    )
    return tuple(_none_of(claim, place, find) for claim, find in claims)


def endpoint_reading(client: Client, place: Place, cluster: Resource) -> Evidence:
    """Where the workstations answer. A private endpoint needs an address and a name in the network beside it."""
    claim = "private endpoint of the workstations"
    try:
        live = client.call(_API, f"{KINDS['workstation cluster'].collection}.get", path_of(cluster))
    except CloudRefused as error:
        return Evidence(claim, place.source, None, note=str(error))
    private = live.get("privateClusterConfig", {})
    if not private.get("enablePrivateEndpoint"):
        return Evidence(claim, place.source, "none: they answer on the internet, to those who may use them")
    attachment, host = private["serviceAttachmentUri"], private["clusterHostname"]
    note = (
        f"people reach it once a Private Service Connect endpoint in the network leads to {attachment} and a private "
        f"DNS zone for {host} names its address; this runbook makes neither"
    )
    return Evidence(claim, place.source, host, note=note)


def restored_home(client: Client, place: Place, region: str, original: Desk, restored: Desk) -> tuple[Evidence, ...]:
    """Evidence that a restored home is made from the snapshot, and the snapshot from the original home.

    Identity is by compute's own numbers, which are never used twice. When the original disk is gone, or the snapshot is
    of an earlier one, that is what the row says.
    """
    project, claim = f"projects/{place.project}", f"home of {restored.id}"
    regional = f"{project}/regions/{region}"
    gce_pd = restored.configuration.body["persistentDirectories"][0]["gcePd"]
    try:
        snapshot = client.call("compute.v1", "compute.snapshots.get", str(gce_pd["sourceSnapshot"]))
        first, second = home_disk(client, regional, original.id), home_disk(client, regional, restored.id)
    except CloudRefused as error:
        return (Evidence(claim, place.source, None, "", Bound("==", 1), note=str(error)),)
    if second is None:
        return (Evidence(claim, place.source, None, "", Bound("==", 1), note="there is no such disk"),)
    same_disk = first is not None and snapshot.get("sourceDiskId") == first["id"]
    return (
        yes_or_no(
            f"{claim}: made from snapshot {snapshot['name']}",
            place.source,
            second.get("sourceSnapshotId") == snapshot["id"],
            note=f"snapshot {snapshot['id']} of {snapshot['creationTimestamp']}",
        ),
        Evidence(
            f"{claim}: size",
            place.source,
            int(second["sizeGb"]),
            "GB",
            Bound(">=", int(snapshot["diskSizeGb"])),
        ),
        Evidence(
            f"{claim}: the snapshot is of",
            place.source,
            f"the present home of {original.id}"
            if same_disk
            else str(snapshot.get("sourceDisk", "a disk that is gone")),
            note=f"disk {snapshot.get('sourceDiskId', 'not known')}",
        ),
    )


def _none_of(claim: str, place: Place, find: Callable[[], Iterator[str]]) -> Evidence:
    try:
        found = list(find())
    except CloudRefused as error:
        return Evidence(claim, place.source, None, "", Bound("==", 0), note=str(error))
    return Evidence(claim, place.source, len(found), "", Bound("==", 0), note=", ".join(found[:5]))


def _live(client: Client, configuration: Resource) -> dict[str, Any]:
    return client.call(_API, f"{KINDS['workstation configuration'].collection}.get", path_of(configuration))


def _public(client: Client, configurations: Sequence[Resource]) -> Iterator[str]:
    for one in configurations:
        if not _live(client, one)["host"]["gceInstance"].get("disablePublicIpAddresses"):
            yield one.id


def _open(client: Client, configurations: Sequence[Resource]) -> Iterator[str]:
    for one in configurations:
        shields = _live(client, one)["host"]["gceInstance"].get("shieldedInstanceConfig", {})
        if not all(shields.get(name) for name in _SHIELDS):
            yield one.id


def _forgetting(client: Client, configurations: Sequence[Resource], wanted: Workstations) -> Iterator[str]:
    for one in configurations:
        policies = {row["gcePd"].get("reclaimPolicy") for row in _live(client, one).get("persistentDirectories", ())}
        if wanted.home_disk_reclaim == "RETAIN" and policies != {"RETAIN"}:
            yield one.id


def _without_snapshots(client: Client, regional: str, desks: Sequence[Desk]) -> Iterator[str]:
    for desk in desks:
        disk = home_disk(client, regional, desk.id)
        if disk is None or not disk.get("resourcePolicies"):
            yield desk.id


def _locked_out(client: Client, desks: Sequence[Desk]) -> Iterator[str]:
    for desk in desks:
        if f"user:{desk.email}" not in _users(_policy(client, "workstation", desk.path)):
            yield desk.id


def _intruders(client: Client, place: Place, desks: Sequence[Desk]) -> Iterator[str]:
    """On each workstation everybody but its developer; above them, every developer who is let into all of them."""
    for desk in desks:
        for member in sorted(_users(_policy(client, "workstation", desk.path)) - {f"user:{desk.email}"}):
            yield f"{member} on {desk.id}"
    developers = {f"user:{desk.email}" for desk in desks}
    configurations = {path_of(desk.configuration) for desk in desks}
    policies = [(path, _policy(client, "workstation configuration", path)) for path in sorted(configurations)]
    project = f"projects/{place.project}"
    method_id = "cloudresourcemanager.projects.getIamPolicy"
    policies.append((project, client.call("cloudresourcemanager.v3", method_id, f"{project}:getIamPolicy", body={})))
    for path, policy in policies:
        for member in sorted(_users(policy) & developers):
            yield f"{member} on {path.rsplit('/', 1)[1]}"


def _policy(client: Client, kind: str, path: str) -> dict[str, Any]:
    return client.call(_API, f"{KINDS[kind].collection}.getIamPolicy", f"{path}:getIamPolicy")


def _users(policy: dict[str, Any]) -> set[str]:
    """Those to whom a policy gives a role with which workstations are used."""
    prefix = USER.rpartition(".")[0]
    return {
        member
        for row in policy.get("bindings", ())
        if row["role"].startswith(f"{prefix}.") or row["role"] in BASIC_ROLES
        for member in row["members"]
    }


def _running(client: Client, desks: Sequence[Desk], foreign: Sequence[str]) -> Iterator[str]:
    for desk in desks:
        live = client.call(_API, f"{KINDS['workstation'].collection}.get", desk.path)
        if desk.path not in foreign and live["state"] != "STATE_STOPPED":
            yield f"{desk.id} is {live['state']}"
