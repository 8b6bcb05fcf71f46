"""Where a plan wants to happen, and what reading something back there is worth."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import ParameterError
from orchestra_lib.evidence import Source
from orchestra_lib.settings import Settings


@dataclass(frozen=True)
class Place:
    """Where a plan wants to happen. ``source`` is what reading it back there is worth as evidence."""

    project: str
    organization: str
    billing_account: str | None
    source: Source

    @classmethod
    def of(cls, settings: Settings, target: Target) -> Place:
        """The place that the settings name, on a target. Raises ParameterError when they name none."""
        if settings.project is None or settings.organization is None:
            raise ParameterError(
                f"environment {settings.environment.name} names no project: it needs the sections organization and "
                "project, or the name of an environment that it rehearses"
            )
        return cls(
            settings.project.id,
            settings.organization.id,
            settings.billing.account if settings.billing else None,
            Source.REHEARSED if target.kind == "local" else Source.OBSERVED,
        )
