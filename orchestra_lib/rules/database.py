"""Rules of the memory store: AlloyDB, vector indexes and embeddings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from orchestra_lib.machine_types import machine_type
from orchestra_lib.rules import known
from orchestra_lib.rules.kinds import ANYTHING, FLAG, TEXT, TEXTS, WHOLE
from orchestra_lib.rules.rule import Level, Rule, Values, in_document, may, needs, on_page, used
from orchestra_lib.vectors.memory import ivfflat_build_memory

_AT = "memory.alloydb"
_N2_CPUS = (2, 4, 8, 16, 32, 64, 96, 128)
_ALL_CPUS = (1, 2, 4, 8, 14, 16, 22, 24, 32, 44, 48, 64, 72, 88, 96, 128, 144, 192, 288)
_MACHINES = on_page("https://cloud.google.com/alloydb/docs/choose-machine-type")
_BACKUPS = on_page("https://cloud.google.com/alloydb/docs/backup/overview")
_SECONDARY = on_page("https://cloud.google.com/alloydb/docs/cross-region-replication/about-cross-region-replication")
_LONGEST_WINDOW_DAYS = 35
_MOST_SECONDARIES = 5
_OLDEST_TO_CREATE = "POSTGRES_14"  # 13 is among the API's choices and cannot be created
_PREFERRED_VERSION = "POSTGRES_16"  # what the rehearsal runs
_PUBLIC = ("0.0.0.0/0", "::/0")

_PGVECTOR = on_page("https://github.com/pgvector/pgvector src/ivfflat.h, 0.8.5")
_MAXIMUM_LISTS = 32_768
_DEFAULT_LISTS = 100
_MAXIMUM_DIMENSION = {"ivfflat": 2_000, "hnsw": 2_000, "ivf": 8_000}
_LEAST_SAMPLE = 10_000

_EMBEDDINGS = on_page("https://ai.google.dev/gemini-api/docs/embeddings")
_DIMENSIONS: Mapping[str, range] = {
    "gemini-embedding-001": range(128, 3_073),
    "gemini-embedding-2": range(128, 3_073),
    "text-embedding-005": range(768, 769),
}
"""The dimensions that an embedding model can give."""
_FLEXIBLE = "gemini-embedding-001"
_FULL_DIMENSION = 3_072  # the only one that this model returns normalised


def _allowed_cpus(series: str) -> tuple[int, ...]:
    return _N2_CPUS if series == "n2" else _ALL_CPUS


def _machine_fits(v: Values) -> bool:
    machine = machine_type(v.machine)
    return machine is not None and machine.cpus == v.cpus and v.cpus in _allowed_cpus(machine.series)


def _larger_machine(v: Values) -> Mapping[str, Any]:
    machine = machine_type(v.machine)
    series = machine.series if machine else "n2"
    sizes = _allowed_cpus(series)
    cpus = next((size for size in sizes if size >= v.cpus), sizes[-1])
    return {f"{_AT}.cpu_count": cpus, f"{_AT}.machine_type": f"{series}-highmem-{cpus}"}


def _creatable_versions() -> tuple[str, ...]:
    versions = known.database_versions()
    return versions[versions.index(_OLDEST_TO_CREATE) :] if _OLDEST_TO_CREATE in versions else versions


def _within(field: str, value: int) -> bool:
    least, most, _ = known.query_insights(field)
    return least <= value <= most


def _insights(name: str, field: str, what: str) -> Rule:
    return Rule(
        "R-AD-08",
        Level.FAIL,
        f"query insights: {what} within the range",
        {"value": used(f"{_AT}.{name}", WHOLE)},
        lambda v: _within(field, v.value),
        lambda v: "{value}: from {0[0]} to {0[1]} are possible".format(known.query_insights(field), value=v.value),
        in_document(known.ALLOYDB, f"QueryInsightsInstanceConfig.{field}"),
        lambda _: {f"{_AT}.{name}": known.query_insights(field)[2]},
    )


def _identifier(name: str, pattern: str) -> Rule:
    return Rule(
        "R-AD-06",
        Level.FAIL,
        f"the {name}'s id has the form of one",
        {"id": needs(f"{_AT}.{name}", TEXT)},
        lambda v: bool(re.fullmatch(pattern, v.id)),
        lambda v: f"{v.id!r} is not like {pattern}",
        on_page("https://cloud.google.com/sdk/gcloud/reference/alloydb", date(2025, 6, 1)),
    )


def _other_region(v: Values) -> Mapping[str, Any]:
    return {"regions.secondary": "us-east1" if v.primary != "us-east1" else "us-central1"}


def _secondaries(v: Values) -> int:
    return len(v.clusters) if isinstance(v.clusters, list | tuple) else 1


def _on_the_hour(v: Values) -> bool:
    return all(re.fullmatch(r"([01]?[0-9]|2[0-3]):00", time) for time in v.times)


ALLOYDB = (
    Rule(
        "R-AD-01",
        Level.FAIL,
        "vCPUs and machine type agree, and there is such a size",
        {"machine": needs(f"{_AT}.machine_type", TEXT), "cpus": needs(f"{_AT}.cpu_count", WHOLE)},
        _machine_fits,
        lambda v: f"{v.machine} with {v.cpus} vCPUs: the two differ, or AlloyDB has no such size",
        _MACHINES,
        _larger_machine,
    ),
    Rule(
        "R-AD-02",
        Level.WARN,
        "the version is named",
        {"version": may(f"{_AT}.database_version", TEXT), "place": needs(_AT, ANYTHING)},
        lambda v: v.version is not None,
        lambda _: "no version is named: the default moves, and the flags with it",
        in_document(known.ALLOYDB, "Cluster.databaseVersion"),
        lambda _: {f"{_AT}.database_version": _PREFERRED_VERSION},
    ),
    Rule(
        "R-AD-02",
        Level.FAIL,
        "there is such a version",
        {"version": needs(f"{_AT}.database_version", TEXT)},
        lambda v: v.version in _creatable_versions(),
        lambda v: f"{v.version}: there are {', '.join(_creatable_versions())}",
        in_document(known.ALLOYDB, "Cluster.databaseVersion"),
        lambda _: {f"{_AT}.database_version": _PREFERRED_VERSION},
    ),
    Rule(
        "R-AD-03",
        Level.FAIL,
        "the recovery window is one that can be kept",
        {"days": needs(f"{_AT}.recovery_window_days", WHOLE)},
        lambda v: 1 <= v.days <= _LONGEST_WINDOW_DAYS,
        lambda v: f"{v.days} days: from 1 to {_LONGEST_WINDOW_DAYS} are possible",
        _BACKUPS,
        lambda v: {f"{_AT}.recovery_window_days": min(max(v.days, 1), _LONGEST_WINDOW_DAYS)},
    ),
    Rule(
        "R-AD-04",
        Level.FAIL,
        "a restore makes a new cluster in the same region",
        {
            "restored": needs(f"{_AT}.restore_cluster", TEXT),
            "cluster": needs(f"{_AT}.cluster", TEXT),
            "region": may(f"{_AT}.restore_region", TEXT),
            "primary": needs("regions.primary", TEXT),
        },
        lambda v: v.restored != v.cluster and v.region in (None, v.primary),
        lambda v: f"a restore into {v.restored} in {v.region or v.primary}: it makes a new cluster in {v.primary}",
        _BACKUPS,
        lambda v: {f"{_AT}.restore_cluster": f"{v.cluster}-restored", f"{_AT}.restore_region": None},
    ),
    Rule(
        "R-AD-04",
        Level.FAIL,
        "the application finds the database by a name that can be changed",
        {"endpoint": may("secrets.memory_endpoint", TEXT), "place": needs(_AT, ANYTHING)},
        lambda v: bool(v.endpoint),
        lambda _: "no secret holds the endpoint: a restore has a new address, and the application would not follow it",
        _BACKUPS,
        lambda _: {"secrets.memory_endpoint": "orchestra-memory-endpoint"},
    ),
    Rule(
        "R-AD-05",
        Level.FAIL,
        "the secondary cluster is in another region",
        {"secondary": needs("regions.secondary", TEXT), "primary": needs("regions.primary", TEXT)},
        lambda v: v.secondary != v.primary,
        lambda v: f"both regions are {v.primary}: a copy there survives nothing",
        _SECONDARY,
        _other_region,
    ),
    Rule(
        "R-AD-05",
        Level.FAIL,
        "there are at most five secondary clusters",
        {"clusters": needs(f"{_AT}.secondary_cluster", ANYTHING)},
        lambda v: _secondaries(v) <= _MOST_SECONDARIES,
        lambda v: f"{_secondaries(v)} secondary clusters: {_MOST_SECONDARIES} are possible",
        _SECONDARY,
        lambda v: {f"{_AT}.secondary_cluster": list(v.clusters[:_MOST_SECONDARIES])},
    ),
    Rule(
        "R-AD-05",
        Level.WARN,
        "the secondary is as large as the primary",
        {"secondary": needs(f"{_AT}.secondary_cpu_count", WHOLE), "primary": needs(f"{_AT}.cpu_count", WHOLE)},
        lambda v: v.secondary >= v.primary,
        lambda v: f"{v.secondary} vCPUs, the primary has {v.primary}: after a promotion it has to carry the same load",
        _SECONDARY,
        lambda v: {f"{_AT}.secondary_cpu_count": v.primary},
    ),
    _identifier("instance", r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?"),
    _identifier("cluster", r"[a-z0-9-]+"),
    Rule(
        "R-AD-07",
        Level.FAIL,
        "a zone is named for a zonal instance only",
        {"zone": used(f"{_AT}.zone", TEXT), "availability": may(f"{_AT}.availability", TEXT, "REGIONAL")},
        lambda v: v.availability == "ZONAL" or not v.zone,
        lambda v: f"{v.zone} with {v.availability}: the call is refused",
        in_document(known.ALLOYDB, "Instance.gceZone"),
        lambda _: {f"{_AT}.zone": None},
    ),
    _insights("query_plans_per_minute", "queryPlansPerMinute", "plans a minute"),
    _insights("query_string_length", "queryStringLength", "length of a query's text"),
    Rule(
        "R-AD-09",
        Level.FAIL,
        "the backup window is long enough",
        {"seconds": used(f"{_AT}.backup_window_seconds", WHOLE)},
        lambda v: v.seconds >= known.backup_window_minimum_seconds(),
        lambda v: f"{v.seconds} s: at least {known.backup_window_minimum_seconds()} are needed",
        in_document(known.ALLOYDB, "AutomatedBackupPolicy.backupWindow"),
        lambda _: {f"{_AT}.backup_window_seconds": 3_600},
    ),
    Rule(
        "R-AD-09",
        Level.FAIL,
        "backups start on the hour",
        {"times": used(f"{_AT}.backup_start_times", TEXTS)},
        _on_the_hour,
        lambda v: f"{', '.join(v.times)}: times have to be whole hours, such as 04:00",
        in_document(known.ALLOYDB, "WeeklySchedule.startTimes"),
    ),
    Rule(
        "R-AD-11",
        Level.FAIL,
        "the database is not open to everybody",
        {"networks": used(f"{_AT}.authorized_external_networks", TEXTS)},
        lambda v: not set(_PUBLIC) & set(v.networks),
        lambda v: f"{', '.join(sorted(set(_PUBLIC) & set(v.networks)))} is everybody: connectors need no open network",
        on_page("https://cloud.google.com/alloydb/docs/connect-public-ip"),
        lambda v: {f"{_AT}.authorized_external_networks": [one for one in v.networks if one not in _PUBLIC]},
    ),
)


def _needed_mib(v: Values) -> int:
    """What a build needs, whatever the table's size if it is not stated; 0 where other rules refuse the numbers."""
    if not 1 <= v.lists <= _MAXIMUM_LISTS or not 1 <= v.dimension <= _MAXIMUM_DIMENSION["ivfflat"]:
        return 0
    rows = v.rows if v.rows and v.rows > 0 else max(50 * v.lists, _LEAST_SAMPLE)
    return ivfflat_build_memory(v.lists, rows, v.dimension, heap_blocks=rows).required_mib


_BUILD = {
    "lists": used("memory.index.lists", WHOLE),
    "dimension": needs("memory.dimension", WHOLE),
    "rows": may("memory.corpus.rows", WHOLE),
}

VECTORS = (
    Rule(
        "R-VX-01",
        Level.FAIL,
        "the index takes vectors of this dimension",
        {"dimension": needs("memory.dimension", WHOLE), "method": needs("memory.index.method", TEXT)},
        lambda v: v.method not in _MAXIMUM_DIMENSION or 1 <= v.dimension <= _MAXIMUM_DIMENSION[v.method],
        lambda v: f"{v.dimension} dimensions: {v.method} takes 1 to {_MAXIMUM_DIMENSION[v.method]}",
        _PGVECTOR,
    ),
    Rule(
        "R-VX-02",
        Level.FAIL,
        "there may be so many lists",
        {"lists": used("memory.index.lists", WHOLE)},
        lambda v: 1 <= v.lists <= _MAXIMUM_LISTS,
        lambda v: f"{v.lists} lists: from 1 to {_MAXIMUM_LISTS} are possible",
        _PGVECTOR,
        lambda v: {"memory.index.lists": min(max(v.lists, 1), _MAXIMUM_LISTS)},
    ),
    Rule(
        "R-VX-02",
        Level.FAIL,
        "the build may use the memory that its lists need",
        {"memory": used("memory.index.maintenance_work_mem_mib", WHOLE), **_BUILD},
        lambda v: v.memory >= _needed_mib(v),
        lambda v: (
            f"{v.memory} MiB: {v.lists:,} lists of {v.dimension} dimensions need {_needed_mib(v):,}, or it refuses"
        ),
        _PGVECTOR,
        lambda v: {"memory.index.maintenance_work_mem_mib": _needed_mib(v)},
    ),
    Rule(
        "R-VX-02",
        Level.INFO,
        "the server's own memory setting is enough for the build",
        {**_BUILD, "memory": may("memory.index.maintenance_work_mem_mib", WHOLE)},
        lambda v: v.memory is not None or _needed_mib(v) <= 64,
        lambda v: (
            f"{v.lists:,} lists need {_needed_mib(v):,} MiB in the session that builds, PostgreSQL's default is 64; "
            "not stated, so the runbook computes it from the rows that there are"
        ),
        _PGVECTOR,
    ),
    Rule(
        "R-VX-03",
        Level.WARN,
        "what is called the default number of lists is it",
        {"claimed": used("memory.index.default_lists", WHOLE)},
        lambda v: v.claimed == _DEFAULT_LISTS,
        lambda v: f"a default of {v.claimed} lists: pgvector's is {_DEFAULT_LISTS}, with 1 probe",
        _PGVECTOR,
        lambda _: {"memory.index.default_lists": _DEFAULT_LISTS},
    ),
)


def _can_give(v: Values, dimension: int) -> bool:
    return v.model in _DIMENSIONS and dimension in _DIMENSIONS[v.model]


def _nearest_dimension(v: Values) -> Mapping[str, Any]:
    if v.dimension in _DIMENSIONS[_FLEXIBLE]:
        return {"assistant.embedding_model": _FLEXIBLE}
    own = _DIMENSIONS[v.model]
    return {"assistant.embedding_dimension": min(max(v.dimension, own.start), own.stop - 1)}


def _shortened(v: Values) -> bool:
    return bool(v.model == _FLEXIBLE and v.dimension < _FULL_DIMENSION)


EMBEDDINGS = (
    Rule(
        "R-EM-01",
        Level.FAIL,
        "the embedding model can give this dimension",
        {"dimension": needs("assistant.embedding_dimension", WHOLE), "model": needs("assistant.embedding_model", TEXT)},
        lambda v: v.model not in _DIMENSIONS or _can_give(v, v.dimension),
        lambda v: f"{v.model} gives no vectors of {v.dimension} dimensions",
        _EMBEDDINGS,
        _nearest_dimension,
    ),
    Rule(
        "R-EM-01",
        Level.FAIL,
        "the column has the dimension of the embeddings",
        {
            "dimension": needs("assistant.embedding_dimension", WHOLE),
            "column": needs("memory.dimension", WHOLE),
            "model": may("assistant.embedding_model", TEXT, _FLEXIBLE),
        },
        lambda v: v.dimension == v.column,
        lambda v: f"embeddings of {v.dimension} dimensions, a column of {v.column}: no row can be written",
        _EMBEDDINGS,
        lambda v: {"assistant.embedding_dimension": v.column} if _can_give(v, v.column) else {},
    ),
    Rule(
        "R-EM-02",
        Level.WARN,
        "shortened embeddings are normalised again",
        {
            "model": needs("assistant.embedding_model", TEXT),
            "dimension": needs("assistant.embedding_dimension", WHOLE),
            "normalised": may("assistant.normalize_embeddings", FLAG),
            "opclass": may("memory.index.opclass", TEXT),
        },
        # Cosine distance does not see the length.
        lambda v: not _shortened(v) or bool(v.normalised) or v.opclass == "vector_cosine_ops",
        lambda v: f"{v.model} at {v.dimension} dimensions is not of length 1, and {v.opclass or 'the index'} sees it",
        _EMBEDDINGS,
        lambda _: {"assistant.normalize_embeddings": True},
    ),
)

RULES = (*ALLOYDB, *VECTORS, *EMBEDDINGS)
