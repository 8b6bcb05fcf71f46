"""The settings of parallel development: when a phase may run, and how long the old system is kept afterwards."""

from __future__ import annotations

import re
from datetime import date, time
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from orchestra_lib.settings.base import FromList, Model, PhaseNumber

WEEKDAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")
"""In the order of ``date.weekday``."""

END_OF_DAY = "24:00"
_MINUTES_A_DAY = 24 * 60
_NEVER_BOUND = ("00",)  # what changes nothing may run at any time


def _quoted(value: Any) -> Any:
    # YAML 1.1 reads a bare 22:00 as a number of base 60.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MINUTES_A_DAY:
        clock = f"{value // 60:02d}:{value % 60:02d}"
        raise ValueError(f'put it in quotes, "{clock}": YAML makes the number {value} of a bare {clock}')
    return value


def _as_date(value: Any) -> Any:
    # YAML gives a date, papermill and JSON a text.
    return date.fromisoformat(value) if isinstance(value, str) else value


ClockTime = Annotated[
    str, BeforeValidator(_quoted), StringConstraints(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")
]
Day = Annotated[date, BeforeValidator(_as_date)]
WindowName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$")]


def clock_time(text: str) -> time:
    """The time of day of a text such as ``22:00``; the end of a day is the beginning of the next, midnight."""
    return time() if text == END_OF_DAY else time.fromisoformat(text)


class Window(Model):
    """When phases may run: on these days, while the clock on the wall there shows ``begins`` or later, before ``ends``.

    In a ``feature_freeze`` nobody else brings changes in; in a ``testing`` window what a phase has made is tried out.
    A window whose end is not after its beginning crosses midnight and belongs to the day on which it begins; equal
    times are the whole day round. Without ``days`` it is every day, without ``first_day`` and ``last_day`` (both
    included, of the beginning) for ever.
    """

    name: WindowName
    purpose: Literal["feature_freeze", "testing"]
    phases: Annotated[tuple[PhaseNumber, ...], FromList, Field(min_length=1)]
    timezone: str
    begins: ClockTime = "00:00"
    ends: ClockTime = END_OF_DAY
    days: Annotated[tuple[Literal[WEEKDAYS], ...], FromList, Field(min_length=1)] | None = None  # type: ignore[valid-type]
    first_day: Day | None = None
    last_day: Day | None = None

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        # "EST" is a zone of its own that knows no summer time: nobody in New York lives by it.
        if not re.fullmatch(r"UTC|[A-Za-z_]+(/[A-Za-z0-9_+-]+)+", value):
            raise ValueError(f"{value!r} is no place; name one, such as America/Chicago, or UTC")
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"there is no time zone {value!r}; they are called as America/Chicago is") from None
        return value

    @field_validator("phases")
    @classmethod
    def _can_be_bound(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        free = next((phase for phase in value if phase in _NEVER_BOUND), None)
        if free:
            raise ValueError(f"phase {free} changes nothing and may run at any time: leave it out")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.begins == END_OF_DAY:
            raise ValueError("begins is 24:00; a day begins at 00:00")
        if self.first_day and self.last_day and self.first_day > self.last_day:
            raise ValueError(f"first_day {self.first_day} is after last_day {self.last_day}")
        if self.is_whole_day and not (self.days or self.first_day or self.last_day):
            raise ValueError(f"window {self.name} is always open: say when it is, or leave it out")
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)

    @property
    def crosses_midnight(self) -> bool:
        """Whether it ends on the day after it began."""
        return clock_time(self.ends) <= clock_time(self.begins)

    @property
    def is_whole_day(self) -> bool:
        """Whether it lasts from a time to the same time of the next day."""
        return clock_time(self.ends) == clock_time(self.begins)

    def __str__(self) -> str:
        """When it is, in words."""
        days = ", ".join(self.days) if self.days else "every day"
        span = [f"from {self.first_day}" if self.first_day else "", f"until {self.last_day}" if self.last_day else ""]
        hours = f"{self.begins} to {self.ends} in {self.timezone}"
        return " ".join(part for part in (f"{self.purpose.replace('_', ' ')} {self.name}:", days, hours, *span) if part)


class Finalization(Model):
    """What ends the migration.

    ``first_day`` is that of week 1 of the timeline; None: that of the first run. ``evidence_hours``: how old a gate's
    evidence may be. ``retention_days``: how long the old system stays after the cutover. ``developers_agree``: who has
    asked the developers, when, and what they said; None: nobody has. ``vertex_index_endpoint`` and
    ``vertex_deployed_index``: a Vertex AI Vector Search index that holds the same rows, to be compared; None: none.
    """

    first_day: Day | None = None
    evidence_hours: float = Field(gt=0, le=24 * 90)
    retention_days: int = Field(ge=1, le=3_650)
    developers_agree: Annotated[str, StringConstraints(min_length=1)] | None = None
    vertex_index_endpoint: (
        Annotated[str, StringConstraints(pattern=r"^projects/[^/]+/locations/[^/]+/indexEndpoints/[^/]+$")] | None
    ) = None
    vertex_deployed_index: Annotated[str, StringConstraints(min_length=1)] | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.vertex_index_endpoint is None) != (self.vertex_deployed_index is None):
            raise ValueError("vertex_index_endpoint and vertex_deployed_index go together")
        return self
