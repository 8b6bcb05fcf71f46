"""The memory phase's settings: source, target, copy, index, search, stream, cutover, AlloyDB."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.secret import Secret
from orchestra_lib.settings.base import Address, FromList, Model, split_names

MAX_LISTS = 32_768
"""pgvector's limit on lists, and so on probes (src/ivfflat.h)."""

MAX_DIMENSION = 2_000
"""pgvector indexes float32 vectors up to this dimension."""

# AlloyDB offers these numbers of vCPUs on N2 machines; the machine type has to name the same number.
_N2_CPUS = (2, 4, 8, 16, 32, 64, 96, 128)

_NEEDED_FLAGS: Mapping[str, str] = {
    "alloydb.iam_authentication": "nobody has a password, so nobody could log in",
    "alloydb.logical_decoding": "without it there is no way back after the cutover",
}

FILTERS = ("user_id", "session_id", "persona", "item_type")
"""Columns of the memory table that a search may be narrowed by."""

Lists = Annotated[int, Field(ge=1, le=MAX_LISTS)]
DatabaseId = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
RoleName = Annotated[str, StringConstraints(min_length=1, max_length=63)]
IndexMethod = Literal["exact", "ivfflat", "hnsw", "scann"]
IndexStorage = Literal["vector", "halfvec", "bit"]
Weekday = Literal["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"]
WholeHour = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):00$")]
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
    queries: int = Field(ge=40, le=10_000)
    seed: int = Field(ge=0)


class Copy(Model):
    """The bulk copy: parallel sessions, into how many key ranges the table is cut, and how fast it may read.

    ``rows_per_second`` holds for all sessions together; None: as fast as it goes.
    """

    workers: int = Field(ge=1, le=64)
    ranges: int = Field(ge=1, le=4_096)
    rows_per_second: Annotated[int, Field(ge=1)] | None


class Index(Model):
    """The vector index on the target.

    ``lists`` None: the index is chosen by measurement, see ``Tuning``; a number: exactly that IVFFlat index.
    ``probes`` None: the fewest that reach the recall target.
    """

    method: Literal["ivfflat"]
    lists: Lists | None
    probes: Lists | None = None
    opclass: Literal["vector_cosine_ops", "vector_ip_ops", "vector_l2_ops"]
    maintenance_work_mem_mib: Annotated[int, Field(ge=1)] | None = None


class Search(Model):
    """What a search has to find."""

    k: int = Field(ge=1, le=1_000)
    recall_target: float = Field(gt=0, lt=1)


class Tuning(Model):
    """How an index is chosen by measurement, and what it has to stand.

    ``budget_seconds`` bounds the choosing; what was learnt is kept, so the next run goes on. ``offered_per_second`` is
    the load under which p95 is certified, for ``load_seconds``; None: one search after another. ``methods`` are those
    that are looked at, ``storages`` what they may store of a vector: the API searches vector and halfvec. ``filters``
    names columns that the application also filters by. ``inserts_per_second`` bounds the lists, since every insert
    reads every centroid; None: nobody has said. ``replay`` is a file of logged queries (JSON lines, Parquet, or
    PostgreSQL's own log); None: questions of the rehearsal, or rows of the table. ``lists`` is what 08_vector_tuning
    builds instead of the best; None: the best.
    """

    budget_seconds: float = Field(gt=0, le=86_400)
    offered_per_second: Annotated[float, Field(gt=0)] | None
    load_seconds: float = Field(gt=0, le=3_600)
    methods: Annotated[
        tuple[Literal["exact", "ivfflat", "hnsw", "scann"], ...], BeforeValidator(split_names), Field(min_length=1)
    ]
    storages: Annotated[tuple[IndexStorage, ...], BeforeValidator(split_names), Field(min_length=1)]
    filters: Annotated[tuple[Literal[FILTERS], ...], BeforeValidator(split_names)]  # type: ignore[valid-type]
    inserts_per_second: Annotated[float, Field(gt=0)] | None
    replay: Annotated[str, StringConstraints(min_length=1)] | None
    lists: Lists | None


class Sync(Model):
    """How changes are gathered before they are applied, and by how many sessions."""

    debounce_seconds: float = Field(gt=0, le=60)
    batch_size: int = Field(ge=1, le=100_000)
    connections: int = Field(ge=1, le=32)


class CircuitBreaker(Model):
    """When the target is left alone for a while, and for how long. A batch that takes longer than ``slow_seconds``
    counts as a failure.
    """

    failure_threshold: int = Field(ge=1)
    recovery_seconds: float = Field(gt=0)
    slow_seconds: float = Field(gt=0)


class Stream(Model):
    """How today's store names the stream of its changes, and when it is to be told that it keeps too much of them.

    ``live`` false: the store stands still and is only copied.
    ``slot_alert_ratio`` is the part of ``max_slot_wal_keep_size`` beyond which the slot is in danger: when all of it is
    used the slot is lost, and everything is copied anew.
    """

    live: bool
    slot: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,63}$")]
    publication: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
    slot_alert_ratio: float = Field(gt=0, lt=1)


class Writers(Model):
    """The database roles that write: today on the source, after the cutover on the target.

    None on the source: nobody has named them. None on the target: the API's service account.
    """

    source: Annotated[tuple[RoleName, ...], FromList, Field(min_length=1)] | None
    target: Annotated[tuple[RoleName, ...], FromList, Field(min_length=1)] | None


class Load(Model):
    """The rehearsal's own writer: how much it writes, and for how long at each step."""

    writes_per_second: int = Field(ge=1, le=100_000)
    seconds: float = Field(gt=0, le=3_600)


class Shadow(Model):
    """How many questions are asked of both stores before the one takes the other's place."""

    queries: int = Field(ge=1, le=10_000)


class Drills(Model):
    """What is tried out for real and not only planned: a restore to a moment, the other region, the cutover."""

    point_in_time: bool
    switchover: bool
    cutover: bool


class MaintenanceWindow(Model):
    """The hour in which Google may restart the cluster for an update."""

    day: Weekday
    start_hour_utc: int = Field(ge=0, le=23)


class AlloyDB(Model):
    """The cluster, its primary instance and its copy in the other region.

    Passwords stand nowhere: people and programs log in by IAM. ``administrators`` are people who become
    ``alloydbsuperuser`` beside the account that migrates, by their address. Times are UTC; a backup begins on a whole
    hour, and is given up ``backup_window_seconds`` later. ``max_connections`` is a flag too and stands apart because
    others count with it.
    """

    cluster: DatabaseId
    instance: DatabaseId
    database_version: Literal["POSTGRES_14", "POSTGRES_15", "POSTGRES_16", "POSTGRES_17"]
    machine_type: str
    cpu_count: int
    availability: Literal["ZONAL", "REGIONAL"]
    flags: dict[str, str]
    max_connections: int = Field(ge=1, le=262_143)
    query_plans_per_minute: int = Field(ge=0, le=20)
    query_string_length: int = Field(ge=256, le=4_500)
    administrators: Annotated[tuple[Address, ...], FromList]
    recovery_window_days: int = Field(ge=1, le=35)
    backup_days: Annotated[tuple[Weekday, ...], FromList, Field(min_length=1)]
    backup_start_times: Annotated[tuple[WholeHour, ...], FromList, Field(min_length=1)]
    backup_window_seconds: int = Field(ge=300)
    automated_backup_retention_days: int = Field(ge=1, le=365)
    maintenance_window: MaintenanceWindow
    secondary_cluster: DatabaseId
    secondary_instance: DatabaseId

    @field_validator("flags", mode="before")
    @classmethod
    def _flags_are_texts(cls, value: Any) -> Any:
        flags = value if isinstance(value, dict) else {}
        bare = next((f"{flag} is {setting!r}" for flag, setting in flags.items() if not isinstance(setting, str)), None)
        if bare:
            raise ValueError(f'{bare}; put it in quotes, such as "on": YAML makes true of a bare on')
        return value

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

    @model_validator(mode="after")
    def _flags_that_everything_stands_on(self) -> AlloyDB:
        for flag, reason in _NEEDED_FLAGS.items():
            if self.flags.get(flag) != "on":
                raise ValueError(f"flags.{flag} is {self.flags.get(flag, 'not there')}; it has to be 'on': {reason}")
        if "max_connections" in self.flags:
            raise ValueError("flags.max_connections: say it as max_connections, which others count with")
        return self


class Memory(Model):
    """The memory store and how it is moved. ``load`` None: nobody writes but the application."""

    dimension: int = Field(ge=1, le=MAX_DIMENSION)
    source: SourceStore
    target: TargetStore
    corpus: Corpus
    copy_: Copy = Field(alias="copy")
    index: Index
    search: Search
    tuning: Tuning
    sync: Sync
    circuit_breaker: CircuitBreaker
    stream: Stream
    writers: Writers
    load: Load | None
    shadow: Shadow
    drills: Drills
    alloydb: AlloyDB | None = None

    @model_validator(mode="after")
    def _probes_within_lists(self) -> Memory:
        if self.index.probes is not None and self.index.lists is None:
            raise ValueError(f"probes {self.index.probes} are of no use while the lists are chosen: say the lists too")
        if self.index.probes is not None and self.index.lists is not None and self.index.probes > self.index.lists:
            raise ValueError(
                f"probes {self.index.probes} are more than the {self.index.lists} lists there are to probe"
            )
        return self
