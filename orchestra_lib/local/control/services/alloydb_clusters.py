"""AlloyDB's clusters: what they are filled with, where they come from, and how they change their roles.

A secondary cluster follows a primary one in another region until it is promoted or the two switch over.
https://cloud.google.com/alloydb/docs/cross-region-replication/about-cross-region-replication
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra_lib.local.alloydb import chains, control_rows, passwords
from orchestra_lib.local.alloydb import places as data_places
from orchestra_lib.local.control import checks, endings, operations, references, shapes, standard
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field, bad_id
from orchestra_lib.local.control.kinds import Body, Each, fill_missing, not_found
from orchestra_lib.local.control.operations import Record
from orchestra_lib.local.control.services import alloydb_flags, alloydb_instances
from orchestra_lib.local.control.store import Stored

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

CLUSTERS = "alloydb/clusters"
PRIMARY, SECONDARY = "PRIMARY", "SECONDARY"
ID_PATTERN = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
GOOGLES_KEYS = {"encryptionType": "GOOGLE_DEFAULT_ENCRYPTION"}
DEFAULT_VERSION = "POSTGRES_16"
ORIGIN = "origin"
"""Under what a cluster's row hides where its data comes from."""
_MOST_SECONDARIES = 5
_RECOVERY_WINDOW_DAYS = range(1, 36)
_SHORTEST_BACKUP_WINDOW_SECONDS = 300
_EVERY_DAY = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
_COPIED_TO_SECONDARY = ("databaseVersion", "automatedBackupPolicy", "continuousBackupConfig")
_STATES_DURING = {"clusters.promote": "PROMOTING", "clusters.switchover": "SWITCHOVER"}

DEFAULTS: Body = {
    "automatedBackupPolicy": {
        "enabled": False,
        "backupWindow": "3600s",
        "weeklySchedule": {"daysOfWeek": _EVERY_DAY, "startTimes": [{"hours": 23}]},
    },
    "continuousBackupConfig": {"enabled": True, "recoveryWindowDays": 14},
    "databaseVersion": DEFAULT_VERSION,
    "geminiConfig": {},
    "maintenanceUpdatePolicy": {"maintenanceWindows": Each({"startTime": {"hours": 0}})},
    "subscriptionType": "STANDARD",
}


# --- what is refused and filled -----------------------------------------------------------------------------------


def check(_call: Call, body: Body, before: Body | None) -> None:
    """Raise Fault (400) for a cluster without a way in, or with backups as the service does not make them."""
    if before is None and not (_network(body) or body.get("pscConfig", {}).get("pscEnabled")):
        raise bad_field("cluster.network_config.network", "A cluster needs a network or Private Service Connect.")
    if before and body.get("databaseVersion") != before["databaseVersion"]:
        raise bad_field("cluster.database_version", "The version of a cluster is changed by its upgrade alone.")
    days = body.get("continuousBackupConfig", {}).get("recoveryWindowDays")
    if days is not None and days not in _RECOVERY_WINDOW_DAYS:
        words = f"The recovery window has 1 to {_RECOVERY_WINDOW_DAYS[-1]} days, not {days}."
        raise bad_field("cluster.continuous_backup_config.recovery_window_days", words)
    window = body.get("automatedBackupPolicy", {}).get("backupWindow")
    if window is not None and float(window.removesuffix("s")) < _SHORTEST_BACKUP_WINDOW_SECONDS:
        words = f"A backup window is at least {_SHORTEST_BACKUP_WINDOW_SECONDS} seconds long, not {window}."
        raise bad_field("cluster.automated_backup_policy.backup_window", words)


def fill(call: Call, body: Body, before: Body | None) -> None:
    """What follows from the region, the network, the backups and where the cluster comes from."""
    control_rows.seal_initial_user(call, body, before)
    if before is None:
        body["clusterType"] = SECONDARY if call.method.name == "createsecondary" else PRIMARY
        if source := (call.body or {}).get("backupSource"):
            backup = _found(call, source["backupName"])
            name = call.control.projects.numbered(backup.body["name"])
            body["backupSource"] = {"backupName": name, "backupUid": backup.body["uid"]}
    body["encryptionInfo"] = encryption_info(body)
    backups = body["automatedBackupPolicy"]
    fill_missing(backups, {"location": call.location})
    if "quantityBasedRetention" not in backups:
        fill_missing(backups, {"timeBasedRetention": {"retentionPeriod": "1209600s"}})
    if not body["maintenanceUpdatePolicy"]:
        del body["maintenanceUpdatePolicy"]
    _name_network(call, body, before)
    _describe_continuous_backup(call, body, before)
    mark = hashlib.sha256(body["name"].encode()).hexdigest()[:8]
    body["serviceAccountEmail"] = f"c-{call.project_number}-{mark}@gcp-sa-alloydb.iam.gserviceaccount.com"
    if body.get("pscConfig", {}).get("pscEnabled"):
        body["pscConfig"]["serviceOwnedProjectNumber"] = alloydb_instances.tenant_number(body["name"])


def encryption_info(body: Body) -> Body:
    """Whose keys a cluster or a backup is encrypted with."""
    key = body.get("encryptionConfig", {}).get("kmsKeyName")
    if not key:
        return dict(GOOGLES_KEYS)
    return {"encryptionType": "CUSTOMER_MANAGED_ENCRYPTION", "kmsKeyVersions": [f"{key}/cryptoKeyVersions/1"]}


def _network(body: Body) -> str:
    return str(body.get("networkConfig", {}).get("network") or body.get("network") or "")


def _name_network(call: Call, body: Body, before: Body | None) -> None:
    """The network stands in two fields, the older of which is deprecated, with the project's number."""
    network = _network(body) or _network(before or {})
    if network:
        numbered = call.control.projects.numbered(network)
        body["network"] = numbered
        body["networkConfig"] = {**body.get("networkConfig", {}), "network": numbered}


def _describe_continuous_backup(call: Call, body: Body, before: Body | None) -> None:
    if not body["continuousBackupConfig"]["enabled"]:
        body.pop("continuousBackupInfo", None)
        return
    body["continuousBackupInfo"] = {
        "enabledTime": (before or {}).get("continuousBackupInfo", {}).get("enabledTime", call.time),
        "encryptionInfo": encryption_info(body["continuousBackupConfig"]),
        "schedule": list(_EVERY_DAY),
    }


def finish(control: ControlPlane, key: str, body: Body) -> None:
    """A cluster that is ready has its first user."""
    control_rows.take_initial_user(control, key, body)
    body["reconciling"] = False


def shown(control: ControlPlane, key: str, _version: str, body: Body) -> Body:
    """A cluster with what follows from others and from the time: its secondaries, the earliest time to restore to."""
    if names := [row.body["name"] for row in secondaries_of(control, key)]:
        body["primaryConfig"] = {"secondaryClusterNames": names}
    if info := body.get("continuousBackupInfo"):
        window = timedelta(days=body["continuousBackupConfig"]["recoveryWindowDays"])
        earliest = max(info["enabledTime"], timestamp(control.clock() - window.total_seconds()))
        if (first := chains.earliest(data_places.storage(control.directory, body["uid"]))) is not None:
            earliest = max(earliest, timestamp(first))
        body["continuousBackupInfo"] = {**info, "earliestRestorableTime": earliest}
    running = control.store.open_operation_on(key)
    if running and running["short_id"] in _STATES_DURING:
        body.update(state=_STATES_DURING[running["short_id"]], reconciling=True)
    return body


def before_delete(call: Call, row: Stored) -> None:
    """Raise Fault (400) for a cluster that holds instances (without ``force``), or that others follow."""
    instances = alloydb_instances.of_cluster(call.control, row.key)
    if instances and not call.flag("force"):
        words = f"Cluster '{call.path}' has {len(instances)} instances. Delete them first, or use force."
        raise Fault("FAILED_PRECONDITION", words)
    if followers := secondaries_of(call.control, row.key):
        words = f"Cluster '{call.path}' has the secondary cluster '{followers[0].body['name']}'. Delete it first."
        raise Fault("FAILED_PRECONDITION", words)


# --- where clusters come from -------------------------------------------------------------------------------------


def create_secondary(call: Call) -> Body:
    """``clusters.createsecondary``: a cluster that follows another one."""
    body: Body = dict(call.body or {})
    named = body.get("secondaryConfig", {}).get("primaryClusterName")
    if not named:
        raise bad_field("cluster.secondary_config.primary_cluster_name", "A secondary cluster needs a primary one.")
    primary = _found(call, named)
    if primary.body["clusterType"] != PRIMARY:
        raise Fault("FAILED_PRECONDITION", f"Cluster '{named}' is no primary cluster.")
    if f"/locations/{call.location}/" in primary.key:
        words = f"A secondary cluster lies in another region than its primary one, not in {call.location} too."
        raise bad_field("parent", words)
    if len(secondaries_of(call.control, primary.key)) >= _MOST_SECONDARIES:
        words = f"Cluster '{named}' already has {_MOST_SECONDARIES} secondary clusters."
        raise Fault("FAILED_PRECONDITION", words)
    inherited = {name: primary.body[name] for name in _COPIED_TO_SECONDARY}
    inherited["automatedBackupPolicy"] = _without(inherited["automatedBackupPolicy"], "location")
    body["secondaryConfig"] = {"primaryClusterName": primary.body["name"]}
    key = _new_key(call, body)
    answer = standard.create_at(call, key, {**inherited, **body})
    _note_origin(call, key, {"primary": primary.body["name"]})
    return answer


def restore(call: Call) -> Body:
    """``clusters.restore``: a new cluster with the state of a backup, or of another cluster at a point in time."""
    body: Body = dict(call.body.get("cluster") or {})
    backup, moment = call.body.get("backupSource"), call.body.get("continuousBackupSource")
    if (backup is None) == (moment is None):
        raise bad_field("source", "A cluster is restored from either a backup or the continuous backup of a cluster.")
    source = _found(call, backup["backupName"]) if backup else _restorable(call, moment)
    if f"/locations/{call.location}/" not in source.key:
        raise bad_field("parent", f"A cluster is restored in the region of its source, not in {call.location}.")
    if source.body["state"] != "READY":
        raise Fault("FAILED_PRECONDITION", f"'{source.body['name']}' is in state {source.body['state']}, not READY.")
    body.pop("initialUser", None)
    body["databaseVersion"] = source.body["databaseVersion"]
    if not _network(body) and (network := _network(source.body)):
        body["networkConfig"] = {"network": network}
    key = _new_key(call, body)
    answer = standard.create_at(call, key, body)
    if backup:
        _note_origin(call, key, {"backup": source.body["name"], "backup_uid": source.body["uid"]})
        place = data_places.backup(call.control.directory, source.body["uid"])
        _take_users(call, key, source.hidden.get("users", {}), place)
    else:
        from_cluster = {"cluster": source.body["name"], "cluster_uid": source.body["uid"]}
        _note_origin(call, key, {**from_cluster, "point_in_time": moment["pointInTime"]})
        place = data_places.cluster_directory(call.control.directory, source.body["name"])
        _take_users(call, key, control_rows.users_of(call.control, source.key), place)
    return answer


def _note_origin(call: Call, key: str, origin: Body) -> None:
    """Keep where a cluster's data comes from, which the API does not tell: its data plane has to know."""
    row = call.control.find(key)
    if row is not None and not call.validate_only:
        call.control.store.put(key, row.body, {**row.hidden, ORIGIN: origin})


def _take_users(call: Call, key: str, users: dict[str, Body], passwords_in: Path) -> None:
    if not call.validate_only:
        control_rows.give_users(call.control, key, users)
        mine = data_places.cluster_directory(call.control.directory, key.split("/", 1)[1])
        passwords.copy(passwords_in, mine)


def _restorable(call: Call, moment: Body) -> Stored:
    """The cluster of a continuous backup, which has to reach back to the point in time."""
    row = _found(call, moment["cluster"])
    info = shown(call.control, row.key, call.api.version, dict(row.body)).get("continuousBackupInfo")
    if info is None:
        raise Fault("FAILED_PRECONDITION", f"Continuous backup of cluster '{moment['cluster']}' is not enabled.")
    earliest, wanted = info["earliestRestorableTime"], moment["pointInTime"]
    if not datetime.fromisoformat(earliest) <= datetime.fromisoformat(wanted) <= datetime.fromisoformat(call.time):
        words = f"The point in time has to be between {earliest} and now, not {wanted}."
        raise bad_field("continuous_backup_source.point_in_time", words)
    return row


def _new_key(call: Call, body: Body) -> str:
    identifier = shapes.new_id(call, call.control.kind(f"{call.key}/new"), body)
    if not checks.matches(ID_PATTERN, identifier):
        raise bad_id(call.service, identifier, ID_PATTERN)
    return f"{call.key}/{identifier}"


def _found(call: Call, name: str) -> Stored:
    key = references.key_of(call.control, call.service, name, call.project)
    row = call.control.find(key)
    if row is None:
        raise not_found(call.control, key)
    return row


def _without(body: Body, name: str) -> Body:
    return {key: value for key, value in body.items() if key != name}


# --- roles --------------------------------------------------------------------------------------------------------


def secondaries_of(control: ControlPlane, key: str) -> list[Stored]:
    """The clusters that follow a cluster."""
    name, project = key.split("/", 1)[1], key.split("/")[2]
    rows = control.store.below(f"alloydb/projects/{project}/", CLUSTERS)
    return [row for row in rows if row.body.get("secondaryConfig", {}).get("primaryClusterName") == name]


def promote(call: Call) -> Body:
    """``clusters.promote``: a secondary cluster becomes one of its own; replication ends."""
    row = _idle_secondary(call)
    standard.require_etag(call, row, call.body.get("etag"))
    primary = _primary_of(call, row)
    if call.flag("failover") and len(secondaries_of(call.control, primary)) > 1:
        raise Fault("FAILED_PRECONDITION", f"The primary cluster of '{call.path}' has other secondary clusters too.")
    return _started(call, "promote", _as_primary(row.body), {"failover": call.flag("failover"), "primary": primary})


def switch_over(call: Call) -> Body:
    """``clusters.switchover``: a secondary cluster and its primary one change places."""
    row = _idle_secondary(call)
    primary = _primary_of(call, row)
    if call.control.find(primary) is None:
        raise not_found(call.control, primary)
    standard.require_idle(call, primary)
    return _started(call, "switchover", _as_primary(row.body), {"failover": True, "primary": primary})


def change_roles(control: ControlPlane, record: Record) -> None:
    """The end of a promotion or a switchover."""
    row = _present(control, record["target"])
    primary = control.find(record["after"]["primary"])
    followers = secondaries_of(control, primary.key) if primary else []
    _take_role(control, record, row, _as_primary(row.body))
    if primary:
        # Users are part of the data that was replicated.
        control_rows.give_users(control, row.key, control_rows.users_of(control, primary.key))
        theirs, mine = (data_places.cluster_directory(control.directory, one.body["name"]) for one in (primary, row))
        passwords.copy(theirs, mine)
    if primary is None or not record["after"]["failover"]:
        return
    others = (other for other in followers if other.key != row.key)
    for follower in (primary, *others):
        _take_role(control, record, follower, _as_secondary(follower.body, row.body["name"]))


def _take_role(control: ControlPlane, record: Record, row: Stored, body: Body) -> None:
    """The cluster's first instance takes its role; read pools stay what they are."""
    endings.make_ready(control, record["version"], row.key, body)
    for instance in alloydb_instances.of_cluster(control, row.key):
        if instance.body["instanceType"] in (PRIMARY, SECONDARY):
            control.store.put(instance.key, alloydb_instances.in_role(instance.body, body["clusterType"]))


def _as_primary(body: Body) -> Body:
    return {**_without(body, "secondaryConfig"), "clusterType": PRIMARY}


def _as_secondary(body: Body, primary: str) -> Body:
    return {**body, "clusterType": SECONDARY, "secondaryConfig": {"primaryClusterName": primary}}


def _idle_secondary(call: Call) -> Stored:
    row = _present(call.control, call.key)
    standard.require_idle(call, call.key)
    if row.body["clusterType"] != SECONDARY:
        raise Fault("FAILED_PRECONDITION", f"Cluster '{call.path}' is no secondary cluster.")
    return row


def _primary_of(call: Call, row: Stored) -> str:
    return references.key_of(
        call.control, call.service, row.body["secondaryConfig"]["primaryClusterName"], call.project
    )


def _present(control: ControlPlane, key: str) -> Stored:
    row = control.find(key)
    if row is None:
        raise not_found(control, key)
    return row


def _started(call: Call, verb: str, body: Body, after: Body) -> Body:
    kind = call.api.message_type("Cluster")
    answer = {"@type": kind, **call.control.shown(call.api, call.key, body)} if call.validate_only else None
    return operations.start(call, call.key, verb, message_type=kind, effect="change roles", answer=answer, after=after)


# --- upgrades -----------------------------------------------------------------------------------------------------


def upgrade(call: Call) -> Body:
    """``clusters.upgrade``: a later version of PostgreSQL, in place, of a cluster and of those that follow it."""
    row = _present(call.control, call.key)
    standard.require_idle(call, call.key)
    standard.require_etag(call, row, call.body.get("etag"))
    wanted, version = call.body.get("version", ""), row.body["databaseVersion"]
    if _major(wanted) not in alloydb_flags.VERSIONS or _major(wanted) <= _major(version):
        raise bad_field("version", f"A cluster with {version} cannot be upgraded to '{wanted}'.")
    if row.body["clusterType"] == SECONDARY:
        raise Fault("FAILED_PRECONDITION", f"Cluster '{call.path}' is upgraded with its primary cluster.")
    clusters = [row, *secondaries_of(call.control, row.key)]
    kind = call.api.message_type("UpgradeClusterResponse")
    answer: dict[str, Any] = {
        "@type": kind,
        "status": "SUCCESS",
        "message": f"Upgraded from {version} to {wanted}.",
        "clusterUpgradeDetails": [_upgraded(call.control, one, wanted) for one in clusters],
    }
    return operations.start(
        call, call.key, "upgrade", message_type=kind, effect="upgrade", answer=answer, after={"version": wanted}
    )


def take_version(control: ControlPlane, record: Record) -> None:
    """The end of an upgrade."""
    row, version = _present(control, record["target"]), record["after"]["version"]
    for one in (row, *secondaries_of(control, row.key)):
        endings.make_ready(control, record["version"], one.key, {**one.body, "databaseVersion": version})
        for instance in alloydb_instances.of_cluster(control, one.key):
            name = alloydb_instances.maintenance_version(version)
            control.store.put(instance.key, {**instance.body, "maintenanceVersionName": name})


def _upgraded(control: ControlPlane, row: Stored, version: str) -> Body:
    return {
        "name": row.body["name"],
        "clusterType": row.body["clusterType"],
        "databaseVersion": version,
        "upgradeStatus": "SUCCESS",
        "instanceUpgradeDetails": [
            {"name": one.body["name"], "instanceType": one.body["instanceType"], "upgradeStatus": "SUCCESS"}
            for one in alloydb_instances.of_cluster(control, row.key)
        ],
    }


def _major(version: str) -> int:
    number = version.removeprefix("POSTGRES_")
    return int(number) if number.isdigit() else 0
