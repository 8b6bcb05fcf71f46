"""Cloud Workstations: clusters, configs, workstations. https://cloud.google.com/workstations/docs/reference/rest"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Kind, Service

SERVICE = Service(
    name="workstations",
    every=Kind("", not_found="Requested entity was not found."),
)
