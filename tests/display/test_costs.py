"""The cost tables and the what-if: the same numbers in a browser and on paper, and nothing hidden."""

from __future__ import annotations

import pytest
from settings_content import content

from orchestra_lib.cost import LEVERS, bill, what_if
from orchestra_lib.display.costs import cost_table, levers_table, lines_table, what_if_controls
from orchestra_lib.prices import LATEST, list_prices
from orchestra_lib.settings.document import with_values

PLAN = content()


def test_estimate_bill_and_budget_stand_side_by_side() -> None:
    text = repr(cost_table(PLAN, list_prices(), LATEST))
    total = text.splitlines()[-1]
    assert "2,200 to 3,300 USD" in total
    assert str(bill(PLAN, list_prices(), LATEST).total()) in total
    assert "3,300 USD" in total.removeprefix("2,200 to 3,300 USD")


def test_what_is_missing_is_named_in_its_row_and_in_the_total() -> None:
    plan = with_values(PLAN, {"assistant.model": "gemini-9-nobody"})
    rows = cost_table(plan, list_prices(), LATEST).rows
    named = {str(row[0]): str(row[-1]) for row in rows}
    assert "the price of model.gemini-9-nobody.input" in named["models and embeddings"]
    assert "the price of model.gemini-9-nobody.input" in named["total"]
    assert named["AlloyDB"] == ""


def test_every_line_says_how_sure_its_price_is() -> None:
    rows = lines_table(PLAN, list_prices(), LATEST).rows
    assert len(rows) == len(bill(PLAN, list_prices(), LATEST).lines)
    assert all(row[5] and row[6] for row in rows)


def test_the_table_of_levers_has_the_numbers_of_the_what_if() -> None:
    rows = levers_table(PLAN, list_prices(), LATEST).rows
    computed = what_if(PLAN, list_prices(), LATEST)
    assert [row[3] for row in rows] == [str(one.total) for one in computed]
    assert sum(row[2] == "as planned" for row in rows) == len(LEVERS)


def test_the_controls_begin_with_the_plan_and_show_what_is_chosen() -> None:
    controls = what_if_controls(PLAN, list_prices(), LATEST)
    *levers, shown = controls.children
    assert str(bill(PLAN, list_prices(), LATEST).total()) in shown.value
    developers = next(control for control in levers if control.description == "developers")
    developers.value = 5
    five = bill(with_values(PLAN, {"usage.developers": 5}), list_prices(), LATEST).total()
    assert str(five) in shown.value


@pytest.mark.parametrize("place", [lever.place for lever in LEVERS])
def test_a_value_that_is_no_choice_is_offered_beside_them(place: str) -> None:
    odd = {"usage.developers": 7, "usage.developer_hours": 55.5, "usage.boost_ratio": 0.33}.get(place, "odd")
    controls = what_if_controls(with_values(PLAN, {place: odd}), list_prices(), LATEST)
    index = [lever.place for lever in LEVERS].index(place)
    assert controls.children[index].value == odd
