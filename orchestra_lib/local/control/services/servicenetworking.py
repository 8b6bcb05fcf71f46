"""Private services access: connections of networks to service producers.

https://cloud.google.com/service-infrastructure/docs/service-networking/reference/rest
"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Service
from orchestra_lib.local.control.operation_styles import bare, nothing
from orchestra_lib.local.control.operations import Style

SERVICE = Service(
    name="servicenetworking",
    operations=Style(bare("pssn.p24"), nothing),
)
