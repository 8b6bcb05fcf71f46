"""What the plan costs: the strategy's estimate beside the bill and the budget, and what moves it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import ipywidgets

from orchestra_lib.cost import COMPONENTS, LEVERS, Amount, Lever, bill, what_if
from orchestra_lib.display.tables import Table
from orchestra_lib.prices import PriceTable
from orchestra_lib.settings.document import value_at, with_values

_NAMES = {
    "workstations": "Cloud Workstations",
    "alloydb": "AlloyDB",
    "cloud_run": "Cloud Run",
    "vertex_ai": "models and embeddings",
    "code_assist": "Code Assist seats",
    "other": "everything else",
}


def cost_table(document: Mapping[str, Any], prices: PriceTable, on: date) -> Table:
    """The strategy's estimate, the bill and the budget, in US dollars for the first month."""
    of = bill(document, prices, on)
    rows = [
        (_NAMES[part], _estimate(document, part), str(of.total(part)), "", _names(of.total(part)))
        for part in COMPONENTS
    ]
    total = of.total()
    budget = value_at(document, "cost.budget_usd")
    budget_text = f"{budget:,.0f} USD" if isinstance(budget, int | float) else "none"
    rows.append(("total", _estimate(document, "total"), str(total), budget_text, _names(total)))
    return Table(("part", "the strategy's estimate", "at list prices", "budget", "MISSING"), rows, _caption(of.on))


def lines_table(document: Mapping[str, Any], prices: PriceTable, on: date) -> Table:
    """Every line of the bill, with where its prices come from and how sure they are."""
    rows = [
        (
            _NAMES[line.component],
            line.item + (" (once)" if line.once else ""),
            "" if line.quantity is None else line.quantity,
            line.unit,
            str(line.amount),
            "; ".join(dict.fromkeys(f"{price.confidence}, {price.as_of}" for price in line.prices)),
            _names(line.amount) or "; ".join(dict.fromkeys(price.source for price in line.prices)),
        )
        for line in bill(document, prices, on).lines
    ]
    return Table(
        ("part", "item", "quantity", "unit", "a month", "known", "source or what is MISSING"), rows, _caption(on)
    )


def levers_table(document: Mapping[str, Any], prices: PriceTable, on: date) -> Table:
    """The total for each value of each lever, one moved at a time: the same numbers as :func:`what_if_controls`."""
    now = bill(document, prices, on).total()
    rows = [
        (
            row.lever.name,
            _value(row.value),
            "as planned" if row.current else _difference(row.total, now),
            str(row.total),
        )
        for row in what_if(document, prices, on)
    ]
    return Table(("lever", "value", "difference", "first month"), rows, _caption(on))


def what_if_controls(document: Mapping[str, Any], prices: PriceTable, on: date) -> ipywidgets.VBox:
    """A control for each lever and the bill that they add up to. Nobody reads what is chosen here: no plan changes."""
    controls = [_control(document, prices, lever) for lever in LEVERS]
    shown = ipywidgets.HTML()

    def redraw(_: object = None) -> None:
        chosen = {lever.place: control.value for lever, control in zip(LEVERS, controls, strict=True)}
        shown.value = cost_table(with_values(document, chosen), prices, on)._repr_html_()

    for control in controls:
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([*controls, shown])


def _control(document: Mapping[str, Any], prices: PriceTable, lever: Lever) -> ipywidgets.SelectionSlider:
    values = lever.values(document, prices)
    return ipywidgets.SelectionSlider(
        options=[(_value(value), value) for value in values],
        value=next(value for value in values if lever.stands(document, value)),
        description=lever.name,
        style={"description_width": "20em"},
        layout=ipywidgets.Layout(width="42em"),
    )


def _estimate(document: Mapping[str, Any], part: str) -> str:
    low, high = (value_at(document, f"cost.{part}.{end}_usd") for end in ("low", "high"))
    return (
        f"{low:,.0f} to {high:,.0f} USD" if isinstance(low, int | float) and isinstance(high, int | float) else "none"
    )


def _difference(total: Amount, now: Amount) -> str:
    if total.low_usd is None or now.low_usd is None or total.high_usd is None or now.high_usd is None:
        return "MISSING"
    ends = [f"{there - here:+,.0f}" for there, here in ((total.low_usd, now.low_usd), (total.high_usd, now.high_usd))]
    return f"{' to '.join(dict.fromkeys(ends))} USD"


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _names(amount: Amount) -> str:
    return "; ".join(amount.missing)


def _caption(on: date) -> str:
    day = "the last prices known" if on == date.max else f"the prices of {on}"
    return f"US dollars for the first month, at {day}, before any discount"
