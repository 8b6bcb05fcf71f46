"""What counts as a difference between a wanted and a live body."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.cloud.diff import Comparison, FieldDiff

PLAIN = Comparison({})
SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=8))
NAMES = st.text(alphabet="abcdefgh", min_size=1, max_size=4)
BODIES = st.dictionaries(
    NAMES, st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
)


@given(BODIES)
def test_a_body_does_not_differ_from_itself(body: dict) -> None:
    assert PLAIN.differences(body, body) == ()


@given(BODIES, BODIES)
def test_what_a_service_adds_is_no_difference(wanted: dict, added: dict) -> None:
    assert PLAIN.differences(wanted, {**added, **wanted}) == ()


@given(BODIES, NAMES, st.integers(1, 100))
def test_one_changed_number_is_one_difference(body: dict, name: str, number: int) -> None:
    wanted, live = {**body, name: number}, {**body, name: number + 1}
    assert PLAIN.differences(wanted, live) == (FieldDiff(name, number + 1, number),)


@given(BODIES)
def test_a_field_that_was_applied_and_is_wanted_no_more_is_cleared(body: dict) -> None:
    live = {**body, "zzz": "left over"}
    assert PLAIN.differences(body, live) == ()
    assert PLAIN.differences(body, live, {**body, "zzz": "left over"}) == (FieldDiff("zzz", "left over", None),)


@given(BODIES, BODIES, BODIES, st.frozensets(NAMES, max_size=4))
def test_what_is_left_alone_never_differs_and_nothing_else_is_hidden(
    wanted: dict, live: dict, applied: dict, left_alone: frozenset[str]
) -> None:
    found = Comparison({}, left_alone=left_alone).differences(wanted, live, applied)
    every = PLAIN.differences(wanted, live, applied)
    assert found == tuple(diff for diff in every if diff.field not in left_alone)


def test_a_difference_deep_inside_is_named_by_its_path() -> None:
    wanted = {"conditions": [{"threshold": {"value": 30, "duration": "300s"}}, {"threshold": {"value": 5}}]}
    live = {"conditions": [{"threshold": {"value": 30, "duration": "300s"}}, {"threshold": {"value": 6, "extra": 1}}]}
    assert [str(diff) for diff in PLAIN.differences(wanted, live)] == ["conditions[1].threshold.value: 6 → 5"]


def test_rows_are_compared_whole_when_their_number_differs() -> None:
    found = PLAIN.differences({"rows": [{"a": 1}]}, {"rows": [{"a": 1}, {"a": 2}]})
    assert [diff.path for diff in found] == ["rows"]


def test_spellings_of_one_value_are_equal() -> None:
    wanted = {
        "network": "projects/orchestra/global/networks/main",
        "id": "projects/orchestra/secrets/s",
        "age": 7200,
        "window": "3600s",
        "enabled": False,
        "labels": {},
    }
    live = {
        "network": "https://www.googleapis.com/compute/v1/projects/orchestra/global/networks/main",
        "id": "projects/123456/secrets/s",
        "age": "7200",
        "window": "3600.0s",
    }
    assert Comparison({"projects/123456": "projects/orchestra"}).differences(wanted, live) == ()


def test_a_number_is_not_taken_for_another_project_whose_number_begins_alike() -> None:
    found = Comparison({"projects/12": "projects/a"}).differences({"name": "projects/a/x"}, {"name": "projects/123/x"})
    assert len(found) == 1


def test_order_matters_unless_the_kind_says_that_it_is_a_set() -> None:
    wanted, live = {"ranges": ["a", "b"]}, {"ranges": ["b", "a"]}
    assert PLAIN.differences(wanted, live)
    assert Comparison({}, frozenset({"ranges"})).differences(wanted, live) == ()
    assert Comparison({}, frozenset({"ranges"})).differences(wanted, {"ranges": ["b", "a", "a"]})


def test_a_text_is_not_a_truth_value() -> None:
    assert PLAIN.differences({"a": "true"}, {"a": True})
    assert PLAIN.differences({"a": "0"}, {"a": False})
