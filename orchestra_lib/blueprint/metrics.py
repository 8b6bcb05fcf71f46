"""The metrics that are watched: Google's own, and those that this project's programs write. Their queries in PromQL.

Names in PromQL: https://cloud.google.com/monitoring/promql/promql-mapping
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

CUSTOM = "custom.googleapis.com/orchestra"


@dataclass(frozen=True)
class Metric:
    """A metric's type, the type of resource that it is about, and its unit."""

    type: str
    resource: str
    unit: str

    def series(self, suffix: str = "", **labels: str) -> str:
        """The PromQL selector of its time series with these labels; ``suffix`` is that of a histogram's part."""
        host, _, path = self.type.partition("/")
        selected = {"monitored_resource": self.resource, **labels}
        pairs = ", ".join(f'{label}="{value}"' for label, value in selected.items())
        return f"{_in_promql(host)}:{_in_promql(path)}{suffix}{{{pairs}}}"


def _in_promql(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]", "_", text)


# Of Google. CPU is in https://cloud.google.com/alloydb/docs/reference/system-insights-metrics; its unit is 10^2.%, so
# its values are from 0 to 1. The others stand in other people's dashboards and integrations, the lag only there
# (https://docs.datadoghq.com/integrations/google-cloud-alloydb): whoever validates has to see data in them.
API_LATENCY = Metric("run.googleapis.com/request_latencies", "cloud_run_revision", "ms")
API_REQUESTS = Metric("run.googleapis.com/request_count", "cloud_run_revision", "1")
API_INSTANCES = Metric("run.googleapis.com/container/instance_count", "cloud_run_revision", "1")
DATABASE_CPU = Metric("alloydb.googleapis.com/instance/cpu/maximum_utilization", "alloydb.googleapis.com/Instance", "1")
REPLICATION_LAG = Metric(
    "alloydb.googleapis.com/instance/postgres/replication/maximum_secondary_lag",
    "alloydb.googleapis.com/Instance",
    "ms",
)
UPTIME = Metric("monitoring.googleapis.com/uptime_check/check_passed", "uptime_url", "1")

# Of this project's programs, which write them as soon as they run. Latencies are distributions.
VECTOR_SEARCH_LATENCY = Metric(f"{CUSTOM}/vector_search/latencies", "generic_task", "ms")
MEMORY_RETRIEVAL_LATENCY = Metric(f"{CUSTOM}/memory_retrieval/latencies", "generic_task", "ms")
SYNC_RECORDS = Metric(f"{CUSTOM}/sync/record_count", "generic_task", "1")
SYNC_BACKLOG = Metric(f"{CUSTOM}/sync/backlog_records", "generic_task", "1")
SYNC_LAG = Metric(f"{CUSTOM}/sync/lag_seconds", "generic_task", "s")
SYNC_LAG_BYTES = Metric(f"{CUSTOM}/sync/lag_bytes", "generic_task", "By")
SYNC_FRESHNESS = Metric(f"{CUSTOM}/sync/freshness_p95_seconds", "generic_task", "s")
SYNC_QUARANTINED = Metric(f"{CUSTOM}/sync/quarantined_records", "generic_task", "1")
# 1 while the target is left alone, also during the trial that ends it; 0 otherwise.
SYNC_BREAKER = Metric(f"{CUSTOM}/sync/breaker_open", "generic_task", "1")
SLOT_RETAINED = Metric(f"{CUSTOM}/replication_slot/retained_bytes", "generic_task", "By")

NOT_WATCHED: Mapping[str, str] = {
    "workstation_start_seconds": "no name of a metric of Cloud Workstations is confirmed; the runbooks time the starts"
}
"""Targets that no alert watches, and why."""


def p95(metric: Metric, window_seconds: int, **labels: str) -> str:
    """The 95th percentile of a distribution over the window."""
    rate = f"rate({metric.series('_bucket', **labels)}[{window_seconds}s])"
    return f"histogram_quantile(0.95, sum by (le) ({rate}))"


def per_second(metric: Metric, window_seconds: int, **labels: str) -> str:
    """How much a counter grew a second over the window."""
    return f"sum(rate({metric.series(**labels)}[{window_seconds}s]))"
