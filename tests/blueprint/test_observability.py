"""What is watched: every target at its own number, and each number in one place."""

from __future__ import annotations

import re
from typing import Any

import pytest
import settings_content
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure, metrics
from orchestra_lib.blueprint.metrics import NOT_WATCHED
from orchestra_lib.cloud.resource import Ref, Resource, Text
from orchestra_lib.cloud.stream_metrics import ROWS
from orchestra_lib.settings.model import Targets

LOCAL = settings.load("local")
RESOURCES = infrastructure(LOCAL)
TARGETS = set(Targets.model_fields)

# Setting -> the words in the name of the alert that has it as its threshold.
WATCHED = {
    "targets__api_p95_ms": "API latency",
    "targets__vector_search_p95_ms": "vector search",
    "targets__memory_retrieval_p95_ms": "memory retrieval",
    "targets__sync_records_per_second": "synchronisation",
    "alerting__api_error_ratio": "API errors",
    "alerting__database_cpu_ratio": "database CPU",
    "alerting__replication_lag_seconds": "secondary region",
    "alerting__replication_slot_gib": "replication slot",
}


def query(policy: Resource) -> str:
    return str(policy.body["conditions"][0]["conditionPrometheusQueryLanguage"]["query"])


def metric_policies(resources: list[Resource]) -> list[Resource]:
    return [
        resource
        for resource in resources
        if resource.kind == "alert policy" and "conditionPrometheusQueryLanguage" in resource.body["conditions"][0]
    ]


def threshold(policy: Resource) -> float:
    found = re.search(r"[<>] ([0-9.e+-]+)", query(policy))
    assert found
    return float(found[1])


def watching(resources: list[Resource], words: str) -> Resource:
    (found,) = [policy for policy in metric_policies(resources) if words in policy.id]
    return found


def only(kind: str) -> Resource:
    (found,) = [resource for resource in RESOURCES if resource.kind == kind]
    return found


def test_every_target_is_watched_or_it_is_said_why_not() -> None:
    watched = {place.removeprefix("targets__") for place in WATCHED if place.startswith("targets__")}
    assert watched | set(NOT_WATCHED) == TARGETS
    assert not watched & set(NOT_WATCHED)
    assert all(len(reason) > 20 for reason in NOT_WATCHED.values())


@pytest.mark.parametrize(("place", "words"), WATCHED.items())
def test_a_threshold_is_the_number_of_the_settings(place: str, words: str) -> None:
    section, _, name = place.partition("__")
    assert threshold(watching(RESOURCES, words)) == getattr(getattr(LOCAL, section), name)


@given(place=st.sampled_from(sorted(WATCHED)), share=st.floats(min_value=0.001, max_value=0.999))
def test_a_changed_number_changes_exactly_that_threshold(place: str, share: float) -> None:
    section, _, name = place.partition("__")
    value = getattr(getattr(LOCAL, section), name) * share
    changed = infrastructure(settings_content.with_values(**{place: value}))
    differing = [after for before, after in zip(RESOURCES, changed, strict=True) if before != after]
    assert [one.id for one in differing] == [watching(changed, WATCHED[place]).id]
    (policy,) = differing
    assert threshold(policy) == value
    before = watching(RESOURCES, WATCHED[place])
    assert query(policy).replace(f" {value!r}", "") == query(before).replace(f" {threshold(before)!r}", "")
    rest = {**policy.body, "conditions": before.body["conditions"]}
    assert rest == before.body


def test_a_slow_stream_is_told_of_only_while_more_than_a_batch_waits() -> None:
    text = query(watching(RESOURCES, "synchronisation"))
    assert re.search(r"\) < 1500\.0\) and \(.*backlog_records.*\) > 500\)$", text)


@pytest.mark.parametrize(
    ("words", "metric", "severity"),
    [
        ("in quarantine", metrics.SYNC_QUARANTINED, "CRITICAL"),
        ("circuit breaker", metrics.SYNC_BREAKER, "WARNING"),
    ],
)
def test_what_should_never_be_is_told_of_from_the_first(words: str, metric: metrics.Metric, severity: str) -> None:
    policy = watching(RESOURCES, words)
    assert query(policy) == f"max({metric.series()}) > 0"
    assert policy.body["severity"] == severity


def test_everything_that_the_stream_writes_is_on_the_dashboard_or_in_an_alert() -> None:
    tiles = only("dashboard").body["mosaicLayout"]["tiles"]
    charts = [
        data_set["timeSeriesQuery"]["prometheusQuery"] for tile in tiles for data_set in data_sets(tile["widget"])
    ]
    shown = " ".join([*charts, *(query(policy) for policy in metric_policies(RESOURCES))])
    assert [row.metric.type for row in ROWS if row.metric.series() not in shown] == []


def data_sets(widget: dict[str, Any]) -> list[dict[str, Any]]:
    return list(widget.get("xyChart", {}).get("dataSets", []))


@pytest.mark.parametrize("policy", metric_policies(RESOURCES), ids=lambda policy: policy.id)
def test_a_condition_is_balanced_names_its_resource_and_waits_for_no_metric_to_exist(policy: Resource) -> None:
    text, condition = query(policy), policy.body["conditions"][0]["conditionPrometheusQueryLanguage"]
    for opening, closing in ("()", "{}", "[]"):
        assert text.count(opening) == text.count(closing)
    assert text.count('"') % 2 == 0
    for name, labels in re.findall(r"([a-z_]+_com:[a-z0-9_]+)\{([^}]*)\}", text):
        assert "monitored_resource=" in labels, name
    assert condition["disableMetricValidation"] is True
    assert int(condition["evaluationInterval"].removesuffix("s")) % 30 == 0


def test_everybody_who_is_told_is_told_through_the_one_channel() -> None:
    channel = only("notification channel")
    assert channel.body["labels"] == {"email_address": "operators@example.com"}
    policies = [resource for resource in RESOURCES if resource.kind == "alert policy"]
    assert all(policy.body["notificationChannels"] == [Ref(channel.key)] for policy in policies)
    assert all(policy.body["documentation"]["content"] for policy in policies)
    assert only("budget").body["notificationsRule"]["monitoringNotificationChannels"] == [Ref(channel.key)]


def test_a_key_or_a_basic_role_is_told_of() -> None:
    (policy,) = [
        resource
        for resource in RESOURCES
        if resource.kind == "alert policy" and "conditionMatchedLog" in resource.body["conditions"][0]
    ]
    text = policy.body["conditions"][0]["conditionMatchedLog"]["filter"]
    assert "CreateServiceAccountKey" in text
    assert "roles/(owner|editor)" in text
    assert policy.body["alertStrategy"]["notificationRateLimit"]["period"] == "300s"  # the API demands one


def test_the_dashboard_shows_every_alert_on_a_metric_and_no_two_tiles_overlap() -> None:
    layout = only("dashboard").body["mosaicLayout"]
    shown = [tile["widget"]["alertChart"]["name"] for tile in layout["tiles"] if "alertChart" in tile["widget"]]
    assert shown == [Ref(policy.key) for policy in metric_policies(RESOURCES)]
    cells = [
        (x, y)
        for tile in layout["tiles"]
        for x in range(tile["xPos"], tile["xPos"] + tile["width"])
        for y in range(tile["yPos"], tile["yPos"] + tile["height"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < layout["columns"]


def test_nothing_of_ours_is_checked_from_outside_before_it_has_a_host() -> None:
    (check,) = [resource for resource in RESOURCES if resource.kind == "uptime check"]
    assert check.body["monitoredResource"]["labels"]["host"] == "token.actions.githubusercontent.com"


def test_the_api_is_checked_and_watched_as_soon_as_it_has_a_host() -> None:
    resources = infrastructure(settings_content.with_values(api__host="api.example.com"))
    checks = [resource for resource in resources if resource.kind == "uptime check"]
    assert [check.body["monitoredResource"]["labels"]["host"] for check in checks][1:] == ["api.example.com"]
    assert 'host="api.example.com"' in query(watching(resources, "api.example.com"))
    assert all(check.body["httpCheck"]["validateSsl"] for check in checks)
    assert all(check.body["period"] in ("60s", "300s", "600s", "900s") for check in checks)


def test_audit_logs_go_into_a_bucket_that_keeps_them_as_long_as_the_settings_say() -> None:
    bucket, sink = only("log bucket"), only("log sink")
    assert bucket.body["retentionDays"] == 400
    assert sink.body["destination"] == f"logging.googleapis.com/{bucket.parent}/buckets/{bucket.id}"
    assert only("audit logs").body == {"logTypes": ["ADMIN_READ", "DATA_READ", "DATA_WRITE"]}


def test_the_budget_is_the_projects_and_tells_at_the_ratios_of_the_settings() -> None:
    body = only("budget").body
    assert body["amount"]["specifiedAmount"] == {"currencyCode": "USD", "units": "3300"}
    assert body["budgetFilter"]["projects"] == [Text("projects/{}", (Ref(RESOURCES[0].key, "projectNumber"),))]
    told = [(rule["spendBasis"], rule["thresholdPercent"]) for rule in body["thresholdRules"]]
    assert told == [
        ("CURRENT_SPEND", 0.5),
        ("CURRENT_SPEND", 0.8),
        ("CURRENT_SPEND", 1.0),
        ("FORECASTED_SPEND", 1.0),
    ]


@given(cents=st.integers(min_value=1, max_value=10**9))
def test_a_budget_is_kept_to_the_cent(cents: int) -> None:
    resources = infrastructure(settings_content.with_values(cost__budget_usd=cents / 100))
    (budget,) = [resource for resource in resources if resource.kind == "budget"]
    amount = budget.body["amount"]["specifiedAmount"]
    assert int(amount["units"]) * 100 + amount.get("nanos", 0) // 10_000_000 == cents
