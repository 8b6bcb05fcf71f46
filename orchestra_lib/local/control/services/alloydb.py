"""AlloyDB for PostgreSQL: clusters, instances, backups, users. https://cloud.google.com/alloydb/docs/reference/rest"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Kind, Service
from orchestra_lib.local.control.operation_styles import full, in_location
from orchestra_lib.local.control.operations import Style

SERVICE = Service(
    name="alloydb",
    every=Kind("", etag=False, optional=frozenset({"network"})),
    operations=Style(in_location, full(cancellation=True), says_not_done=True),
)
