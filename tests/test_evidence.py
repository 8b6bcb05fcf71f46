"""Verdicts are computed from evidence alone, and nothing that is not shown turns green."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.evidence import (
    Bound,
    Evidence,
    Source,
    Verdict,
    bound_text,
    canonical_json,
    failing,
    roll_up,
    value_text,
    yes_or_no,
)

GREEN = {Verdict.PASS, Verdict.REHEARSED}
RED = {Verdict.FAIL, Verdict.MISSING}
ONE = Bound("==", 1)

NUMBERS = st.one_of(st.integers(-(10**20), 10**20), st.floats())
BOUNDS = st.builds(
    Bound, st.sampled_from(["<", "<=", "==", ">=", ">"]), st.floats(allow_nan=False, allow_infinity=False)
)
ROWS = st.builds(
    Evidence,
    claim=st.text(max_size=8),
    source=st.sampled_from(Source),
    value=st.one_of(st.none(), st.text(max_size=4), NUMBERS),
    unit=st.sampled_from(["", "ms"]),
    target=st.one_of(st.none(), BOUNDS),
)


def row(source: Source = Source.MEASURED, value: float | str | None = 1, target: Bound | None = ONE) -> Evidence:
    return Evidence("claim", source, value, "ms", target, "command", "note", datetime(2026, 1, 1, tzinfo=UTC))


@given(st.lists(ROWS), st.booleans())
def test_a_red_row_never_rolls_up_green(rows: list[Evidence], rehearsal: bool) -> None:
    if any(one.verdict in RED for one in rows):
        assert roll_up(rows, rehearsal=rehearsal) in RED


@given(st.lists(ROWS.filter(lambda one: one.verdict is Verdict.NOTED)), st.booleans())
def test_no_judged_row_is_a_failure(rows: list[Evidence], rehearsal: bool) -> None:
    assert roll_up(rows, rehearsal=rehearsal) is Verdict.FAIL


@given(st.lists(ROWS), ROWS, st.booleans())
def test_adding_a_row_never_turns_a_judged_run_greener(rows: list[Evidence], more: Evidence, rehearsal: bool) -> None:
    judged = any(one.verdict is not Verdict.NOTED for one in rows)
    if judged and roll_up(rows, rehearsal=rehearsal) in RED:
        assert roll_up([*rows, more], rehearsal=rehearsal) in RED


@given(st.lists(ROWS))
def test_on_google_cloud_only_measured_or_observed_rows_pass(rows: list[Evidence]) -> None:
    if roll_up(rows, rehearsal=False) in GREEN:
        judged = [one for one in rows if one.verdict is not Verdict.NOTED]
        assert judged
        assert all(one.source in (Source.MEASURED, Source.OBSERVED) for one in judged)
        assert roll_up(rows, rehearsal=False) is Verdict.PASS


@given(st.lists(ROWS))
def test_a_rehearsal_never_passes(rows: list[Evidence]) -> None:
    assert roll_up(rows, rehearsal=True) is not Verdict.PASS


@given(st.lists(ROWS), st.booleans())
def test_the_failing_rows_are_those_that_keep_a_run_from_green(rows: list[Evidence], rehearsal: bool) -> None:
    red = failing(rows, rehearsal=rehearsal)
    rest = [one for one in rows if one not in red]
    if roll_up(rows, rehearsal=rehearsal) in GREEN:
        assert red == ()
    elif any(one.verdict is not Verdict.NOTED for one in rest):
        assert roll_up(rest, rehearsal=rehearsal) in GREEN


@given(st.lists(ROWS), st.randoms(), st.booleans())
def test_the_order_of_rows_does_not_matter(rows: list[Evidence], chance: object, rehearsal: bool) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert roll_up(shuffled, rehearsal=rehearsal) is roll_up(rows, rehearsal=rehearsal)


@pytest.mark.parametrize("source", list(Source))
@pytest.mark.parametrize("comparison", ["<", "<=", "==", ">=", ">"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "1", "", None])
def test_what_is_not_a_finite_number_satisfies_nothing(
    value: float | str | None, comparison: str, source: Source
) -> None:
    assert row(source, value, Bound(comparison, 1)).verdict in RED


@pytest.mark.parametrize("rehearsal", [True, False])
def test_an_assumption_proves_nothing(rehearsal: bool) -> None:
    assert roll_up([row(), row(Source.ASSUMED)], rehearsal=rehearsal) is Verdict.MISSING


def test_a_rehearsed_row_counts_in_a_rehearsal_only() -> None:
    rows = [row(), row(Source.REHEARSED)]
    assert roll_up(rows, rehearsal=True) is Verdict.REHEARSED
    assert roll_up(rows, rehearsal=False) is Verdict.MISSING
    assert failing(rows, rehearsal=False) == (rows[1],)


@pytest.mark.parametrize(
    ("source", "value", "target", "verdict"),
    [
        (Source.MEASURED, 1, Bound("==", 1), Verdict.PASS),
        (Source.OBSERVED, 1, Bound(">=", 1), Verdict.PASS),
        (Source.OBSERVED, 1, Bound(">", 1), Verdict.FAIL),
        (Source.MEASURED, 2.5, Bound("<", 2.5), Verdict.FAIL),
        (Source.MEASURED, 2.5, Bound("<=", 2.5), Verdict.PASS),
        (Source.REHEARSED, 1, Bound("==", 1), Verdict.REHEARSED),
        (Source.REHEARSED, 2, Bound("==", 1), Verdict.FAIL),
        (Source.ASSUMED, 2, Bound("==", 1), Verdict.FAIL),
        (Source.MISSING, 1, Bound("==", 1), Verdict.MISSING),
        (Source.MISSING, None, None, Verdict.MISSING),
        (Source.MEASURED, None, None, Verdict.NOTED),
        (Source.MEASURED, 7, None, Verdict.NOTED),
    ],
)
def test_the_verdict_of_a_row(source: Source, value: float | None, target: Bound | None, verdict: Verdict) -> None:
    assert row(source, value, target).verdict is verdict


def test_large_counts_are_compared_exactly() -> None:
    assert row(value=2**53 + 1, target=Bound("==", 2**53)).verdict is Verdict.FAIL
    assert row(value=10**400, target=Bound("<", 1)).verdict is Verdict.FAIL


@pytest.mark.parametrize("limit", [math.nan, math.inf])
def test_a_bound_that_is_no_finite_number_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Bound("<", limit)


def test_an_unknown_comparison_is_refused() -> None:
    with pytest.raises(ValueError, match="!="):
        Bound("!=", 1)


def test_the_digest_changes_with_every_field() -> None:
    changes = {
        "claim": "other",
        "source": Source.OBSERVED,
        "value": 2,
        "unit": "s",
        "target": Bound("==", 1.0000001),
        "command": "other",
        "note": "other",
        "at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    assert set(changes) == {field.name for field in fields(Evidence)}
    digests = {replace(row(), **{name: value}).digest for name, value in changes.items()}
    assert len(digests | {row().digest}) == len(changes) + 1
    assert row().digest == row().digest


@given(BOUNDS, BOUNDS)
def test_different_bounds_read_differently(one: Bound, other: Bound) -> None:
    assert (str(one) == str(other)) == (one == other and math.copysign(1, one.limit) == math.copysign(1, other.limit))


@given(ROWS)
def test_a_row_is_strict_json_with_its_verdict_and_digest(one: Evidence) -> None:
    stated = json.loads(canonical_json(one.as_json()))
    assert (stated["verdict"], stated["digest"]) == (one.verdict.value, one.digest)


@given(st.booleans())
def test_a_claim_is_true_or_false(holds: bool) -> None:
    assert yes_or_no("claim", Source.OBSERVED, holds).verdict is (Verdict.PASS if holds else Verdict.FAIL)


def test_a_row_reads_as_one_line() -> None:
    assert str(row(value=2)) == "claim: 2 ms, wanted == 1, MEASURED (note)"


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (8604, "rows", "8,604 rows"),
        (0.9665, "", "0.9665"),
        (25_165_824.0, "bytes", "25,165,824 bytes"),
        (2.94449, "ms", "2.944 ms"),
        (math.inf, "ms", "∞ ms"),
        (None, "ms", "– ms"),
        (True, "", "yes"),
        ("1,000 lists, 80 probes", "", "1,000 lists, 80 probes"),
    ],
)
def test_a_value_is_told_to_people_in_one_way(value: object, unit: str, told: str) -> None:
    assert value_text(value, unit) == told


def test_a_bound_is_told_with_its_thousands_apart_and_every_digit() -> None:
    assert bound_text("<= 22873") == "<= 22,873"
    assert bound_text(">= 0.999999") == ">= 0.999999"
    assert bound_text("None") == "None"
    assert str(Evidence("room", Source.OBSERVED, 21631, "MiB", Bound(">=", 22873.0))) == (
        "room: 21,631 MiB, wanted >= 22,873, OBSERVED"
    )
