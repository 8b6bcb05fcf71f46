"""The settings of a month of use: what the plan's bill is computed from. Assumed, until somebody measures it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestra_lib.settings.base import Model

_HOURS_OF_A_LONG_MONTH = 744

Hours = Annotated[float, Field(ge=0, le=_HOURS_OF_A_LONG_MONTH)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class Usage(Model):
    """How much is used in a month. None: not decided, and the bill has the cheapest and the dearest choice.

    ``developer_hours`` are each developer's, ``boost_ratio`` is the part of them on the boost machine, ``pool_hours``
    how long the pool stands ready. ``embedded_tokens`` are embedded once, at the start.
    """

    developers: Count
    developer_hours: Hours
    boost_ratio: float = Field(ge=0, le=1)
    pool_hours: Hours
    alloydb_storage_gb: Amount
    api_requests: Count
    api_request_seconds: Amount
    api_requests_at_once: Annotated[float, Field(gt=0)]
    model_calls: Count
    input_tokens_per_call: Count
    output_tokens_per_call: Count
    embedded_tokens: Count
    code_assist_seats: Count
    code_assist_edition: Literal["standard", "enterprise"] | None
    api_front: Literal["api_gateway", "load_balancer"] | None
    nat_gb: Amount
    logs_gib: Amount
    custom_metrics_mib: Amount
    snapshots_gb: Amount
    images_gb: Amount
    secret_versions: Count
    secret_accesses: Count
    private_endpoint_gb: Amount
    replicated_gb: Amount
