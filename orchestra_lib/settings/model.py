"""What a parameter file holds: every setting with its unit in its name and its possible values in its type.

Limits that Google Cloud or pgvector set stand beside the field with their source. A combination that cannot exist is
refused here; one that is merely unwise is for the preflight to say.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from orchestra_lib.evidence import canonical_json
from orchestra_lib.settings.base import FromList, Model
from orchestra_lib.settings.cloud import (
    Api,
    Assistant,
    Cost,
    Network,
    Organization,
    Phase,
    Project,
    Regions,
    Workstations,
)
from orchestra_lib.settings.memory import Memory


class Environment(Model):
    """Which environment this is; ``local`` means the rehearsal on this machine."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    kind: Literal["local", "gcp"]


class Run(Model):
    """How a run behaves: ``plan`` stops before anything is changed."""

    mode: Literal["plan", "apply"]
    approved_plan: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


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
    """Everything a run depends on. Sections that only Google Cloud has are None in a rehearsal."""

    environment: Environment
    run: Run
    memory: Memory
    targets: Targets
    baseline: Baseline
    organization: Organization | None = None
    project: Project | None = None
    regions: Regions | None = None
    network: Network | None = None
    workstations: Workstations | None = None
    assistant: Assistant | None = None
    api: Api | None = None
    cost: Cost | None = None
    timeline: Annotated[tuple[Phase, ...], FromList] | None = None

    @model_validator(mode="after")
    def _complete_for_its_kind(self) -> Settings:
        if self.environment.kind == "gcp":
            missing = [name for name in _CLOUD_SECTIONS if getattr(self, name) is None]
            if missing:
                raise ValueError(f"an environment of kind gcp needs the sections {', '.join(missing)}")
        return self

    def public(self) -> dict[str, Any]:
        """The settings as JSON values, secrets as ``***``."""
        return self.model_dump(mode="json", by_alias=True)

    def digest(self) -> str:
        """SHA-256 over :meth:`public`, 64 hexadecimal digits."""
        return hashlib.sha256(canonical_json(self.public()).encode()).hexdigest()


_CLOUD_SECTIONS = (
    "organization",
    "project",
    "regions",
    "network",
    "workstations",
    "assistant",
    "api",
    "cost",
    "timeline",
)
