"""Budgets: what they are filled with, and what alerts and spend caps may say."""

from __future__ import annotations

import pytest
from control_plane import PROJECT

AMOUNT = {"specifiedAmount": {"units": "5000"}}
CAP = {
    "amount": AMOUNT,
    "spendCap": {"inputState": "CONFIGURED"},
    "budgetFilter": {
        "projects": [f"projects/{PROJECT}"],
        "services": ["services/24E6-581D-38E5"],
        "creditTypesTreatment": "EXCLUDE_ALL_CREDITS",
        "calendarPeriod": "MONTH",
    },
    "thresholdRules": [{"thresholdPercent": percent} for percent in (0.5, 0.8, 1.0)],
    "notificationsRule": {"enableProjectLevelRecipients": True},
}


@pytest.fixture
def budgets(server):
    return f"/billingbudgets/v1/billingAccounts/{server.control.organization.billing_account}/budgets"


def without(body, *path):
    *parents, last = path
    if not parents:
        return {name: value for name, value in body.items() if name != last}
    return {**body, parents[0]: without(body[parents[0]], *parents[1:], last)}


def test_a_budget_has_its_defaults_and_names_projects_by_number(server, budgets):
    rules = [{"thresholdPercent": 0.9}]
    made = server.post(budgets, {"amount": AMOUNT, "budgetFilter": {"projects": [f"projects/{PROJECT}"]}})
    assert made.status == 200, made.body
    number = server.control.projects.number(PROJECT)
    wanted = {"projects": [f"projects/{number}"], "calendarPeriod": "MONTH"}
    assert made.body["budgetFilter"] == {**wanted, "creditTypesTreatment": "INCLUDE_ALL_CREDITS"}
    assert made.body["amount"]["specifiedAmount"] == {"units": "5000", "currencyCode": "USD"}
    url = f"/billingbudgets/v1/{made.body['name']}"
    changed = server.patch(f"{url}?updateMask=thresholdRules", {"thresholdRules": rules}).body
    assert changed["thresholdRules"] == [{"thresholdPercent": 0.9, "spendBasis": "CURRENT_SPEND"}]
    assert changed["etag"] != made.body["etag"]
    assert changed in server.get(budgets).body["budgets"]
    assert server.delete(url).status == 200
    assert server.get(url).status == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"amount": {}},
        {"amount": {**AMOUNT, "lastPeriodAmount": {}}},
        {"amount": {"specifiedAmount": {"units": "1", "currencyCode": "EUR"}}},
        {"amount": AMOUNT, "displayName": "x" * 61},
        {"amount": AMOUNT, "thresholdRules": [{"thresholdPercent": -0.1}]},
        {"amount": AMOUNT, "notificationsRule": {"pubsubTopic": "projects/p/topics/t"}},
        {"amount": AMOUNT, "notificationsRule": {"monitoringNotificationChannels": ["c"] * 6}},
        {"amount": {"lastPeriodAmount": {}}, "budgetFilter": {"customPeriod": {"startDate": {"year": 2026}}}},
    ],
)
def test_a_budget_that_the_service_would_not_take_is_refused(server, budgets, body):
    assert server.post(budgets, body).status == 400


def test_a_spend_cap_is_configured(server, budgets):
    made = server.post(budgets, CAP)
    assert made.status == 200, made.body
    assert made.body["spendCap"] == {"inputState": "CONFIGURED", "outputState": "CONFIGURED"}


@pytest.mark.parametrize(
    "body",
    [
        without(CAP, "thresholdRules"),
        without(CAP, "notificationsRule", "enableProjectLevelRecipients"),
        without(CAP, "budgetFilter", "services"),
        without(CAP, "budgetFilter", "projects"),
        without(CAP, "budgetFilter", "creditTypesTreatment"),
        without(CAP, "budgetFilter", "calendarPeriod"),
        {**CAP, "amount": {"lastPeriodAmount": {}}},
        {**CAP, "spendCap": {"inputState": "ENFORCED"}},
        {**CAP, "notificationsRule": {**CAP["notificationsRule"], "pubsubTopic": "t", "schemaVersion": "1.0"}},
        {**CAP, "thresholdRules": [*CAP["thresholdRules"][:2], {"thresholdPercent": 0.9}]},
    ],
)
def test_a_spend_cap_keeps_to_its_restrictions(server, budgets, body):
    assert server.post(budgets, body).status == 400
