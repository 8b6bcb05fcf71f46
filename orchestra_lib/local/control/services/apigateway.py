"""API Gateway: APIs, their configs and gateways. https://cloud.google.com/api-gateway/docs/reference/rest"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Service
from orchestra_lib.local.control.operation_styles import full, in_location
from orchestra_lib.local.control.operations import Style

SERVICE = Service(
    name="apigateway",
    operations=Style(in_location, full(cancellation=True), says_not_done=True),
)
