"""Cloud Run: services, jobs, worker pools. https://cloud.google.com/run/docs/reference/rest"""

from __future__ import annotations

from typing import Any

from orchestra_lib.local.control.kinds import Kind, Service
from orchestra_lib.local.control.operation_styles import in_location
from orchestra_lib.local.control.operations import Record, Style


def _metadata(control: Any, record: Record) -> dict[str, Any]:
    """The resource itself, with what it is still waiting for."""
    body = record["answer"] or control.shown_resource(record["service"], record["version"], record["target"]) or {}
    result = {"@type": record["type"], **body}
    if record["ended"] is None:
        result["reconciling"] = True
        result["terminalCondition"] = {"type": "Ready", "state": "CONDITION_PENDING"}
    return result


SERVICE = Service(
    name="run",
    every=Kind("", delete_answers="resource", applied_at_once=True),
    operations=Style(in_location, _metadata),
)
