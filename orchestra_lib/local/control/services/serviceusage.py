"""Which services a project has enabled. https://cloud.google.com/service-usage/docs/reference/rest"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Service
from orchestra_lib.local.control.operation_styles import bare, nothing
from orchestra_lib.local.control.operations import Style

SERVICE = Service(
    name="serviceusage",
    operations=Style(bare("acat.p2"), nothing),
    not_in_projects=True,
)
