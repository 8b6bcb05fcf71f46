"""What a parameter file holds: every setting with its unit in its name and its possible values in its type.

Limits that Google Cloud or pgvector set stand beside the field with their source. A combination that cannot exist is
refused here; one that is merely unwise is for the preflight to say.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, StringConstraints, model_validator

from orchestra_lib.evidence import canonical_json
from orchestra_lib.settings.assistant import Assistant
from orchestra_lib.settings.base import FromList, Model, Names, PhaseOrAll
from orchestra_lib.settings.cloud import (
    Api,
    Billing,
    Cost,
    LabelKey,
    LabelValue,
    Organization,
    Phase,
    Project,
    Regions,
    Services,
)
from orchestra_lib.settings.delivery import GitHub, Registry, Secrets
from orchestra_lib.settings.memory import Memory
from orchestra_lib.settings.network import Network
from orchestra_lib.settings.observability import Alerting, Logging, Notifications
from orchestra_lib.settings.preflight import Preflight
from orchestra_lib.settings.rollout import ApiLoad
from orchestra_lib.settings.rollout import Rollout as ApiRollout
from orchestra_lib.settings.scale import Scale
from orchestra_lib.settings.usage import Usage
from orchestra_lib.settings.windows import Finalization, Window, WindowName
from orchestra_lib.settings.workstations import Developers, Restore, Workstations

EnvironmentName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]


class Environment(Model):
    """Which environment this is; ``local`` means the rehearsal on this machine."""

    name: EnvironmentName
    kind: Literal["local", "gcp"]


class Run(Model):
    """How a run behaves: ``plan`` stops before anything is changed.

    ``override_window`` names a window of the phase that does not count this time.
    """

    mode: Literal["plan", "apply"]
    approved_plan: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    may_destroy: Names = ()
    override_window: WindowName | None = None


class Rollback(Model):
    """What a rollback undoes: a phase, of it what was changed since a run, or all phases."""

    phase: PhaseOrAll | None = None
    since_run: str | None = None


class Targets(Model):
    """What has to be reached: the strategy's numbers."""

    vector_search_p95_ms: float = Field(gt=0)
    memory_retrieval_p95_ms: float = Field(gt=0)
    api_p95_ms: float = Field(gt=0)
    workstation_start_seconds: float = Field(gt=0)
    sync_records_per_second: float = Field(gt=0)


class BaselineValue(Model):
    """A figure of today's system and whether anybody measured it."""

    value: float = Field(gt=0)
    source: Literal["ASSUMED", "MEASURED"]


class Baseline(Model):
    """Today's system, as far as it is known. Nothing is compared with an ASSUMED value."""

    vector_search_ms: BaselineValue
    memory_retrieval_ms: BaselineValue
    api_ms: BaselineValue
    workstation_start_seconds: BaselineValue
    sync_records_per_second: BaselineValue


class Settings(Model):
    """Everything a run depends on. The sections of Google Cloud are None where nothing is to happen there.

    An environment of kind local may rehearse one of kind gcp: it then has that one's sections of Google Cloud where it
    has none of its own, and ``taken`` names them.
    """

    environment: Environment
    rehearses: EnvironmentName | None = None
    run: Run
    preflight: Preflight = Preflight()
    rollback: Rollback = Rollback()
    restore: Restore = Restore()
    rollout: ApiRollout = ApiRollout()
    api_load: ApiLoad = ApiLoad()
    windows: Annotated[tuple[Window, ...], FromList] = ()
    finalization: Finalization
    memory: Memory
    scale: Scale = Scale()
    targets: Targets
    baseline: Baseline
    organization: Organization | None = None
    project: Project | None = None
    billing: Billing | None = None
    labels: dict[LabelKey, LabelValue] | None = None
    regions: Regions | None = None
    services: Services | None = None
    network: Network | None = None
    secrets: Secrets | None = None
    registry: Registry | None = None
    github: GitHub | None = None
    logging: Logging | None = None
    notifications: Notifications | None = None
    alerting: Alerting | None = None
    workstations: Workstations | None = None
    developers: Developers | None = None
    assistant: Assistant | None = None
    api: Api | None = None
    cost: Cost | None = None
    usage: Usage | None = None
    timeline: Annotated[tuple[Phase, ...], FromList] | None = None

    _taken: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _complete_for_its_kind(self) -> Settings:
        on_gcp = self.environment.kind == "gcp"
        if on_gcp and self.rehearses:
            raise ValueError(f"an environment of kind gcp rehearses nothing, and this one names {self.rehearses}")
        if on_gcp and self.preflight.findings:
            raise ValueError(
                f"findings {', '.join(self.preflight.findings)} are planted on the local target only, and "
                f"{self.environment.name} is on Google Cloud"
            )
        missing = [name for name in CLOUD_SECTIONS if getattr(self, name) is None]
        if missing and on_gcp:
            raise ValueError(f"an environment of kind gcp needs the sections {', '.join(missing)}")
        if missing and self.rehearses:
            raise ValueError(
                f"it rehearses {self.rehearses}, and neither has the sections {', '.join(missing)}; add them there"
            )
        return self

    @model_validator(mode="after")
    def _windows_told_apart(self) -> Settings:
        names = [window.name for window in self.windows]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two windows are called {twice}: one is overridden by its name")
        override = self.run.override_window
        if override is not None and override not in names:
            raise ValueError(f"override_window {override} is no window; there is {', '.join(names) or 'none'}")
        return self

    @property
    def taken(self) -> tuple[str, ...]:
        """The dotted names of the sections that came from the file of the environment that is rehearsed."""
        return self._taken

    def with_taken(self, taken: tuple[str, ...]) -> Settings:
        """The same settings, remembering which sections came from the rehearsed environment's file."""
        copy = self.model_copy()
        copy._taken = taken
        return copy

    def public(self) -> dict[str, Any]:
        """The settings as JSON values, secrets as ``***``."""
        return {**self.model_dump(mode="json", by_alias=True), "taken": list(self.taken)}

    def digest(self) -> str:
        """SHA-256 over :meth:`public`, 64 hexadecimal digits."""
        return hashlib.sha256(canonical_json(self.public()).encode()).hexdigest()


CLOUD_SECTIONS = (
    "organization",
    "project",
    "billing",
    "labels",
    "regions",
    "services",
    "network",
    "secrets",
    "registry",
    "github",
    "logging",
    "notifications",
    "alerting",
    "workstations",
    "developers",
    "assistant",
    "api",
    "cost",
    "usage",
    "timeline",
)
"""The sections of Google Cloud: all of them in an environment there, or none."""
