"""Cloud Monitoring: alert policies, dashboards, services, uptime checks. https://cloud.google.com/monitoring/api/ref_v3/rest"""

from __future__ import annotations

from typing import Any

from orchestra_lib.local.control.call import timestamp
from orchestra_lib.local.control.kinds import Kind, Service
from orchestra_lib.local.control.operation_styles import bare
from orchestra_lib.local.control.operations import Record, Style


def _metadata(_control: Any, record: Record) -> dict[str, Any]:
    at = timestamp(record["started"])
    return {
        "@type": "type.googleapis.com/google.monitoring.metricsscope.v1.OperationMetadata",
        "createTime": at,
        "state": "DONE" if record["ended"] is not None else "RUNNING",
        "updateTime": at,
    }


SERVICE = Service(
    name="monitoring",
    kinds=(
        Kind("dashboards", number_in_name=True, not_found="Requested entity was not found."),
        Kind("services", number_in_name=True, not_found="There is no service with id '{id}' in project '{number}'"),
        Kind(
            "serviceLevelObjectives",
            number_in_name=True,
            not_found='There is no slo with id "{id}" under service "{parent}" in project "{project}"',
        ),
        Kind("groups", not_found="Could not find group definition for '{id}'."),
        Kind("uptimeCheckConfigs", not_found="Config not found for check {id} in project {project}"),
    ),
    operations=Style(bare(""), _metadata),
)
