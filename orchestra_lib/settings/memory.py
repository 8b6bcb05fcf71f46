"""The memory phase's settings: source, target, copy, index, search, stream, AlloyDB."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.secret import Secret
from orchestra_lib.settings.base import Model

MAX_LISTS = 32_768
"""pgvector's limit on lists, and so on probes (src/ivfflat.h)."""

MAX_DIMENSION = 2_000
"""pgvector indexes float32 vectors up to this dimension."""

# AlloyDB offers these numbers of vCPUs on N2 machines; the machine type has to name the same number.
_N2_CPUS = (2, 4, 8, 16, 32, 64, 96, 128)

Lists = Annotated[int, Field(ge=1, le=MAX_LISTS)]
TableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$")]


class SourceStore(Model):
    """Where the memories are today. Without a ``dsn`` it is the rehearsal's own store."""

    dsn: Secret | None = None
    table: TableName = "memories"
    columns: dict[Literal[COLUMNS], str] = Field(default_factory=dict)  # type: ignore[valid-type]
    lists: Lists = 2_000

    @field_validator("columns", mode="before")
    @classmethod
    def _text_as_mapping(cls, value: Any) -> Any:
        # papermill's -p hands every mapping over as text; -y hands it over as one.
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError('give the columns as JSON, such as {"id": "external_id"}') from None


class TargetStore(Model):
    """Where the memories go. Without a ``dsn`` it is the local target's database."""

    dsn: Secret | None = None


class Corpus(Model):
    """The rehearsal's store and the questions asked of it; for a store of your own, how many of its rows to ask."""

    rows: Annotated[int, Field(ge=100, le=10_000_000)] | None = None
    queries: int = Field(ge=20, le=10_000)
    seed: int = Field(ge=0)


class Copy(Model):
    """The bulk copy: parallel sessions, and into how many key ranges the table is cut."""

    workers: int = Field(ge=1, le=64)
    ranges: int = Field(ge=1, le=4_096)


class Index(Model):
    """The vector index on the target. ``probes`` None: the fewest that reach the recall target."""

    method: Literal["ivfflat"]
    lists: Lists
    probes: Lists | None = None
    opclass: Literal["vector_cosine_ops", "vector_ip_ops", "vector_l2_ops"]
    maintenance_work_mem_mib: Annotated[int, Field(ge=1)] | None = None


class Search(Model):
    """What a search has to find."""

    k: int = Field(ge=1, le=1_000)
    recall_target: float = Field(gt=0, lt=1)


class Sync(Model):
    """How changes are gathered before they are applied."""

    debounce_seconds: float = Field(gt=0, le=60)
    batch_size: int = Field(ge=1, le=100_000)


class CircuitBreaker(Model):
    """When the target is left alone for a while, and for how long."""

    failure_threshold: int = Field(ge=1)
    recovery_seconds: float = Field(gt=0)


class AlloyDB(Model):
    """The cluster, its primary instance and its copy in the other region."""

    cluster: str
    instance: str
    database_version: Literal["POSTGRES_14", "POSTGRES_15", "POSTGRES_16", "POSTGRES_17"]
    machine_type: str
    cpu_count: int
    availability: Literal["ZONAL", "REGIONAL"]
    recovery_window_days: int = Field(ge=1, le=35)
    automated_backup_retention_days: int = Field(ge=1, le=365)
    secondary_cluster: str

    @model_validator(mode="after")
    def _machine_and_cpus_agree(self) -> AlloyDB:
        if self.cpu_count not in _N2_CPUS:
            raise ValueError(f"cpu_count {self.cpu_count} does not exist; N2 has {', '.join(map(str, _N2_CPUS))}")
        if self.machine_type != f"n2-highmem-{self.cpu_count}":
            raise ValueError(
                f"machine_type {self.machine_type!r} has not {self.cpu_count} vCPUs of N2: "
                f"n2-highmem-{self.cpu_count} has"
            )
        return self


class Memory(Model):
    """The memory store and how it is moved."""

    dimension: int = Field(ge=1, le=MAX_DIMENSION)
    source: SourceStore
    target: TargetStore
    corpus: Corpus
    copy_: Copy = Field(alias="copy")
    index: Index
    search: Search
    sync: Sync
    circuit_breaker: CircuitBreaker
    alloydb: AlloyDB | None = None

    @model_validator(mode="after")
    def _probes_within_lists(self) -> Memory:
        if self.index.probes is not None and self.index.probes > self.index.lists:
            raise ValueError(
                f"probes {self.index.probes} are more than the {self.index.lists} lists there are to probe"
            )
        return self
