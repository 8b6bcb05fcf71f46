"""Short-lived credentials of service accounts. https://cloud.google.com/iam/docs/reference/credentials/rest"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Service

SERVICE = Service(
    name="iamcredentials",
)
