"""Cloud Monitoring: alert policies, channels, dashboards, services, uptime checks, metrics, metrics scopes.

https://cloud.google.com/monitoring/api/ref_v3/rest
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service, fill_missing
from orchestra_lib.local.control.operation_styles import bare
from orchestra_lib.local.control.operations import Style
from orchestra_lib.local.control.services import (
    monitoring_channels,
    monitoring_metrics,
    monitoring_scopes,
    monitoring_series,
)
from orchestra_lib.local.control.services.monitoring_channels import server_id

_MASKED = "******"
_DAY_SECONDS = 86_400
_LONGEST_ROLLING_DAYS = 30
_HIGHEST_GOAL = 0.9999
_CALENDAR_PERIODS = frozenset({"DAY", "WEEK", "FORTNIGHT", "MONTH"})
_UPTIME_PERIODS = frozenset({"60s", "300s", "600s", "900s"})


# --- alert policies -----------------------------------------------------------------------------------------------


def _check_policy(_call: Call, body: Body, _before: Body | None) -> None:
    conditions = body.get("conditions", [])
    if not 1 <= len(conditions) <= 6:
        raise bad_field(
            "alert_policy.conditions",
            "Field alert_policy.conditions had an invalid value: "
            f"a policy has one to six conditions, not {len(conditions)}.",
        )
    if body.get("combiner", "COMBINE_UNSPECIFIED") == "COMBINE_UNSPECIFIED" and not any(
        "conditionSql" in condition for condition in conditions
    ):
        raise bad_field(
            "alert_policy.combiner",
            'Field alert_policy.combiner had an invalid value of "COMBINE_UNSPECIFIED": Must be specified.',
        )


def _fill_policy(call: Call, body: Body, before: Body | None) -> None:
    record = {"mutateTime": call.time, "mutatedBy": call.caller}
    body["creationRecord"] = before["creationRecord"] if before else record
    body["mutationRecord"] = record
    known = {condition["name"] for condition in (before or {}).get("conditions", [])}
    for condition in body["conditions"]:
        if condition.get("name") not in known:
            condition["name"] = f"{body['name']}/conditions/{server_id(call, body)}"
    if "documentation" in body:
        fill_missing(body["documentation"], {"mimeType": "text/markdown"})


# --- uptime checks ------------------------------------------------------------------------------------------------


def _uptime_id(_call: Call, body: Body) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", body.get("displayName", "").lower()).strip("-")
    return f"{words[:50] or 'check'}-{secrets.token_urlsafe(8)}"


def _check_uptime(_call: Call, body: Body, _before: Body | None) -> None:
    period = body.get("period", "60s")
    if period not in _UPTIME_PERIODS:
        raise bad_field("period", f"Uptime check period has to be 60s, 300s, 600s or 900s, not {period}.")


def _fill_uptime(_call: Call, body: Body, _before: Body | None) -> None:
    if not body.get("syntheticMonitor"):
        fill_missing(body, {"checkerType": "VPC_CHECKERS" if body.get("isInternal") else "STATIC_IP_CHECKERS"})
    http = body.get("httpCheck")
    if http is not None:
        fill_missing(http, {"path": "/", "port": 443 if http.get("useSsl") else 80, "requestMethod": "GET"})
        if not http["path"].startswith("/"):
            http["path"] = f"/{http['path']}"
        if "body" in http:
            http["headers"] = {**http.get("headers", {}), "Content-Length": str(_byte_length(http["body"]))}


def _byte_length(base64_text: str) -> int:
    return len(base64_text.rstrip("=")) * 3 // 4


def _show_uptime(_control: Any, _key: str, _version: str, body: Body) -> Body:
    http = body.get("httpCheck")
    if not http:
        return body
    shown = dict(http)
    if "password" in http.get("authInfo", {}):
        shown["authInfo"] = {**http["authInfo"], "password": _MASKED}
    if http.get("maskHeaders"):
        shown["headers"] = dict.fromkeys(http.get("headers", {}), _MASKED)
    return {**body, "httpCheck": shown}


# --- dashboards ---------------------------------------------------------------------------------------------------

# What a data set of a chart has when nothing is said.
_DATA_SET_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "xyChart": {"targetAxis": "Y1"},
    "timeSeriesTable": {"minAlignmentPeriod": "0s"},
}


def _fill_dashboard(_call: Call, body: Body, _before: Body | None) -> None:
    for name, chart in _objects(body):
        for data_set in chart.get("dataSets", ()) if name in _DATA_SET_DEFAULTS else ():
            fill_missing(data_set, _DATA_SET_DEFAULTS[name])


def _objects(value: Any, name: str = "") -> Iterator[tuple[str, Body]]:
    """Every object in a body with the field that it stands in."""
    if isinstance(value, dict):
        yield name, value
        for field, inner in value.items():
            yield from _objects(inner, field)
    elif isinstance(value, list):
        for item in value:
            yield from _objects(item, name)


# --- services and their objectives --------------------------------------------------------------------------------


def _check_objective(_call: Call, body: Body, _before: Body | None) -> None:
    goal = body.get("goal", 0)
    if not 0 < goal <= _HIGHEST_GOAL:
        raise bad_field("goal", f"The goal has to be greater than 0 and at most {_HIGHEST_GOAL}, not {goal}.")
    rolling, calendar = body.get("rollingPeriod"), body.get("calendarPeriod")
    if (rolling is None) == (calendar is None):
        raise bad_field("period", "Exactly one of rolling_period and calendar_period has to be set.")
    if calendar is not None and calendar not in _CALENDAR_PERIODS:
        raise bad_field(
            "calendarPeriod", f"The calendar period has to be DAY, WEEK, FORTNIGHT or MONTH, not {calendar}."
        )
    if rolling is not None:
        seconds = float(rolling.removesuffix("s"))
        if seconds <= 0 or seconds % _DAY_SECONDS or seconds > _LONGEST_ROLLING_DAYS * _DAY_SECONDS:
            raise bad_field(
                "rollingPeriod",
                f"The rolling period has to be 1 to {_LONGEST_ROLLING_DAYS} whole days, not {rolling}.",
            )


SERVICE = Service(
    name="monitoring",
    one_path=monitoring_scopes.one_path,
    kinds=(
        Kind(
            "alertPolicies",
            new_id=server_id,
            defaults={"enabled": True},
            check=_check_policy,
            fill=_fill_policy,
            references={"notificationChannels": "monitoring"},
            not_found="Cannot find alert policy '{path}'.",
        ),
        *monitoring_channels.KINDS,
        Kind(
            "dashboards",
            number_in_name=True,
            fill=_fill_dashboard,
            not_found="Requested entity was not found.",
            exists="Requested entity already exists",
        ),
        Kind(
            "services",
            number_in_name=True,
            not_found="There is no service with id '{id}' in project '{number}'",
            exists="Service '{id}' already exists in project '{number}'",
        ),
        Kind(
            "serviceLevelObjectives",
            number_in_name=True,
            check=_check_objective,
            not_found='There is no slo with id "{id}" under service "{parent}" in project "{project}"',
            exists='There already is an slo with id "{id}" under service "{parent}" in project "{project}"',
        ),
        Kind(
            "groups",
            new_id=server_id,
            references={"parentName": "monitoring"},
            not_found="Could not find group definition for '{id}'.",
        ),
        Kind(
            "uptimeCheckConfigs",
            new_id=_uptime_id,
            defaults={"period": "60s", "timeout": "10s"},
            check=_check_uptime,
            fill=_fill_uptime,
            show=_show_uptime,
            not_found="Config not found for check {id} in project {project}",
        ),
        Kind("snoozes", new_id=server_id),
        monitoring_metrics.descriptors(before_delete=monitoring_series.forget),
    ),
    methods={
        "metricDescriptors.create": monitoring_metrics.create,
        "metricDescriptors.list": monitoring_metrics.list_,
        **monitoring_scopes.METHODS,
        **monitoring_series.METHODS,
    },
    outside=monitoring_series.OUTSIDE,
    operations=Style(bare(""), monitoring_scopes.metadata),
)
