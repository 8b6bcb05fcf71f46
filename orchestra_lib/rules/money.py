"""Rules of what it costs: the estimate and the budget against the bill, and the spend cap.

The bill is at the last list prices known. A bill above the budget warns and does not fail: the owner decides what
it may cost. An estimate that is too low fails where no budget would tell anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from orchestra_lib.cost import COMPONENTS, Amount, bill
from orchestra_lib.prices import LATEST, list_prices
from orchestra_lib.rules.kinds import ANYTHING, MAPPING, NUMBER, TEXT, TEXTS, Kind
from orchestra_lib.rules.rule import CannotJudge, Input, Level, Rule, Values, in_document, may, needs, on_page, used

_PRICES = on_page("orchestra_lib/prices/list_prices.yaml and the pages that it names", date(2026, 11, 23))
_CAP = in_document("billingbudgets.v1", "Budget.spendCap")
_CAP_RATIOS = [0.5, 0.8, 1.0]
_ALERT_RATIOS = [0.5, 0.8, 1.0]

# The sections that a part of the bill is computed from. They are read as they are: the bill says what is not in them.
_SECTIONS = {
    "usage": needs("usage", MAPPING),
    "workstations": may("workstations", ANYTHING),
    "memory": may("memory", ANYTHING),
    "assistant": may("assistant", ANYTHING),
    "api": may("api", ANYTHING),
}


def _amount(v: Values, component: str | None) -> Amount:
    document = {name: getattr(v, name) for name in _SECTIONS}
    return bill(document, list_prices(), LATEST).total(component)


def _exceeds(amount: Amount, usd: float) -> bool:
    if amount.low_usd is not None and amount.low_usd > usd:
        return True
    if amount.missing:
        raise CannotJudge(f"the bill is {amount}{_missing(amount)}")
    return False


def _missing(amount: Amount) -> str:
    return f" (MISSING: {'; '.join(amount.missing)})" if amount.missing else ""


def _estimate(component: str | None, *, budgeted: bool) -> Rule:
    """The estimate of a part, or of the total, against its bill: worse where no budget tells anybody."""
    name = component or "total"

    def judged(v: Values) -> bool:
        return (v.budget is not None) == budgeted

    def nearest(v: Values) -> Mapping[str, Any]:
        if budgeted:
            return {}
        whole = v.high if v.whole is None else v.whole
        return {"cost.budget_usd": whole, "cost.budget_alert_ratios": list(_ALERT_RATIOS)}

    told = "" if budgeted else ", and no budget would tell anybody"
    return Rule(
        "R-BG-02",
        Level.WARN if budgeted else Level.FAIL,
        f"the estimate for {name.replace('_', ' ')} covers its bill",
        {
            "high": used(f"cost.{name}.high_usd", NUMBER),
            "budget": may("cost.budget_usd", NUMBER),
            "whole": may("cost.total.high_usd", NUMBER),
            **_SECTIONS,
        },
        lambda v: not judged(v) or not _exceeds(_amount(v, component), v.high),
        lambda v: (
            f"the bill is {_amount(v, component)} for the first month, the estimate ends at {v.high:,.0f} USD{told}"
            f"{_missing(_amount(v, component))}"
        ),
        _PRICES,
        nearest,
    )


def _is_list_of_ratios(value: Any) -> Any:
    numbers = isinstance(value, list | tuple) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in value
    )
    return tuple(value) if numbers else None


_RATIOS = Kind("a list of numbers", _is_list_of_ratios)
_CAP_READS: Mapping[str, Input] = {
    "thresholds": used("cost.spend_cap.thresholds", _RATIOS),
    "projects": needs("cost.spend_cap.projects", TEXTS),
    "services": needs("cost.spend_cap.services", TEXTS),
    "period": may("cost.spend_cap.period", TEXT, "MONTH"),
    "basis": may("cost.spend_cap.basis", TEXT, "CURRENT_SPEND"),
    "credits": may("cost.spend_cap.credits", TEXT, "EXCLUDE_ALL_CREDITS"),
}


def _cap_holds(v: Values) -> bool:
    return (
        sorted(v.thresholds) == _CAP_RATIOS
        and len(v.projects) == len(v.services) == 1
        and (v.period, v.basis, v.credits) == ("MONTH", "CURRENT_SPEND", "EXCLUDE_ALL_CREDITS")
    )


def _cap(v: Values) -> Mapping[str, Any]:
    place = "cost.spend_cap"
    one = len(v.projects) == 1 and len(v.services) == 1
    words = {f"{place}.period": "MONTH", f"{place}.basis": "CURRENT_SPEND", f"{place}.credits": "EXCLUDE_ALL_CREDITS"}
    # Which project and which service is for the owner to say.
    return {f"{place}.thresholds": list(_CAP_RATIOS), **words} if one else {}


RULES = (
    *(_estimate(part, budgeted=budgeted) for budgeted in (False, True) for part in COMPONENTS if part != "code_assist"),
    *(_estimate(None, budgeted=budgeted) for budgeted in (False, True)),
    Rule(
        "R-BG-03",
        Level.WARN,
        "the budget covers the bill",
        {"budget": needs("cost.budget_usd", NUMBER), **_SECTIONS},
        lambda v: not _exceeds(_amount(v, None), v.budget),
        lambda v: (
            f"the bill is {_amount(v, None)} for the first month, the budget {v.budget:,.0f} USD: its alerts would "
            f"come every month, and stop nothing; see the levers{_missing(_amount(v, None))}"
        ),
        _PRICES,
    ),
    Rule(
        "R-BG-01",
        Level.FAIL,
        "a spend cap is of one project, one service, a month and three thresholds",
        _CAP_READS,
        _cap_holds,
        lambda v: (
            f"projects {', '.join(v.projects)}, services {', '.join(v.services)}, {v.period}, thresholds "
            f"{', '.join(map(str, v.thresholds))}, {v.basis}, {v.credits}: it takes one of each of the first two, "
            "MONTH, 0.5, 0.8 and 1.0, CURRENT_SPEND, EXCLUDE_ALL_CREDITS"
        ),
        _CAP,
        _cap,
    ),
)
