"""Artifact Registry: repositories. https://cloud.google.com/artifact-registry/docs/reference/rest"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Kind, Service
from orchestra_lib.local.control.operation_styles import in_location, type_only
from orchestra_lib.local.control.operations import Style

SERVICE = Service(
    name="artifactregistry",
    every=Kind("", not_found="Requested entity was not found."),
    operations=Style(in_location, type_only("OperationMetadata")),
)
