"""Cloud Build: triggers, builds, worker pools. https://cloud.google.com/build/docs/api/reference/rest"""

from __future__ import annotations

from typing import Any

from orchestra_lib.local.control.call import timestamp
from orchestra_lib.local.control.kinds import Kind, Service
from orchestra_lib.local.control.operation_styles import below_target
from orchestra_lib.local.control.operations import Record, Style


def _metadata(control: Any, record: Record) -> dict[str, Any]:
    noun = record["type"].rsplit(".", 1)[1]
    result = {
        "@type": f"{record['type'].rsplit('.', 1)[0]}.{record['verb'].capitalize()}{noun}OperationMetadata",
        "createTime": timestamp(record["started"]),
        noun[0].lower() + noun[1:]: control.projects.numbered(record["target"].split("/", 1)[1]),
    }
    if record["ended"] is not None:
        result["completeTime"] = timestamp(record["ended"])
    return result


SERVICE = Service(
    name="cloudbuild",
    kinds=(Kind("workerPools", number_in_name=True),),
    operations=Style(below_target, _metadata),
)
