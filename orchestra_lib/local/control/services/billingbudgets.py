"""Budgets of billing accounts, with alerts or as spend caps. https://cloud.google.com/billing/docs/reference/budget/rest"""

from __future__ import annotations

import uuid

from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import bad_field
from orchestra_lib.local.control.kinds import Body, Each, Kind, Service

_CAP_THRESHOLDS = [0.5, 0.8, 1.0]
_CURRENCY = "USD"
_MOST_CHANNELS = 5
_LONGEST_NAME = 60
_CONFIGURED = "CONFIGURED"
_DEFAULTS: Body = {
    "budgetFilter": {"creditTypesTreatment": "INCLUDE_ALL_CREDITS"},
    "notificationsRule": {},
    "ownershipScope": "ALL_USERS",
    "thresholdRules": Each({"spendBasis": "CURRENT_SPEND"}),
}
# What a spend cap wants of the filter and the notifications; None means that the field must not be set.
# https://docs.cloud.google.com/billing/docs/how-to/budgets-spend-caps
_CAP_FILTER = {
    "creditTypesTreatment": "EXCLUDE_ALL_CREDITS",
    "calendarPeriod": "MONTH",
    "customPeriod": None,
    "labels": None,
    "resourceAncestors": None,
    "subaccounts": None,
}
_CAP_NOTIFICATIONS = {"enableProjectLevelRecipients": True, "pubsubTopic": None, "monitoringNotificationChannels": None}


def _new_id(_call: Call, _body: Body) -> str:
    return str(uuid.uuid4())


def _check(_call: Call, body: Body, before: Body | None) -> None:
    """Raise Fault (400) for a budget that the descriptions of its fields forbid."""
    amount, chosen, rule = body.get("amount", {}), body.get("budgetFilter", {}), body.get("notificationsRule", {})
    if ("specifiedAmount" in amount) == ("lastPeriodAmount" in amount):
        raise bad_field("budget.amount", "A budget has either an amount or that of the last period.")
    currency = amount.get("specifiedAmount", {}).get("currencyCode", _CURRENCY)
    if currency != _CURRENCY:
        raise bad_field("budget.amount", f"The billing account's currency is {_CURRENCY}, not {currency}.")
    if "calendarPeriod" in chosen and "customPeriod" in chosen:
        raise bad_field("budget.budget_filter", "A budget has either a calendar period or one of its own.")
    if "lastPeriodAmount" in amount and "customPeriod" in chosen:
        raise bad_field("budget.amount", "The amount of the last period goes with a calendar period.")
    if len(body.get("displayName", "")) > _LONGEST_NAME:
        raise bad_field("budget.display_name", f"A name has at most {_LONGEST_NAME} characters.")
    if any(one.get("thresholdPercent", 0) < 0 for one in body.get("thresholdRules", ())):
        raise bad_field("budget.threshold_rules", "A threshold is not negative.")
    if len(rule.get("monitoringNotificationChannels", ())) > _MOST_CHANNELS:
        raise bad_field("budget.notifications_rule", f"At most {_MOST_CHANNELS} channels are notified.")
    if rule.get("pubsubTopic") and rule.get("schemaVersion") != "1.0":
        raise bad_field("budget.notifications_rule.schema_version", "A topic needs the schema version 1.0.")
    if "spendCap" in body:
        _check_cap(body, before)


def _check_cap(body: Body, before: Body | None) -> None:
    chosen = body.get("budgetFilter", {})
    if "specifiedAmount" not in body["amount"]:
        raise bad_field("budget.amount", "A spend cap needs an amount.")
    for name in ("projects", "services"):
        if len(chosen.get(name, ())) != 1:
            raise bad_field(f"budget.budget_filter.{name}", f"A spend cap is for one of the {name}.")
    rule = body.get("notificationsRule", {})
    for owner, wanted, given in (("filter", _CAP_FILTER, chosen), ("notifications_rule", _CAP_NOTIFICATIONS, rule)):
        for name, value in wanted.items():
            if given.get(name) != value:
                what = "must not be set" if value is None else f"has to be {value}"
                raise bad_field(f"budget.{owner}.{name}", f"Field {name} {what} when there is a spend cap.")
    if rule.get("disableDefaultIamRecipients"):
        raise bad_field("budget.notifications_rule", "The default notifications of a spend cap cannot be disabled.")
    rules = body.get("thresholdRules", [])
    percents = sorted(one.get("thresholdPercent", 0) for one in rules)
    if percents != _CAP_THRESHOLDS or any(one.get("spendBasis") == "FORECASTED_SPEND" for one in rules):
        raise bad_field("budget.threshold_rules", f"A spend cap has the thresholds {_CAP_THRESHOLDS} of current spend.")
    if before is None and body["spendCap"].get("inputState") != _CONFIGURED:
        raise bad_field("budget.spend_cap.input_state", f"A new spend cap is {_CONFIGURED}.")


def _fill(call: Call, body: Body, _before: Body | None) -> None:
    """The currency, the period, the projects by their numbers, and what a spend cap is at."""
    amount, chosen = body["amount"].get("specifiedAmount"), body["budgetFilter"]
    if amount is not None:
        amount["currencyCode"] = _CURRENCY
    if "customPeriod" not in chosen:
        chosen.setdefault("calendarPeriod", "MONTH")
    if "projects" in chosen:
        chosen["projects"] = [call.control.projects.numbered(name) for name in chosen["projects"]]
    if "spendCap" in body:
        body["spendCap"]["outputState"] = body["spendCap"]["inputState"]


SERVICE = Service(
    name="billingbudgets",
    not_in_projects=True,
    kinds=(Kind("budgets", new_id=_new_id, defaults=_DEFAULTS, check=_check, fill=_fill),),
)
