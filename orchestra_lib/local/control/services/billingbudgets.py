"""Budgets of billing accounts. https://cloud.google.com/billing/docs/reference/budget/rest"""

from __future__ import annotations

from orchestra_lib.local.control.kinds import Service

SERVICE = Service(
    name="billingbudgets",
    not_in_projects=True,
)
