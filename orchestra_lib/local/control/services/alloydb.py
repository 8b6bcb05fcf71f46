"""AlloyDB for PostgreSQL: clusters, instances, backups, users. https://cloud.google.com/alloydb/docs/reference/rest"""

from __future__ import annotations

import hashlib
from typing import Any

from orchestra_lib.local.alloydb import control_rows
from orchestra_lib.local.control import places
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.kinds import Body, Kind, Service, fill_missing
from orchestra_lib.local.control.operation_styles import full, in_location
from orchestra_lib.local.control.operations import Style

_EVERY_DAY = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
_GOOGLES_KEYS = {"encryptionType": "GOOGLE_DEFAULT_ENCRYPTION"}
_CLUSTER: Body = {
    "automatedBackupPolicy": {
        "enabled": False,
        "backupWindow": "3600s",
        "weeklySchedule": {"daysOfWeek": _EVERY_DAY, "startTimes": [{"hours": 23}]},
    },
    "clusterType": "PRIMARY",
    "continuousBackupConfig": {"enabled": True, "recoveryWindowDays": 14},
    "databaseVersion": "POSTGRES_16",
    "encryptionInfo": _GOOGLES_KEYS,
    "geminiConfig": {},
    "subscriptionType": "STANDARD",
}
_INSTANCE: Body = {
    "activationPolicy": "ALWAYS",
    "availabilityType": "REGIONAL",
    "clientConnectionConfig": {"sslConfig": {"sslMode": "ENCRYPTED_ONLY"}},
    "geminiConfig": {},
    "observabilityConfig": {
        "assistiveExperiencesEnabled": False,
        "enabled": False,
        "maxQueryStringLength": 10_240,
        "preserveComments": False,
        "queryPlansPerMinute": 20,
        "recordApplicationTags": False,
        "trackActiveQueries": False,
        "trackClientAddress": False,
        "trackWaitEventTypes": True,
        "trackWaitEvents": True,
    },
    "queryInsightsConfig": {
        "queryPlansPerMinute": 5,
        "queryStringLength": 1_024,
        "recordApplicationTags": False,
        "recordClientAddress": False,
    },
}


def _fill_cluster(call: Call, body: Body, before: Body | None) -> None:
    control_rows.seal_initial_user(call, body, before)
    backups = body["automatedBackupPolicy"]
    fill_missing(backups, {"location": call.location})
    if "quantityBasedRetention" not in backups:
        fill_missing(backups, {"timeBasedRetention": {"retentionPeriod": "1209600s"}})
    _name_network(call, body, before)
    if body["continuousBackupConfig"]["enabled"]:
        enabled = (before or {}).get("continuousBackupInfo", {}).get("enabledTime", call.time)
        body["continuousBackupInfo"] = {
            "enabledTime": enabled,
            "encryptionInfo": _GOOGLES_KEYS,
            "schedule": list(_EVERY_DAY),
        }
    else:
        body.pop("continuousBackupInfo", None)
    mark = hashlib.sha256(body["name"].encode()).hexdigest()[:8]
    body["serviceAccountEmail"] = f"c-{call.project_number}-{mark}@gcp-sa-alloydb.iam.gserviceaccount.com"


def _name_network(call: Call, body: Body, before: Body | None) -> None:
    """The network stands in two fields, the older of which is deprecated, with the project's number."""
    network = body.get("networkConfig", {}).get("network") or body.get("network") or (before or {}).get("network")
    if network:
        numbered = call.control.projects.numbered(network)
        body["network"] = numbered
        body["networkConfig"] = {**body.get("networkConfig", {}), "network": numbered}


def _fill_instance(call: Call, body: Body, _before: Body | None) -> None:
    zones = places.zones(call.location)
    pooler = body.get("connectionPoolConfig", {})
    if pooler.get("enabled"):
        pooler["poolerCount"] = 1
    pool = body.get("instanceType") == "READ_POOL"
    if not zones or pool:
        return
    body.setdefault("writableNode", {"zoneId": body.get("gceZone") or zones[0]})
    if body["availabilityType"] == "ZONAL":
        body.pop("nodes", None)
    else:
        body.setdefault("nodes", [{"zoneId": zones[1]}])


def _finish_cluster(control: Any, key: str, body: Body) -> None:
    control_rows.take_initial_user(control, key, body)
    body["reconciling"] = False


def _finish_instance(control: Any, key: str, body: Body) -> None:
    control_rows.give_address(control, key, body)
    body["reconciling"] = False


SERVICE = Service(
    name="alloydb",
    every=Kind("", etag=False, optional=frozenset({"network"})),
    kinds=(
        Kind(
            "clusters",
            etag=False,
            optional=frozenset({"network"}),
            defaults=_CLUSTER,
            fill=_fill_cluster,
            finish=_finish_cluster,
        ),
        Kind("instances", etag=False, defaults=_INSTANCE, fill=_fill_instance, finish=_finish_instance),
        Kind(
            "users",
            etag=False,
            defaults={"userType": control_rows.BUILT_IN},
            check=control_rows.check_user,
            fill=control_rows.seal_password,
            finish=control_rows.take_password,
            before_delete=control_rows.forget_password,
            built_in=control_rows.first_user,
        ),
    ),
    methods={
        "clusters.generateClientCertificate": control_rows.generate_client_certificate,
        "instances.getConnectionInfo": control_rows.connection_info,
    },
    operations=Style(in_location, full(cancellation=True), says_not_done=True),
)
