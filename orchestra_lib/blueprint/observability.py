"""What is kept and who is told: audit logs, the channel of the alerts, a dashboard, the budget.

The dashboard shows the alerts themselves, so no threshold stands twice.
"""

from __future__ import annotations

from typing import Any

from orchestra_lib.blueprint import metrics
from orchestra_lib.blueprint.alerts import policy, policy_on_keys_and_basic_roles, uptime_checks, watches
from orchestra_lib.blueprint.metrics import per_second
from orchestra_lib.blueprint.specification import Specification
from orchestra_lib.cloud.resource import Ref, Resource, Text

# A dashboard's grid has 48 columns.
_COLUMNS = 48
_TILE = (16, 12)  # columns, rows: three in a row


def observability(spec: Specification) -> list[Resource]:
    """Audit logs and where they are kept, who is told of what, the dashboard and the budget."""
    channel = spec.resource(
        "notification channel",
        spec.project_path,
        "Orchestra operators",
        {"type": "email", "labels": {"email_address": spec.email}, "userLabels": dict(spec.labels)},
    )
    checks = uptime_checks(spec)
    policies = [policy(spec, channel, watch) for watch in watches(spec)]
    guard = policy_on_keys_and_basic_roles(spec, channel)
    return [
        *_audit(spec),
        channel,
        *checks,
        *policies,
        guard,
        _dashboard(spec, policies),
        _budget(spec, channel),
    ]


def _audit(spec: Specification) -> list[Resource]:
    """Which audit logs are written, and a bucket that keeps them, with the sink that fills it."""
    types = {"logTypes": list(spec.logging.audit_log_types)}
    written = spec.resource("audit logs", spec.project_path, "allServices", types)
    bucket = spec.resource(
        "log bucket",
        spec.location(spec.regions.primary),
        "orchestra-audit",
        {"description": "Audit logs of the project", "retentionDays": spec.logging.audit_retention_days},
    )
    sink = spec.resource(
        "log sink",
        spec.project_path,
        "orchestra-audit",
        {
            "description": "Audit logs into their own bucket",
            "destination": f"logging.googleapis.com/{bucket.parent}/buckets/{bucket.id}",
            "filter": 'logName:"/logs/cloudaudit.googleapis.com"',
        },
        (bucket.key,),
    )
    return [written, bucket, sink]


def _dashboard(spec: Specification, policies: list[Resource]) -> Resource:
    service = {"service_name": spec.api.service}
    window = spec.alerting.window_seconds
    charts = (
        ("API requests a second", per_second(metrics.API_REQUESTS, window, **service)),
        ("API instances", f"sum by (state) ({metrics.API_INSTANCES.series(**service)})"),
        ("Rows that wait for the stream", f"sum({metrics.SYNC_BACKLOG.series()})"),
        ("Seconds that the stream is behind", f"max({metrics.SYNC_LAG.series()})"),
        ("Log that the stream has not confirmed, in bytes", f"max({metrics.SYNC_LAG_BYTES.series()})"),
        ("From commit to commit, p95 in s", f"max({metrics.SYNC_FRESHNESS.series()})"),
    )
    widgets: list[dict[str, Any]] = [
        *({"title": policy.id, "alertChart": {"name": Ref(policy.key)}} for policy in policies),
        *({"title": title, "xyChart": {"dataSets": [_line(query)]}} for title, query in charts),
        {"title": "Open incidents", "incidentList": {}},
        {
            "title": "Errors",
            "logsPanel": {"filter": "severity>=ERROR", "resourceNames": [spec.project_path]},
        },
    ]
    width, height = _TILE
    a_row = _COLUMNS // width
    tiles = [
        {
            "xPos": index % a_row * width,
            "yPos": index // a_row * height,
            "width": width,
            "height": height,
            "widget": widget,
        }
        for index, widget in enumerate(widgets)
    ]
    body = {"displayName": "Orchestra", "mosaicLayout": {"columns": _COLUMNS, "tiles": tiles}}
    return spec.resource("dashboard", spec.project_path, "orchestra", body)


def _line(query: str) -> dict[str, Any]:
    return {"plotType": "LINE", "timeSeriesQuery": {"prometheusQuery": query}}


def _budget(spec: Specification, channel: Resource) -> Resource:
    """What the project may cost a month. It stops nothing: it tells."""
    units, cents = divmod(round(spec.cost.budget_usd * 100), 100)
    amount: dict[str, Any] = {"currencyCode": "USD", "units": str(units)}
    if cents:
        amount["nanos"] = cents * 10_000_000
    rules = [
        {"thresholdPercent": ratio, "spendBasis": basis}
        for basis, ratios in (
            ("CURRENT_SPEND", spec.cost.budget_alert_ratios),
            ("FORECASTED_SPEND", spec.cost.budget_forecast_ratios),
        )
        for ratio in ratios
    ]
    return spec.resource(
        "budget",
        f"billingAccounts/{spec.billing_account}",
        f"Orchestra: {spec.project.id} a month",
        {
            "amount": {"specifiedAmount": amount},
            "budgetFilter": {"projects": [Text("projects/{}", (spec.project_number,))], "calendarPeriod": "MONTH"},
            "thresholdRules": rules,
            "notificationsRule": {"monitoringNotificationChannels": [Ref(channel.key)]},
        },
    )
