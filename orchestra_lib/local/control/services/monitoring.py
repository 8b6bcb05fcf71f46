"""Cloud Monitoring: alert policies, channels, dashboards, services, uptime checks, metrics scopes.

https://cloud.google.com/monitoring/api/ref_v3/rest
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestra_lib.local.control import operations, standard
from orchestra_lib.local.control.call import Call, digits, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service, fill_missing, not_found
from orchestra_lib.local.control.operation_styles import bare
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.store import Stored

_MASKED = "******"
_DAY_SECONDS = 86_400
_LONGEST_ROLLING_DAYS = 30
_HIGHEST_GOAL = 0.9999
_CALENDAR_PERIODS = frozenset({"DAY", "WEEK", "FORTNIGHT", "MONTH"})
_UPTIME_PERIODS = frozenset({"60s", "300s", "600s", "900s"})
_METRIC_DOMAINS = ("custom.googleapis.com/", "external.googleapis.com/", "prometheus.googleapis.com/")
_SCOPES = "locations/global/metricsScopes"
_METRICS_SCOPE_MESSAGES = "type.googleapis.com/google.monitoring.metricsscope.v1"


def _server_id(_call: Call, _body: Body) -> str:
    return digits(str(uuid.uuid4()), 19)


# --- alert policies and channels ----------------------------------------------------------------------------------


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
            condition["name"] = f"{body['name']}/conditions/{_server_id(call, body)}"
    if "documentation" in body:
        fill_missing(body["documentation"], {"mimeType": "text/markdown"})


def _fill_channel(call: Call, body: Body, before: Body | None) -> None:
    record = {"mutateTime": call.time}
    body["creationRecord"] = before["creationRecord"] if before else record
    body["mutationRecords"] = [*(before or {}).get("mutationRecords", []), record]


@dataclass(frozen=True)
class Channel:
    """A type of notification channel. https://cloud.google.com/monitoring/support/notification-options"""

    type: str
    display_name: str
    labels: tuple[str, ...]
    secret: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


_CHANNELS = {
    channel.type: channel
    for channel in (
        Channel("email", "Email", ("email_address",)),
        Channel("google_chat", "Google Chat", ("space",)),
        Channel("pagerduty", "PagerDuty Services", ("service_key",), secret=frozenset({"service_key"})),
        Channel("pubsub", "Cloud Pub/Sub", ("topic",)),
        Channel(
            "slack",
            "Slack",
            ("auth_token", "channel_name", "team"),
            secret=frozenset({"auth_token"}),
            optional=frozenset({"auth_token", "team"}),
        ),
        Channel("sms", "SMS", ("number",)),
        Channel(
            "webhook_basicauth",
            "Webhook with Basic Authentication",
            ("password", "url", "username"),
            secret=frozenset({"password"}),
        ),
        Channel("webhook_tokenauth", "Webhook with Token Authentication", ("url",)),
    )
}


def _show_channel(_control: Any, _key: str, _version: str, body: Body) -> Body:
    """Secrets among the labels are never shown again."""
    secret = _CHANNELS[body["type"]].secret
    labels = {name: _MASKED if name in secret else value for name, value in body.get("labels", {}).items()}
    return {**body, "labels": labels} if labels else body


def _check_channel(_call: Call, body: Body, _before: Body | None) -> None:
    channel = _CHANNELS.get(body.get("type", ""))
    if channel is None:
        raise bad_field(
            "notification_channel.type",
            f'Field "notification_channel.type" had an invalid value of "{body.get("type", "")}": it has to be one of '
            f"{', '.join(_CHANNELS)}.",
        )
    for name in channel.labels:
        if name not in body.get("labels", {}) and name not in channel.optional:
            raise bad_field(
                "notification_channel.labels",
                f'Field "notification_channel.labels[\'{name}\']" is required for channels of type "{channel.type}".',
            )


def _channel_descriptors(_control: Any, parent: str) -> Mapping[str, Body]:
    path = parent.split("/", 1)[1]
    return {
        channel.type: {
            "name": f"{path}/notificationChannelDescriptors/{channel.type}",
            "type": channel.type,
            "displayName": channel.display_name,
            "labels": [{"key": name} for name in channel.labels],
            "launchStage": "GA",
        }
        for channel in _CHANNELS.values()
    }


def _forget_channel(call: Call, row: Stored) -> None:
    """A channel that policies use is deleted only with ``force``, and then those policies lose it."""
    name = row.key.split("/", 1)[1]
    for policy in call.control.rows_in(f"{row.parent}/alertPolicies"):
        channels = policy.body.get("notificationChannels", [])
        if name not in channels:
            continue
        if not call.flag("force"):
            raise Fault("FAILED_PRECONDITION", f"Channel {name} is used by alert policy {policy.body['name']}.")
        left = [channel for channel in channels if channel != name]
        call.control.store.put(policy.key, {**policy.body, "notificationChannels": left})


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


# --- metric descriptors -------------------------------------------------------------------------------------------


def _metric_id(_call: Call, body: Body) -> str:
    return str(body.get("type", "")).replace("/", "%2F")


def _check_metric(_call: Call, body: Body, _before: Body | None) -> None:
    kind = body.get("type", "")
    if not kind.startswith(_METRIC_DOMAINS):
        raise bad_field(
            "metricDescriptor.type",
            f'Field metricDescriptor.type had an invalid value of "{kind}": The metric type must be a URL-formatted '
            "string with a domain of custom.googleapis.com or external.googleapis.com and a non-empty path.",
        )
    for name in ("metricKind", "valueType"):
        if name not in body:
            raise bad_field(f"metricDescriptor.{name}", f"Field metricDescriptor.{name} must be specified.")


def _fill_metric(call: Call, body: Body, _before: Body | None) -> None:
    body["name"] = f"projects/{call.project}/metricDescriptors/{body['type']}"


def _create_metric(call: Call) -> Body:
    """A descriptor that is there already is replaced, as the service does."""
    key = f"{call.key}/{_metric_id(call, call.body)}"
    if call.control.find(key):
        call.control.store.remove(key)
    return standard.create(call)


# --- metrics scopes -----------------------------------------------------------------------------------------------


def _one_path(control: Any, path: str) -> str:
    """Metrics scopes are named by the id or the number of their project."""
    if not path.startswith(f"{_SCOPES}/"):
        return path
    parts = path.split("/")
    for position in (3, 5):
        if position < len(parts):
            parts[position] = _project(control, parts[position])
    return "/".join(parts)


def _project(control: Any, named: str) -> str:
    known: str = control.projects.adopt(named, control.clock()) if control.permissive else control.projects.id(named)
    return known


def _monitored(control: Any, scope: str, project: str, at: str) -> Body:
    number = control.projects.number
    return {"name": f"{_SCOPES}/{number(scope)}/projects/{number(project)}", "createTime": at}


def _scope(control: Any, project: str) -> Body:
    """The scope of a project: itself and what was added. Raises Fault when there is no such project."""
    row = control.find(f"cloudresourcemanager/projects/{project}")
    if row is None:
        raise Fault("PERMISSION_DENIED", f"Permission denied on resource project {project}.")
    born = row.body["createTime"]
    added = control.rows_in(f"monitoring/{_SCOPES}/{project}/projects")
    return {
        "name": f"{_SCOPES}/{control.projects.number(project)}",
        "createTime": born,
        "updateTime": max([born, *(other.body["createTime"] for other in added)]),
        "monitoredProjects": [
            _monitored(control, project, project, born),
            *(_monitored(control, project, other.key.rsplit("/", 1)[1], other.body["createTime"]) for other in added),
        ],
    }


def _get_scope(call: Call) -> Body:
    return _scope(call.control, call.segments[3])


def _add_to_scope(call: Call) -> Body:
    scope = call.segments[3]
    project = _project(call.control, str(call.body.get("name", "")).rsplit("/", 1)[-1])
    _scope(call.control, scope)
    _scope(call.control, project)
    key = f"{call.key}/{project}"
    if call.control.find(key) or project == scope:
        raise Fault("ALREADY_EXISTS", f"Project {project} is already monitored by {_SCOPES}/{scope}.")
    call.control.store.put(key, {"createTime": call.time})
    answer = {"@type": f"{_METRICS_SCOPE_MESSAGES}.MonitoredProject"}
    answer |= _monitored(call.control, scope, project, call.time)
    return _scope_operation(call, key, "create", answer)


def _remove_from_scope(call: Call) -> Body:
    if call.control.find(call.key) is None:
        raise not_found(call.control, call.key)
    call.control.store.remove(call.key)
    return _scope_operation(call, call.key, "delete", operations.EMPTY)


def _scope_operation(call: Call, key: str, verb: str, answer: Body) -> Body:
    kind = f"{_METRICS_SCOPE_MESSAGES}.MonitoredProject"
    return operations.start(call, key, verb, message_type=kind, effect="none", answer=answer, ended=True)


def _scopes_of_project(call: Call) -> Body:
    """The scopes that monitor a project: its own, and those that it was added to."""
    named = call.query.get("monitoredResourceContainer", "").removeprefix("projects/")
    project = _project(call.control, named)
    others = {
        row.key.split("/")[4]
        for row in call.control.store.below(f"monitoring/{_SCOPES}/", "monitoring/projects")
        if row.key.rsplit("/", 1)[1] == project
    }
    return {"metricsScopes": [_scope(call.control, scope) for scope in (project, *sorted(others))]}


def _metadata(_control: Any, record: Record) -> Body:
    at = timestamp(record["started"])
    return {
        "@type": f"{_METRICS_SCOPE_MESSAGES}.OperationMetadata",
        "createTime": at,
        "state": "DONE" if record["ended"] is not None else "RUNNING",
        "updateTime": at,
    }


SERVICE = Service(
    name="monitoring",
    one_path=_one_path,
    kinds=(
        Kind(
            "alertPolicies",
            new_id=_server_id,
            defaults={"enabled": True},
            check=_check_policy,
            fill=_fill_policy,
            references={"notificationChannels": "monitoring"},
            not_found="Cannot find alert policy '{path}'.",
        ),
        Kind(
            "notificationChannels",
            new_id=_server_id,
            defaults={"enabled": True},
            check=_check_channel,
            fill=_fill_channel,
            show=_show_channel,
            before_delete=_forget_channel,
            not_found="Cannot find channel with resource name '{path}'.",
        ),
        Kind("notificationChannelDescriptors", built_in=_channel_descriptors),
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
            new_id=_server_id,
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
        Kind("snoozes", new_id=_server_id),
        Kind(
            "metricDescriptors",
            new_id=_metric_id,
            check=_check_metric,
            fill=_fill_metric,
            not_found="Could not find descriptor for metric '{id}'.",
        ),
    ),
    methods={
        "metricDescriptors.create": _create_metric,
        "metricsScopes.get": _get_scope,
        "metricsScopes.listMetricsScopesByMonitoredProject": _scopes_of_project,
        "monitoring.locations.global.metricsScopes.projects.create": _add_to_scope,
        "monitoring.locations.global.metricsScopes.projects.delete": _remove_from_scope,
    },
    operations=Style(bare(""), _metadata),
)
