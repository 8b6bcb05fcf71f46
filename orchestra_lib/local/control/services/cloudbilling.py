"""Billing accounts, and which project is billed to which. https://cloud.google.com/billing/docs/reference/rest"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Service

SERVICE = Service(
    name="cloudbilling",
    not_in_projects=True,
)
