"""Cloud Logging: buckets, sinks, metrics, exclusions, links. https://cloud.google.com/logging/docs/reference/v2/rest"""

from __future__ import annotations

from typing import Any

from orchestra_lib.local.control.call import timestamp
from orchestra_lib.local.control.kinds import Kind, Service
from orchestra_lib.local.control.operation_styles import in_numbered_location
from orchestra_lib.local.control.operations import Record, Style


def _link_metadata(_control: Any, record: Record) -> dict[str, Any]:
    path = record["target"].split("/", 1)[1]
    parent, _, identifier = path.rpartition("/links/")
    request = (
        {"createLinkRequest": {"parent": parent, "linkId": identifier}}
        if record["verb"] == "create"
        else {"deleteLinkRequest": {"name": path}}
    )
    result = {
        "@type": "type.googleapis.com/google.logging.v2.LinkMetadata",
        "startTime": timestamp(record["started"]),
        "state": "OPERATION_STATE_SUCCEEDED" if record["ended"] is not None else "OPERATION_STATE_SCHEDULED",
        **request,
    }
    if record["ended"] is not None:
        result["endTime"] = timestamp(record["ended"])
    return result


SERVICE = Service(
    name="logging",
    kinds=(
        Kind("buckets", not_found="Bucket `{id}` in location `{location}` does not exist"),
        Kind("exclusions", short_name=True, not_found="Exclusion {path} does not exist"),
        Kind("links", not_found="{path} does not exist"),
        Kind("metrics", short_name=True, upsert=True, not_found="Metric {id} does not exist."),
        Kind("sinks", short_name=True, not_found="Sink {id} does not exist"),
    ),
    operations=Style(in_numbered_location, _link_metadata),
)
