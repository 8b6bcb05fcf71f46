"""Organisation policies. https://cloud.google.com/resource-manager/docs/reference/orgpolicy/rest"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Service

SERVICE = Service(
    name="orgpolicy",
    not_in_projects=True,
)
