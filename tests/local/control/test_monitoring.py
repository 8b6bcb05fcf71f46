"""Cloud Monitoring: who changed what, channels and their users, masked secrets, objectives, scopes."""

from __future__ import annotations

from itertools import count

import pytest
from control_plane import PROJECT

ROOT = f"/monitoring/v3/projects/{PROJECT}"
CHANNELS, POLICIES, CHECKS = f"{ROOT}/notificationChannels", f"{ROOT}/alertPolicies", f"{ROOT}/uptimeCheckConfigs"
DASHBOARDS = f"/monitoring/v1/projects/{PROJECT}/dashboards"
SCOPES = "/monitoring/v1/locations/global/metricsScopes"
EMAIL = {"type": "email", "displayName": "on call", "labels": {"email_address": "dev@example.com"}}
CONDITION = {
    "displayName": "busy",
    "conditionThreshold": {
        "filter": 'metric.type="m" AND resource.type="r"',
        "comparison": "COMPARISON_GT",
        "duration": "0s",
    },
}
POLICY = {"displayName": "Busy", "combiner": "OR", "conditions": [CONDITION]}
HTTP = {
    "displayName": "API is up",
    "timeout": "5s",
    "monitoredResource": {"type": "uptime_url", "labels": {"host": "api.example"}},
}
_numbers = count(1)


def made(server, path, body):
    reply = server.post(path, body)
    assert reply.status == 200, reply.body
    return reply.body


# --- policies and channels ---


def test_a_policy_says_who_made_it_and_who_changed_it(server):
    policy = made(server, POLICIES, POLICY)
    assert policy["enabled"] is True
    assert policy["creationRecord"] == policy["mutationRecord"]
    assert policy["creationRecord"]["mutatedBy"] == "user@example.com"
    changed = server.patch(f"/monitoring/v3/{policy['name']}?updateMask=displayName", {"displayName": "Busier"}).body
    assert changed["creationRecord"] == policy["creationRecord"]
    assert changed["mutationRecord"] != policy["mutationRecord"]


def test_ids_come_from_the_server_and_conditions_keep_theirs(server):
    policy = made(server, POLICIES, {**POLICY, "name": f"projects/{PROJECT}/alertPolicies/mine"})
    assert policy["name"].rsplit("/", 1)[1].isdigit()
    condition = policy["conditions"][0]
    assert condition["name"].startswith(f"{policy['name']}/conditions/")
    conditions = [{**condition, "displayName": "renamed"}, CONDITION]
    changed = server.patch(f"/monitoring/v3/{policy['name']}?updateMask=conditions", {"conditions": conditions}).body
    assert changed["conditions"][0]["name"] == condition["name"]
    assert changed["conditions"][1]["name"] != condition["name"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({**POLICY, "conditions": []}, "one to six conditions"),
        ({**POLICY, "conditions": [CONDITION] * 7}, "one to six conditions"),
        ({"displayName": "x", "conditions": [CONDITION]}, "combiner"),
    ],
)
def test_a_policy_that_can_never_fire_is_refused(server, body, words):
    refused = server.post(POLICIES, body)
    assert refused.status == 400
    assert words in refused.message


def test_a_policy_needs_channels_that_exist(server):
    missing = f"projects/{PROJECT}/notificationChannels/1"
    refused = server.post(POLICIES, {**POLICY, "notificationChannels": [missing]})
    assert (refused.status, refused.message) == (404, f"Cannot find channel with resource name '{missing}'.")


def test_a_channel_in_use_is_deleted_only_with_force(server):
    channel = made(server, CHANNELS, EMAIL)["name"]
    policy = made(server, POLICIES, {**POLICY, "notificationChannels": [channel]})["name"]
    refused = server.delete(f"/monitoring/v3/{channel}")
    assert (refused.status, refused.body["error"]["status"]) == (400, "FAILED_PRECONDITION")
    assert server.delete(f"/monitoring/v3/{channel}?force=true").status == 200
    assert server.get(f"/monitoring/v3/{policy}").body.get("notificationChannels", []) == []


def test_a_channel_remembers_its_changes(server):
    channel = made(server, CHANNELS, EMAIL)
    path = f"/monitoring/v3/{channel['name']}?updateMask=displayName"
    changed = server.patch(path, {"displayName": "night"}).body
    assert len(changed["mutationRecords"]) == 2
    assert changed["creationRecord"] == channel["creationRecord"]


def test_secrets_of_a_channel_are_not_shown(server):
    labels = {"url": "https://hook.example", "username": "u", "password": "p"}
    channel = made(server, CHANNELS, {"type": "webhook_basicauth", "labels": labels})
    assert channel["labels"] == {**labels, "password": "******"}


@pytest.mark.parametrize("body", [{"type": "pigeon", "labels": {}}, {"type": "email", "labels": {}}])
def test_a_channel_that_cannot_reach_anybody_is_refused(server, body):
    assert server.post(CHANNELS, body).status == 400


# --- uptime checks and dashboards ---


def test_an_uptime_check_has_its_defaults(server):
    check = made(server, CHECKS, {**HTTP, "httpCheck": {"useSsl": True}})
    assert check["name"].rsplit("/", 1)[1].startswith("api-is-up-")
    assert (check["period"], check["checkerType"]) == ("60s", "STATIC_IP_CHECKERS")
    assert check["httpCheck"] == {"useSsl": True, "path": "/", "port": 443, "requestMethod": "GET"}


def test_passwords_and_masked_headers_are_kept_and_not_shown(server):
    http = {
        "maskHeaders": True,
        "headers": {"authorization": "Bearer x"},
        "authInfo": {"username": "u", "password": "p"},
        "requestMethod": "POST",
        "body": "aGVsbG8=",
    }
    shown = made(server, CHECKS, {**HTTP, "httpCheck": http})
    assert shown["httpCheck"]["authInfo"] == {"username": "u", "password": "******"}
    assert shown["httpCheck"]["headers"] == {"authorization": "******", "Content-Length": "******"}
    kept = server.control.find(f"monitoring/{shown['name']}").body["httpCheck"]
    assert kept["authInfo"]["password"] == "p"
    assert kept["headers"]["Content-Length"] == "5"


def test_an_uptime_check_runs_every_1_5_10_or_15_minutes(server):
    assert server.post(CHECKS, {**HTTP, "period": "61s", "httpCheck": {}}).status == 400


def test_a_dashboard_is_named_by_the_projects_number_and_completed(server):
    data_set = {"timeSeriesQuery": {"timeSeriesFilter": {"filter": "f"}}}
    widgets = [{"xyChart": {"dataSets": [data_set]}}, {"timeSeriesTable": {"dataSets": [data_set]}}]
    name = f"projects/{PROJECT}/dashboards/board{next(_numbers)}"
    board = made(server, DASHBOARDS, {"name": name, "displayName": "d", "gridLayout": {"widgets": widgets}})
    assert board["name"] == server.control.projects.numbered(name)
    chart, table = board["gridLayout"]["widgets"]
    assert chart["xyChart"]["dataSets"][0]["targetAxis"] == "Y1"
    assert table["timeSeriesTable"]["dataSets"][0]["minAlignmentPeriod"] == "0s"
    assert server.post(DASHBOARDS, {"name": name, "displayName": "d", "gridLayout": {}}).status == 409


# --- services, metrics, scopes ---


@pytest.fixture
def objectives(server):
    service = f"s{next(_numbers)}"
    made(server, f"{ROOT}/services?serviceId={service}", {"custom": {}, "displayName": service})
    return f"{ROOT}/services/{service}/serviceLevelObjectives"


SLI = {"requestBased": {"goodTotalRatio": {"goodServiceFilter": "g", "totalServiceFilter": "t"}}}


def test_an_objective_is_kept_below_its_service(server, objectives):
    body = {"goal": 0.999, "rollingPeriod": "2419200s", "serviceLevelIndicator": SLI}
    objective = made(server, f"{objectives}?serviceLevelObjectiveId=o", body)
    assert objective["name"] == server.control.projects.numbered(f"{objectives}/o".removeprefix("/monitoring/v3/"))
    assert server.delete(objectives.rpartition("/")[0]).status == 200
    assert server.get(f"{objectives}/o").status == 404


@pytest.mark.parametrize(
    "body",
    [
        {"goal": 1, "rollingPeriod": "86400s"},
        {"goal": 0, "rollingPeriod": "86400s"},
        {"goal": 0.99, "rollingPeriod": "90000s"},
        {"goal": 0.99, "rollingPeriod": "2678400s"},
        {"goal": 0.99, "calendarPeriod": "YEAR"},
        {"goal": 0.99},
        {"goal": 0.99, "calendarPeriod": "DAY", "rollingPeriod": "86400s"},
    ],
)
def test_an_objective_beyond_the_limits_is_refused(server, objectives, body):
    assert server.post(objectives, {**body, "serviceLevelIndicator": SLI}).status == 400


def test_a_metric_descriptor_has_slashes_in_its_id_and_may_be_made_again(server):
    kind = f"custom.googleapis.com/app/m{next(_numbers)}"
    body = {"type": kind, "metricKind": "GAUGE", "valueType": "INT64"}
    name = f"projects/{PROJECT}/metricDescriptors/{kind}"
    assert made(server, f"{ROOT}/metricDescriptors", body)["name"] == name
    made(server, f"{ROOT}/metricDescriptors", {**body, "description": "again"})
    assert server.get(f"/monitoring/v3/{name}").body["description"] == "again"
    assert server.delete(f"/monitoring/v3/{name}").status == 200
    assert server.get(f"/monitoring/v3/{name}").status == 404
    assert server.post(f"{ROOT}/metricDescriptors", {**body, "type": "compute.googleapis.com/x"}).status == 400


def test_a_scope_monitors_its_own_project_and_what_is_added(fresh):
    fresh.new_project("another-project", "monitoring")
    numbers = [fresh.control.projects.number(name) for name in (PROJECT, "another-project")]
    added = fresh.post(
        f"{SCOPES}/{PROJECT}/projects", {"name": "locations/global/metricsScopes/s/projects/another-project"}
    )
    assert added.body["done"] is True
    scope = f"locations/global/metricsScopes/{numbers[0]}"
    assert added.body["response"]["name"] == f"{scope}/projects/{numbers[1]}"
    monitored = [project["name"] for project in fresh.get(f"{SCOPES}/{numbers[0]}").body["monitoredProjects"]]
    assert monitored == [f"{scope}/projects/{number}" for number in numbers]
    query = "monitoredResourceContainer=projects/another-project"
    scopes = fresh.get(f"{SCOPES}:listMetricsScopesByMonitoredProject?{query}").body["metricsScopes"]
    assert [found["name"] for found in scopes] == [f"locations/global/metricsScopes/{n}" for n in reversed(numbers)]
    assert fresh.delete(f"{SCOPES}/{PROJECT}/projects/{numbers[1]}").body["done"] is True
    assert len(fresh.get(f"{SCOPES}/{PROJECT}").body["monitoredProjects"]) == 1


def test_the_scope_of_an_unknown_project_is_not_told(server):
    assert server.get(f"{SCOPES}/no-such-project").status == 403
