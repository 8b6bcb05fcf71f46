"""How a new revision of the memory API takes over, and how the API is measured: parts of phase 5."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from orchestra_lib.settings.base import Model

_WHOLE = 100


def _whole_numbers(value: Any) -> Any:
    """A text such as "5 25 100", a list or one number as a tuple of whole numbers; anything else as it is."""
    if isinstance(value, str):
        parts = value.replace(",", " ").split()
        return tuple(int(part) for part in parts) if parts and all(part.isdigit() for part in parts) else value
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


def _numbers(value: Any) -> Any:
    """A text such as "20 50", a list or one number as a tuple of numbers; anything else as it is."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    try:
        return tuple(float(part) for part in (parts if isinstance(parts, list | tuple) else (parts,)))
    except (TypeError, ValueError):
        return value


class Rollout(Model):
    """The steps of a rollout and what has to hold at each.

    ``percents`` are the new revision's shares of the traffic. At each step ``requests`` are asked of both revisions,
    and of the service: the median of the new one's latency may be ``latency_ratio`` of the old one's, and
    ``failed_share`` of the service's answers may be failures. The probe, who asks, has ``probe_memories``.
    """

    percents: Annotated[tuple[Annotated[int, Field(ge=1, le=_WHOLE)], ...], BeforeValidator(_whole_numbers)] = (
        5,
        25,
        _WHOLE,
    )
    warm_requests: int = Field(default=20, ge=1, le=10_000)
    requests: int = Field(default=200, ge=20, le=100_000)
    latency_ratio: float = Field(default=1.25, gt=1, le=100)
    failed_share: float = Field(default=0.001, ge=0, lt=1)
    probe_memories: int = Field(default=250, ge=50, le=10_000)

    @field_validator("percents")
    @classmethod
    def _end_with_everything(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or value[-1] != _WHOLE or list(value) != sorted(set(value)):
            raise ValueError(f"the shares have to rise and end with {_WHOLE}, such as 5 25 100")
        return value


class ApiLoad(Model):
    """The load under which the API is measured.

    ``rates`` are requests a second that are offered, each for itself. ``long`` takes minutes instead of seconds, and
    adds the saturation point, the concurrency that is earned and twice the saturation.
    """

    rates: Annotated[
        tuple[Annotated[float, Field(gt=0, le=100_000)], ...], BeforeValidator(_numbers), Field(min_length=1)
    ] = (20.0, 50.0)
    long: bool = False
