"""What is watched: a value for each alert, the threshold beyond which it is wrong, and what is asked from outside.

Thresholds come from the settings, each from one place: those of ``targets`` for what the strategy wants to reach, those
of ``alerting`` for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestra_lib.blueprint import metrics
from orchestra_lib.blueprint.delivery import GITHUB_ISSUER
from orchestra_lib.blueprint.metrics import p95, per_second
from orchestra_lib.blueprint.specification import Specification
from orchestra_lib.cloud.resource import Ref, Resource

_GIB = 1 << 30
_INCIDENT_CLOSES_SECONDS = 86_400
_NOTIFICATION_PERIOD_SECONDS = 300
_UPTIME_PERIOD_SECONDS = 300
_UPTIME_TIMEOUT_SECONDS = 10
_HALF_OF_THE_CHECKERS = 0.5
_NONE = 0

_BASIC_ROLE_OR_KEY = (
    'log_id("cloudaudit.googleapis.com/activity") AND '
    '(protoPayload.methodName="google.iam.admin.v1.CreateServiceAccountKey" OR '
    '(protoPayload.serviceData.policyDelta.bindingDeltas.action="ADD" AND '
    'protoPayload.serviceData.policyDelta.bindingDeltas.role=~"^roles/(owner|editor)$"))'
)


@dataclass(frozen=True)
class Watch:
    """One alert: a value that a query gives, and the threshold beyond which it is wrong."""

    name: str
    query: str
    comparison: str
    threshold: float
    advice: str
    severity: str = "WARNING"
    only_while: str = ""

    @property
    def condition(self) -> str:
        """The whole condition in PromQL."""
        wrong = f"{self.query} {self.comparison} {self.threshold!r}"
        return f"({wrong}) and ({self.only_while})" if self.only_while else wrong


def watches(spec: Specification) -> tuple[Watch, ...]:
    """Everything that is watched, targets first."""
    targets, alerting, window = spec.targets, spec.alerting, spec.alerting.window_seconds
    service = {"service_name": spec.api.service}
    errors = per_second(metrics.API_REQUESTS, window, **service, response_code_class="5xx")
    by_instance = "max by (cluster_id, instance_id)"
    backlog = f"min_over_time({metrics.SYNC_BACKLOG.series()}[{window}s])"
    return (
        # The memory API waits for no model that thinks: one service, one kind of latency.
        Watch(
            "Orchestra: API latency, p95 in ms",
            p95(metrics.API_LATENCY, window, **service),
            ">",
            targets.api_p95_ms,
            "Compare with vector search: if that is fast, look at instances, cold starts and concurrency.",
        ),
        Watch(
            "Orchestra: vector search, p95 in ms",
            p95(metrics.VECTOR_SEARCH_LATENCY, window),
            ">",
            targets.vector_search_p95_ms,
            "Look at the probes that sessions set, at enable_seqscan, and whether the index fits in memory.",
        ),
        Watch(
            "Orchestra: memory retrieval, p95 in ms",
            p95(metrics.MEMORY_RETRIEVAL_LATENCY, window),
            ">",
            targets.memory_retrieval_p95_ms,
            "Vector search is a part of it: look there first, then at connections.",
        ),
        Watch(
            "Orchestra: synchronisation, records a second",
            per_second(metrics.SYNC_RECORDS, window),
            "<",
            targets.sync_records_per_second,
            "More than a batch waits, and the stream is slower than its target: look at the target's CPU and locks.",
            # A quiet stream is no slow one.
            only_while=f"sum({backlog}) > {spec.memory.sync.batch_size}",
        ),
        Watch(
            "Orchestra: records in quarantine",
            f"max({metrics.SYNC_QUARANTINED.series()})",
            ">",
            _NONE,
            "The target refused these changes and lacks them: orchestra_stream.quarantine there says which and why.",
            severity="CRITICAL",
        ),
        Watch(
            "Orchestra: the circuit breaker of the stream is open",
            f"max({metrics.SYNC_BREAKER.series()})",
            ">",
            _NONE,
            "The target fails or is too slow and is left alone; the changes wait in the source's log. Look at the "
            "target first.",
        ),
        Watch(
            "Orchestra: API errors, part of requests",
            f"{errors} / {per_second(metrics.API_REQUESTS, window, **service)}",
            ">",
            alerting.api_error_ratio,
            "Move the traffic back to the revision before: 05_api says how.",
            severity="CRITICAL",
        ),
        Watch(
            "Orchestra: database CPU, part of the busiest node",
            f"{by_instance} (avg_over_time({metrics.DATABASE_CPU.series()}[{window}s]))",
            ">",
            alerting.database_cpu_ratio,
            "Look at Query Insights for what is new; then at more vCPUs.",
        ),
        Watch(
            "Orchestra: replication to the secondary region, s behind",
            f"{by_instance} ({metrics.REPLICATION_LAG.series()}) / 1000",
            ">",
            alerting.replication_lag_seconds,
            "This is what would be lost if the primary region failed now.",
            severity="CRITICAL",
        ),
        Watch(
            "Orchestra: replication slot, GiB kept",
            f"max({metrics.SLOT_RETAINED.series()}) / {_GIB}",
            ">",
            alerting.replication_slot_gib,
            "The stream does not read, and today's store keeps its WAL: start the stream or drop the slot before the "
            "disk is full.",
            severity="CRITICAL",
        ),
        *(
            Watch(
                f"Orchestra: {host} answers, part of the checks",
                f"avg(avg_over_time({metrics.UPTIME.series(host=host)}[{2 * _UPTIME_PERIOD_SECONDS}s]))",
                "<",
                _HALF_OF_THE_CHECKERS,
                "Half of the world's checkers get no good answer.",
                severity="CRITICAL" if host == spec.api.host else "WARNING",
            )
            for host in (check.body["monitoredResource"]["labels"]["host"] for check in uptime_checks(spec))
        ),
    )


def uptime_checks(spec: Specification) -> list[Resource]:
    """What can be asked from outside.

    In phase 1 nothing of ours answers yet, and a check of a host that is not there could only fail; the API's begins
    once ``api.host`` is set. What phase 1 does depend on is the issuer that GitHub's tokens are verified against.
    """
    issuer = _uptime_check(
        spec,
        GITHUB_ISSUER.removeprefix("https://"),
        "/.well-known/openid-configuration",
        {"contentMatchers": [{"content": GITHUB_ISSUER, "matcher": "CONTAINS_STRING"}]},
    )
    if spec.api.host is None:
        return [issuer]
    authorised = {"serviceAgentAuthentication": {"type": "OIDC_TOKEN"}}
    return [issuer, _uptime_check(spec, spec.api.host, "/health", http=authorised)]


def _uptime_check(
    spec: Specification, host: str, path: str, more: dict[str, Any] | None = None, http: dict[str, Any] | None = None
) -> Resource:
    body = {
        "monitoredResource": {"type": "uptime_url", "labels": {"project_id": spec.project.id, "host": host}},
        "httpCheck": {
            "requestMethod": "GET",
            "path": path,
            "port": 443,
            "useSsl": True,
            "validateSsl": True,
            **(http or {}),
        },
        "period": f"{_UPTIME_PERIOD_SECONDS}s",
        "timeout": f"{_UPTIME_TIMEOUT_SECONDS}s",
        "userLabels": dict(spec.labels),
        **(more or {}),
    }
    return spec.resource("uptime check", spec.project_path, f"Orchestra: {host}", body)


def policy(spec: Specification, channel: Resource, watch: Watch) -> Resource:
    """The alert policy of one watch; who is told is behind the channel."""
    condition = {
        "query": watch.condition,
        "duration": f"{spec.alerting.duration_seconds}s",
        "evaluationInterval": "60s",
        # Most of the metrics are written first by a later phase; without this the service refuses the policy (404).
        "disableMetricValidation": True,
    }
    return spec.resource(
        "alert policy",
        spec.project_path,
        watch.name,
        {
            "combiner": "OR",
            "enabled": True,
            "severity": watch.severity,
            "conditions": [{"displayName": watch.name, "conditionPrometheusQueryLanguage": condition}],
            "alertStrategy": {"autoClose": f"{_INCIDENT_CLOSES_SECONDS}s"},
            "documentation": {"content": watch.advice, "mimeType": "text/markdown"},
            "notificationChannels": [Ref(channel.key)],
            "userLabels": dict(spec.labels),
        },
    )


def policy_on_keys_and_basic_roles(spec: Specification, channel: Resource) -> Resource:
    """The alert policy on what this project never has: keys of service accounts, Owner and Editor."""
    name = "Orchestra: a service account key, or Owner or Editor for somebody"
    return spec.resource(
        "alert policy",
        spec.project_path,
        name,
        {
            "combiner": "OR",
            "enabled": True,
            "severity": "CRITICAL",
            "conditions": [{"displayName": name, "conditionMatchedLog": {"filter": _BASIC_ROLE_OR_KEY}}],
            "alertStrategy": {
                "autoClose": f"{_INCIDENT_CLOSES_SECONDS}s",
                "notificationRateLimit": {"period": f"{_NOTIFICATION_PERIOD_SECONDS}s"},
            },
            "documentation": {
                "content": "This project has neither. Take it back, and find out who needed what.",
                "mimeType": "text/markdown",
            },
            "notificationChannels": [Ref(channel.key)],
            "userLabels": dict(spec.labels),
        },
    )
