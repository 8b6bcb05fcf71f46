"""An approval names a plan's digest, so every part of the plan must be in it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.plan import Change, Plan, Verb

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
CHANGES = st.builds(
    Change, st.sampled_from(Verb), st.text(max_size=4), st.text(max_size=4), st.text(max_size=4), VALUES, VALUES
)
PLANS = st.builds(
    Plan, st.lists(CHANGES, max_size=4).map(tuple), st.dictionaries(st.text(max_size=3), VALUES, max_size=3)
)
CHANGE = Change(Verb.CREATE, "index", "memories", "lists 100", None, {"lists": 100})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("verb", Verb.REPLACE),
        ("kind", "table"),
        ("name", "memory"),
        ("detail", "lists 200"),
        ("before", {"lists": 50}),
        ("after", {"lists": 200}),
    ],
)
def test_the_digest_changes_with_every_field_of_a_change(name: str, value: object) -> None:
    assert Plan((replace(CHANGE, **{name: value}),)).digest != Plan((CHANGE,)).digest


def test_every_field_of_a_change_and_a_plan_is_covered() -> None:
    assert [field.name for field in fields(Change)] == ["verb", "kind", "name", "detail", "before", "after"]
    assert [field.name for field in fields(Plan)] == ["changes", "live_state"]


@given(PLANS, PLANS)
def test_plans_have_the_same_digest_only_when_they_say_the_same(one: Plan, other: Plan) -> None:
    # repr tells True from 1, which == does not.
    if repr(one) != repr(other) and one != other:
        assert one.digest != other.digest
    assert one.digest == Plan(one.changes, dict(reversed(one.live_state.items()))).digest


@given(PLANS, VALUES)
def test_the_digest_changes_with_the_live_state(plan: Plan, value: object) -> None:
    assert Plan(plan.changes, {**plan.live_state, "a new key": value}).digest != plan.digest


@given(st.lists(CHANGES, min_size=2, max_size=4, unique_by=repr))
def test_the_digest_changes_with_the_order(changes: list[Change]) -> None:
    assert Plan(tuple(changes)).digest != Plan(tuple(reversed(changes))).digest


@given(PLANS)
def test_a_plan_is_empty_when_it_only_keeps(plan: Plan) -> None:
    assert plan.is_empty == ({change.verb for change in plan.changes} <= {Verb.KEEP})


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        _ = Plan((replace(CHANGE, after=float("nan")),)).digest
    with pytest.raises(TypeError):
        _ = Plan((replace(CHANGE, after=object()),)).digest
