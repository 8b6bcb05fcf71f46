"""The settings that only Google Cloud has: project, API, cost. Limits as its APIs state them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from orchestra_lib.settings.base import FromList, MemoryQuantity, Model, PhaseNumber, memory_bytes

Region = Annotated[str, StringConstraints(pattern=r"^[a-z]+-[a-z]+[0-9]+$")]
ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,40}$")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([a-z]([-a-z0-9]{0,61}[a-z0-9])?)?$")]
ServiceNames = Annotated[tuple[ServiceName, ...], FromList]
Ratio = Annotated[float, Field(gt=0, le=1)]


class Organization(Model):
    """The organisation: it has to exist, no API creates one. The id is a text: it is a name, not a number."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9]{6,20}$")]


class Project(Model):
    """The project. Its id can never be changed."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")]


class Regions(Model):
    """Where things run, and where they would run after a disaster."""

    primary: Region
    secondary: Region

    @model_validator(mode="after")
    def _different(self) -> Regions:
        if self.primary == self.secondary:
            raise ValueError(f"primary and secondary are both {self.primary}: a copy there survives nothing")
        return self


class Billing(Model):
    """The account that pays. None until its owner names it: phase 1 asks for it, the others do not need it."""

    account: Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$")] | None


class Services(Model):
    """The APIs that each phase needs, without ``.googleapis.com``."""

    infrastructure: ServiceNames
    workstations: ServiceNames
    memory: ServiceNames
    assistant: ServiceNames
    api: ServiceNames
    validation: ServiceNames


class Api(Model):
    """The Cloud Run service. Four CPUs need at least 2Gi. ``host`` is None until the service has one.

    ``audience`` is what callers have their identity tokens made for. ``cpu_idle``: CPU only while a request is
    answered, and billed so; otherwise always.
    """

    service: Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]{0,47}[a-z0-9])?$")]
    host: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+\.[a-z]{2,}$")] | None
    audience: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9:/._-]{2,200}$")]
    cpu: Literal[1, 2, 4, 6, 8]
    memory: MemoryQuantity
    cpu_idle: bool
    concurrency: int = Field(ge=1, le=1_000)
    min_instances: int = Field(ge=0)
    max_instances: int = Field(ge=1)
    connections_per_instance: int = Field(ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Api:
        if self.cpu == 4 and memory_bytes(self.memory) < 2 << 30:
            raise ValueError(f"4 CPUs need at least 2Gi of memory, {self.memory} is less")
        if self.min_instances > self.max_instances:
            raise ValueError(f"min_instances {self.min_instances} is more than max_instances {self.max_instances}")
        return self


class CostRange(Model):
    """An estimate in US dollars a month."""

    low_usd: float = Field(ge=0)
    high_usd: float = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> CostRange:
        if self.low_usd > self.high_usd:
            raise ValueError(f"low_usd {self.low_usd:g} is more than high_usd {self.high_usd:g}")
        return self


class Cost(Model):
    """The strategy's estimates, a month, and the budget: at which parts of it, spent or forecast, somebody is told."""

    workstations: CostRange
    alloydb: CostRange
    cloud_run: CostRange
    vertex_ai: CostRange
    other: CostRange
    total: CostRange
    budget_usd: float = Field(gt=0)
    budget_alert_ratios: Annotated[tuple[Ratio, ...], FromList]
    budget_forecast_ratios: Annotated[tuple[Ratio, ...], FromList]


class Phase(Model):
    """A phase's place in the timeline, in weeks from the start, who works on it, and the runbooks that it is."""

    name: str
    first_week: int = Field(ge=1)
    last_week: int = Field(ge=1)
    people: str
    runbooks: Annotated[tuple[PhaseNumber, ...], FromList] = ()

    @model_validator(mode="after")
    def _ordered(self) -> Phase:
        if self.first_week > self.last_week:
            raise ValueError(f"{self.name} starts in week {self.first_week} and ends in week {self.last_week}")
        return self
