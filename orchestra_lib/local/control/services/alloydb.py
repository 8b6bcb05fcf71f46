"""AlloyDB for PostgreSQL: clusters, instances, backups, users. https://cloud.google.com/alloydb/docs/reference/rest"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestra_lib.local.alloydb import backups, control_rows, passwords, places
from orchestra_lib.local.alloydb.roles import GROUP_OF_IAM_USERS
from orchestra_lib.local.control import references, standard
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service, not_found
from orchestra_lib.local.control.operation_styles import full, in_location
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.services import alloydb_clusters as clusters
from orchestra_lib.local.control.services import alloydb_data_plane as data_plane
from orchestra_lib.local.control.services import alloydb_flags
from orchestra_lib.local.control.services import alloydb_instances as instances

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

# https://cloud.google.com/alloydb/docs/backup/overview
_BACKUPS_KEPT_FOR_SECONDS = 365 * 24 * 3600


# --- backups ------------------------------------------------------------------------------------------------------


def _fill_backup(call: Call, body: Body, before: Body | None) -> None:
    if before:
        if body["clusterName"] != before["clusterName"]:
            raise bad_field("backup.cluster_name", "The cluster of a backup cannot be changed.")
        return
    key = references.key_of(call.control, call.service, body["clusterName"], call.project)
    row = call.control.find(key)
    if row is None:
        raise not_found(call.control, key)
    if f"/locations/{call.location}/" not in key:
        raise bad_field("backup.cluster_name", f"A backup lies in the region of its cluster, not in {call.location}.")
    body["clusterName"] = row.body["name"]
    body["clusterUid"] = row.body["uid"]
    body["databaseVersion"] = row.body["databaseVersion"]
    body["encryptionInfo"] = clusters.encryption_info(body)
    body["expiryTime"] = timestamp(call.now + _BACKUPS_KEPT_FOR_SECONDS)


def _finish_backup(control: ControlPlane, _key: str, body: Body) -> None:
    body.setdefault("createCompletionTime", timestamp(control.clock()))
    body.setdefault("sizeBytes", str(backups.size_bytes(places.backup(control.directory, body["uid"]))))
    body["reconciling"] = False


def _create_backup(call: Call) -> Body:
    """``backups.create``: the users of the cluster are a part of its data."""
    answer = standard.create(call)
    row = None if call.validate_only else call.control.find(f"{call.key}/{call.query['backupId']}")
    if row is not None:
        cluster = row.body["clusterName"]
        users = control_rows.users_of(call.control, f"{call.service}/{cluster}")
        call.control.store.put(row.key, row.body, {**row.hidden, "users": users})
        source = places.cluster_directory(call.control.directory, cluster)
        passwords.copy(source, places.backup(call.control.directory, row.body["uid"]))
    return answer


# --- users ------------------------------------------------------------------------------------------------------------


def _create_user(call: Call) -> Body:
    """``users.create``: a user that is there already is changed, as the service was seen to do."""
    body: Body = dict(call.body or {})
    row = call.control.find(f"{call.key}/{call.query.get('userId', '')}")
    if row is None:
        return standard.create(call)
    if body.pop("keepExtraRoles", False):
        body["databaseRoles"] = [*row.body.get("databaseRoles", ()), *body.get("databaseRoles", ())]
    return standard.update_to(call, row, {"userType": row.body["userType"], **body})


def _fill_user(call: Call, body: Body, before: Body | None) -> None:
    control_rows.seal_password(call, body, before)
    roles = set(body.get("databaseRoles", ()))
    if body["userType"] == control_rows.IAM_USER:
        roles.add(GROUP_OF_IAM_USERS)
    if roles:
        body["databaseRoles"] = sorted(roles)


# --- operations ---------------------------------------------------------------------------------------------------


def _metadata(control: ControlPlane, record: Record) -> dict[str, Any]:
    """What a secondary is made by has a verb of its own."""
    metadata = full(cancellation=True)(control, record) or {}
    made_secondary = record["short_id"].endswith(".createsecondary")
    return {**metadata, "verb": "createsecondary"} if made_secondary else metadata


SERVICE = Service(
    name="alloydb",
    every=Kind("", etag=False, optional=frozenset({"network"})),
    kinds=(
        Kind(
            "clusters",
            etag=False,
            id_pattern=clusters.ID_PATTERN,
            optional=frozenset({"network"}),
            defaults=clusters.DEFAULTS,
            check=clusters.check,
            fill=clusters.fill,
            finish=clusters.finish,
            show=clusters.shown,
            before_delete=clusters.before_delete,
        ),
        Kind(
            "instances",
            etag=False,
            id_pattern=clusters.ID_PATTERN,
            defaults=instances.DEFAULTS,
            check=instances.check,
            fill=instances.fill,
            finish=instances.finish,
            before_delete=instances.before_delete,
        ),
        Kind(
            "backups",
            etag=False,
            id_pattern=clusters.ID_PATTERN,
            defaults={"type": "ON_DEMAND"},
            fill=_fill_backup,
            finish=_finish_backup,
        ),
        Kind(
            "users",
            etag=False,
            defaults={"userType": control_rows.BUILT_IN},
            check=control_rows.check_user,
            fill=_fill_user,
            finish=control_rows.take_password,
            before_delete=control_rows.forget_password,
            built_in=control_rows.first_user,
        ),
    ),
    methods={
        "backups.create": _create_backup,
        "clusters.createsecondary": clusters.create_secondary,
        "clusters.generateClientCertificate": control_rows.generate_client_certificate,
        "clusters.promote": clusters.promote,
        "clusters.restore": clusters.restore,
        "clusters.switchover": clusters.switch_over,
        "clusters.upgrade": clusters.upgrade,
        "users.create": _create_user,
        "supportedDatabaseFlags.list": alloydb_flags.list_supported,
        **instances.METHODS,
    },
    effects={
        "change roles": clusters.change_roles,
        "fail over": instances.swap_nodes,
        "upgrade": clusters.take_version,
    },
    awaits=data_plane.awaits,
    data_plane={"GET": data_plane.wanted, "POST": data_plane.report},
    operations=Style(in_location, _metadata, says_not_done=True),
    permissions={
        "clusters.createsecondary": "alloydb.clusters.create",
        "clusters.restore": "alloydb.clusters.create",
        "instances.createsecondary": "alloydb.instances.create",
        "instances.getConnectionInfo": "alloydb.instances.connect",
    },
)
