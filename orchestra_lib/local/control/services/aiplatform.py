"""AI Platform: endpoints, models and the calls of models."""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Service
from orchestra_lib.local.control.operation_styles import below_target, generic
from orchestra_lib.local.control.operations import Style

SERVICE = Service(
    name="aiplatform",
    operations=Style(below_target, generic),
)
