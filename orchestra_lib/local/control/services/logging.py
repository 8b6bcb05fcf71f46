"""Cloud Logging: buckets, sinks, metrics, exclusions, links. https://cloud.google.com/logging/docs/reference/v2/rest

What every project, folder and organisation has from the start is described in
https://cloud.google.com/logging/docs/store-log-entries
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra_lib.local.control import log_entries, standard
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service, fill_missing, not_found
from orchestra_lib.local.control.operation_styles import in_numbered_location
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.store import Stored

_ID = "[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_NEVER_SHORTER = 400
_DEFAULT_RETENTION_DAYS = 30
_WRITER_WITHOUT_PARENT = "serviceAccount:cloud-logs@system.gserviceaccount.com"
_AUDIT_LOGS = tuple(
    f'LOG_ID("{audit}.googleapis.com/{log}")'
    for log in ("activity", "system_event", "access_transparency")
    for audit in ("cloudaudit", "externalaudit")
)
_CONTAINERS = {"projects": "", "folders": "folder-", "organizations": "org-", "billingAccounts": "billing-"}
_MANAGED = frozenset({"_Default", "_Required"})


# --- what there is from the start ---------------------------------------------------------------------------------


def _container(key: str) -> tuple[str, str]:
    """``("projects", "p")`` of a key below it."""
    parts = key.split("/")
    return (parts[1], parts[2]) if len(parts) > 2 else ("", "")


def _built_in_buckets(_control: Any, parent: str) -> Mapping[str, Body]:
    if not parent.endswith("/locations/global"):
        return {}
    path = parent.split("/", 1)[1]
    return {
        "_Default": {
            "name": f"{path}/buckets/_Default",
            "description": "Default bucket",
            "retentionDays": _DEFAULT_RETENTION_DAYS,
            "lifecycleState": "ACTIVE",
        },
        "_Required": {
            "name": f"{path}/buckets/_Required",
            "description": "Audit bucket",
            "retentionDays": _NEVER_SHORTER,
            "locked": True,
            "lifecycleState": "ACTIVE",
        },
    }


def _built_in_sinks(_control: Any, parent: str) -> Mapping[str, Body]:
    kind, container = _container(parent)
    if kind not in _CONTAINERS:
        return {}
    filters = {
        "_Default": " AND ".join(f"NOT {log}" for log in _AUDIT_LOGS),
        "_Required": " OR ".join(_AUDIT_LOGS),
    }
    return {
        name: {
            "name": name,
            "resourceName": f"{kind}/{container}/sinks/{name}",
            "destination": f"logging.googleapis.com/{kind}/{container}/locations/global/buckets/{name}",
            "filter": text,
        }
        for name, text in filters.items()
    }


def _built_in_views(control: Any, parent: str) -> Mapping[str, Body]:
    bucket, path = parent.rsplit("/", 1)[1], parent.split("/", 1)[1]
    if control.find(parent) is None:
        return {}
    views: dict[str, Body] = {
        "_AllLogs": {"name": f"{path}/views/_AllLogs", "description": "Default view, includes all logs"}
    }
    if bucket == "_Default":
        views["_Default"] = {
            "name": f"{path}/views/_Default",
            "description": "Default view, includes all logs except data access audit logs",
            "filter": 'NOT LOG_ID("cloudaudit.googleapis.com/data_access") '
            'AND NOT LOG_ID("externalaudit.googleapis.com/data_access")',
        }
    return views


def _refuse_managed(_call: Call, row: Stored) -> None:
    name = row.key.rsplit("/", 1)[1]
    if name in _MANAGED:
        noun = row.key.split("/")[-2].removesuffix("s")
        raise bad_field("name", f"The {noun} {name} is managed by Cloud Logging and cannot be deleted.")


# --- buckets and links --------------------------------------------------------------------------------------------


def _check_bucket(call: Call, body: Body, before: Body | None) -> None:
    name = call.path.rsplit("/", 1)[1]
    if before and name == "_Required":
        raise bad_field("name", "The bucket _Required cannot be changed.")
    if before and before.get("locked") and body.get("retentionDays") != before.get("retentionDays"):
        raise Fault("FAILED_PRECONDITION", "The retention period of a locked bucket cannot be changed.")
    if before and before.get("analyticsEnabled") and not body.get("analyticsEnabled"):
        raise Fault("FAILED_PRECONDITION", "Log analytics cannot be disabled once it is enabled.")


def _fill_bucket(_call: Call, body: Body, before: Body | None) -> None:
    body["retentionDays"] = body.get("retentionDays") or _DEFAULT_RETENTION_DAYS
    body["lifecycleState"] = "ACTIVE"
    if not body.get("locked"):
        body.pop("locked", None)
    if before and "createTime" not in before:
        body.pop("createTime", None)


def _delete_bucket(call: Call) -> Body:
    """A deleted bucket goes on taking logs for seven days, in which it can be brought back."""
    row = call.control.find(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    _refuse_managed(call, row)
    if call.control.rows_in(f"{call.key}/links"):
        raise Fault("FAILED_PRECONDITION", f"Bucket `{call.path.rsplit('/', 1)[1]}` has links. Delete them first.")
    body = {**row.body, "lifecycleState": "DELETE_REQUESTED", "updateTime": call.time}
    call.control.store.put(call.key, body)
    call.control.store.mark_deleted(call.key, call.now)
    return {}


def _undelete_bucket(call: Call) -> Body:
    row = call.control.find(call.key, even_deleted=True)
    if row is None:
        raise not_found(call.control, call.key)
    if row.deleted_at is None:
        raise Fault("FAILED_PRECONDITION", f"Bucket {call.path} is not deleted.")
    call.control.store.put(call.key, {**row.body, "lifecycleState": "ACTIVE", "updateTime": call.time})
    return {}


def _fill_link(call: Call, body: Body, _before: Body | None) -> None:
    dataset = f"bigquery.googleapis.com/projects/{call.project}/datasets/{body['name'].rsplit('/', 1)[1]}"
    body["bigqueryDataset"] = {"datasetId": dataset}
    body["lifecycleState"] = "ACTIVE"


def _check_link(call: Call, _body: Body, _before: Body | None) -> None:
    bucket = call.control.find(call.key.rpartition("/")[0])
    if bucket and not bucket.body.get("analyticsEnabled"):
        raise Fault("FAILED_PRECONDITION", "A link needs a bucket that has log analytics enabled.")


# --- sinks --------------------------------------------------------------------------------------------------------


def _check_sink(_call: Call, _body: Body, before: Body | None) -> None:
    if before and before["name"] == "_Required":
        raise bad_field("sinkName", "The sink _Required cannot be changed.")


def _fill_sink(call: Call, body: Body, before: Body | None) -> None:
    kind, container = _container(call.key)
    body["resourceName"] = f"{kind}/{container}/sinks/{body['name']}"
    writer = _writer(call, body, (before or {}).get("writerIdentity"))
    body.pop("writerIdentity", None)
    if writer:
        body["writerIdentity"] = writer


def _writer(call: Call, sink: Body, before: str | None) -> str | None:
    """Who writes to the destination; nobody has to where it is a bucket of the same project."""
    kind, container = _container(call.key)
    own_bucket = f"logging.googleapis.com/{kind}/{container}/locations/"
    if sink["destination"].startswith(own_bucket):
        return None
    custom = call.query.get("customWriterIdentity")
    if custom:
        return custom if custom.startswith("serviceAccount:") else f"serviceAccount:{custom}"
    if kind != "projects" or call.flag("uniqueWriterIdentity"):
        return f"serviceAccount:{_service_account(call)}"
    return before or _WRITER_WITHOUT_PARENT


def _service_account(call: Call) -> str:
    """The account of Cloud Logging in the container of the path."""
    kind, container = _container(call.key)
    number = call.project_number if kind == "projects" else container.lower()
    return f"service-{_CONTAINERS[kind]}{number}@gcp-sa-logging.iam.gserviceaccount.com"


# --- metrics ------------------------------------------------------------------------------------------------------


def _fill_metric(call: Call, body: Body, _before: Body | None) -> None:
    body["resourceName"] = f"projects/{call.project}/metrics/{body['name']}"
    kind = f"logging.googleapis.com/user/{body['name']}"
    descriptor = {
        name: value
        for name, value in body.get("metricDescriptor", {}).items()
        if name not in ("launchStage", "metadata", "description")
    }
    fill_missing(descriptor, {"metricKind": "DELTA", "valueType": "INT64", "unit": "1"})
    descriptor |= {"type": kind, "name": f"projects/{call.project}/metricDescriptors/{kind}"}
    if "description" in body:
        descriptor["description"] = body["description"]
    for label in descriptor.get("labels", ()):
        if label.get("valueType") == "STRING":  # the zero of its enum, which is not written
            del label["valueType"]
    body["metricDescriptor"] = descriptor


def _check_metric(_call: Call, body: Body, _before: Body | None) -> None:
    declared = {label.get("key") for label in body.get("metricDescriptor", {}).get("labels", ())}
    extracted = set(body.get("labelExtractors", {}))
    if declared != extracted:
        odd = ", ".join(sorted(str(name) for name in declared ^ extracted))
        raise bad_field("labelExtractors", f"Labels and label extractors have to have the same keys; not so: {odd}.")
    if body.get("metricDescriptor", {}).get("valueType") == "DISTRIBUTION" and not body.get("valueExtractor"):
        raise bad_field("valueExtractor", "A metric of value type DISTRIBUTION needs a value extractor.")


# --- settings -----------------------------------------------------------------------------------------------------


def _get_settings(call: Call) -> Body:
    kind, container = _container(call.key)
    singleton = call.segments[-1]
    row = call.control.store.get(call.key)
    account = _service_account(call)
    number = call.project_number or container
    fixed = {"name": f"{kind}/{number}/{singleton}"}
    kms_account = f"service-{_CONTAINERS[kind]}{number}@gcp-sa-logging.iam.gserviceaccount.com"
    if singleton == "settings":
        fixed |= {"kmsServiceAccountId": kms_account, "loggingServiceAccountId": account}
    else:
        fixed["serviceAccountId"] = kms_account
    return {**(row.body if row else {}), **fixed}


def _update_settings(call: Call) -> Body:
    row = call.control.store.get(call.key)
    mask = [part for part in call.query.get("updateMask", "").split(",") if part]
    given = {name: value for name, value in call.body.items() if not mask or name in mask}
    call.control.store.put(call.key, {**(row.body if row else {}), **given})
    return _get_settings(call)


# --- operations ---------------------------------------------------------------------------------------------------


def _metadata(_control: Any, record: Record) -> Body:
    path, verb = record["target"].split("/", 1)[1], record["verb"]
    parent, collection, identifier = path.rsplit("/", 2)
    noun = "Link" if collection == "links" else "Bucket"
    request = {
        "create": {"parent": parent, f"{noun.lower()}Id": identifier},
        "update": {"name": path},
        "delete": {"name": path},
    }[verb]
    result = {
        "@type": f"type.googleapis.com/google.logging.v2.{noun}Metadata",
        "startTime": timestamp(record["started"]),
        "state": "OPERATION_STATE_SUCCEEDED" if record["ended"] is not None else "OPERATION_STATE_SCHEDULED",
        f"{verb}{noun}Request": request,
    }
    if record["ended"] is not None:
        result["endTime"] = timestamp(record["ended"])
    if record["error"]:
        result["state"] = "OPERATION_STATE_FAILED"
    return result


SERVICE = Service(
    name="logging",
    kinds=(
        Kind(
            "buckets",
            check=_check_bucket,
            fill=_fill_bucket,
            built_in=_built_in_buckets,
            id_pattern=_ID,
            not_found="Bucket `{id}` in location `{location}` does not exist",
            exists="Bucket `{id}` in location `{location}` already exists",
        ),
        Kind("exclusions", short_name=True, id_pattern=_ID, not_found="Exclusion {path} does not exist"),
        Kind(
            "links",
            check=_check_link,
            fill=_fill_link,
            not_found="{path} does not exist",
            exists="{path} already exists",
        ),
        Kind(
            "metrics",
            check=_check_metric,
            fill=_fill_metric,
            short_name=True,
            upsert=True,
            not_found="Metric {id} does not exist.",
            exists="Metric {id} already exists.",
        ),
        Kind(
            "sinks",
            check=_check_sink,
            fill=_fill_sink,
            built_in=_built_in_sinks,
            before_delete=_refuse_managed,
            short_name=True,
            id_pattern=_ID,
            not_found="Sink {id} does not exist",
            exists="Sink {id} already exists",
        ),
        Kind(
            "views",
            built_in=_built_in_views,
            id_pattern="[A-Za-z0-9_-]{1,100}",
            not_found="View `{id}` does not exist",
        ),
    ),
    methods={
        "buckets.delete": _delete_bucket,
        "buckets.undelete": _undelete_bucket,
        "buckets.createAsync": standard.create,
        "buckets.updateAsync": standard.update,
        **{
            f"{container}.{verb}{name}": handler
            for container in ("logging", *_CONTAINERS)
            for verb, handler in (("get", _get_settings), ("update", _update_settings))
            for name in ("Settings", "CmekSettings")
        },
        **log_entries.METHODS,
    },
    operations=Style(in_numbered_location, _metadata),
)
