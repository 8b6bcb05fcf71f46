"""The settings of logging and alerting. Thresholds that are targets stand in ``targets`` and nowhere else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestra_lib.settings.base import Address, FromList, Model

# Conditions are evaluated by the minute.
Minutes = Annotated[int, Field(ge=60, le=86_400, multiple_of=60)]


class Logging(Model):
    """How long audit logs are kept, and which of them are written beyond those that always are."""

    audit_retention_days: int = Field(ge=1, le=3_650)
    audit_log_types: Annotated[tuple[Literal["ADMIN_READ", "DATA_READ", "DATA_WRITE"], ...], FromList]


class Notifications(Model):
    """Who is told. None until an owner names the address: phase 1 asks for it."""

    email: Address | None


class Alerting(Model):
    """When somebody is told of what is no target.

    ``window_seconds`` is the time that a rate or a percentile is taken over, ``duration_seconds`` how long a value has
    to be wrong. Ratios are from 0 to 1.
    """

    window_seconds: Minutes
    duration_seconds: Minutes
    api_error_ratio: float = Field(gt=0, lt=1)
    database_cpu_ratio: float = Field(gt=0, lt=1)
    replication_lag_seconds: float = Field(gt=0)
    replication_slot_gib: float = Field(gt=0)
