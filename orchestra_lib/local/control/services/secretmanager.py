"""Secret Manager: secrets and their versions. https://cloud.google.com/secret-manager/docs/reference/rest"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Kind, Service

SERVICE = Service(
    name="secretmanager",
    every=Kind("", number_in_name=True, not_found="Secret [{numbered}] not found."),
)
