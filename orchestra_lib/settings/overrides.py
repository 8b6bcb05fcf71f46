"""Which parameters each notebook has, and which setting each of them overrides."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from orchestra_lib.errors import ParameterError

ENVIRONMENT = "environment"
"""The one parameter of every notebook that is no setting: it names the file."""

_APPROVAL = {"mode": "run.mode", "approved_plan": "run.approved_plan"}
_DESTRUCTION = {"may_destroy": "run.may_destroy"}
_WINDOW = {"override_window": "run.override_window"}

OVERRIDES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "00_preflight": MappingProxyType({"offline": "preflight.offline", "findings": "preflight.findings"}),
        "01_infrastructure": MappingProxyType({**_APPROVAL, **_WINDOW, **_DESTRUCTION}),
        "02_workstations": MappingProxyType(
            {
                **_APPROVAL,
                **_WINDOW,
                **_DESTRUCTION,
                "starts": "workstations.measured_starts",
                "restore": "restore.developer",
                "snapshot": "restore.snapshot",
            }
        ),
        "03_memory": MappingProxyType(
            {
                **_APPROVAL,
                **_WINDOW,
                **_DESTRUCTION,
                "rows": "memory.corpus.rows",
                "queries": "memory.corpus.queries",
                "lists": "memory.index.lists",
                "probes": "memory.index.probes",
                "budget_seconds": "memory.tuning.budget_seconds",
                "source_dsn": "memory.source.dsn",
                "source_table": "memory.source.table",
                "source_columns": "memory.source.columns",
                "workers": "memory.copy.workers",
                "live": "memory.stream.live",
                "debounce_seconds": "memory.sync.debounce_seconds",
                "batch_size": "memory.sync.batch_size",
                "connections": "memory.sync.connections",
                "drill_restore": "memory.drills.point_in_time",
                "drill_switchover": "memory.drills.switchover",
                "drill_cutover": "memory.drills.cutover",
            }
        ),
        "04_assistant": MappingProxyType(
            {
                **_APPROVAL,
                **_WINDOW,
                **_DESTRUCTION,
                "model": "assistant.model",
                "temperature": "assistant.temperature",
                "max_output_tokens": "assistant.max_output_tokens",
                "thinking_level": "assistant.thinking_level",
                "context_tokens": "assistant.context.tokens",
                "candidates": "assistant.context.candidates",
                "questions": "assistant.context.questions",
                "sample": "assistant.embedding.sample",
                "repeats": "assistant.repeats",
            }
        ),
        "05_api": MappingProxyType(
            {
                **_APPROVAL,
                **_WINDOW,
                **_DESTRUCTION,
                "percents": "rollout.percents",
                "requests": "rollout.requests",
                "latency_ratio": "rollout.latency_ratio",
                "rates": "api_load.rates",
                "long_load": "api_load.long",
                "concurrency": "api.concurrency",
                "min_instances": "api.min_instances",
                "max_instances": "api.max_instances",
            }
        ),
        "06_validation": MappingProxyType(
            {
                **_APPROVAL,
                **_WINDOW,
                "queries": "memory.corpus.queries",
                "offered_per_second": "memory.tuning.offered_per_second",
                "load_seconds": "memory.tuning.load_seconds",
                "starts": "workstations.measured_starts",
                "api_rates": "api_load.rates",
                "developers_agree": "finalization.developers_agree",
            }
        ),
        "07_finalization": MappingProxyType(
            {
                **_APPROVAL,
                **_WINDOW,
                "evidence_hours": "finalization.evidence_hours",
                "retention_days": "finalization.retention_days",
                "developers_agree": "finalization.developers_agree",
            }
        ),
        "08_vector_tuning": MappingProxyType(
            {
                **_APPROVAL,
                **_WINDOW,
                "target_dsn": "memory.target.dsn",
                "queries": "memory.corpus.queries",
                "replay": "memory.tuning.replay",
                "lists": "memory.tuning.lists",
                "recall_target": "memory.search.recall_target",
                "p95_ms": "targets.vector_search_p95_ms",
                "offered_per_second": "memory.tuning.offered_per_second",
                "load_seconds": "memory.tuning.load_seconds",
                "budget_seconds": "memory.tuning.budget_seconds",
                "methods": "memory.tuning.methods",
                "storages": "memory.tuning.storages",
                "filters": "memory.tuning.filters",
                "inserts_per_second": "memory.tuning.inserts_per_second",
            }
        ),
        "99_rollback": MappingProxyType(
            {
                **_APPROVAL,
                **_DESTRUCTION,
                "phase": "rollback.phase",
                "since_run": "rollback.since_run",
                "target_dsn": "memory.target.dsn",
            }
        ),
    }
)
"""Runbook -> parameter of its notebook -> dotted path of the setting, whose type and range the parameter has."""


def parameter_names(runbook: str) -> tuple[str, ...]:
    """The parameters of a runbook's notebook besides ``environment``. Raises ParameterError for an unknown runbook."""
    if runbook not in OVERRIDES:
        raise ParameterError(f"there is no runbook {runbook!r}; there are {', '.join(OVERRIDES)}")
    return tuple(OVERRIDES[runbook])


def secret_parameters(runbook: str) -> tuple[str, ...]:
    """The parameters of a runbook that are secret: connection strings."""
    return tuple(name for name, place in OVERRIDES.get(runbook, {}).items() if place.endswith(".dsn"))
