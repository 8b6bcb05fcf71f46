"""What may be said of targets: reached by the end that counts, improved only where both sides were measured."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import settings
from orchestra_lib.display.schedule import schedule_figure
from orchestra_lib.display.targets import criteria_table, opportunities_table, targets_figure, targets_table
from orchestra_lib.evidence import Bound, Evidence, Source, Verdict, yes_or_no
from orchestra_lib.ledger import Entry
from orchestra_lib.prices import list_prices
from orchestra_lib.record import Outcome, open_record
from orchestra_lib.settings.windows import Window
from orchestra_lib.validation.criteria import Criterion, criteria
from orchestra_lib.validation.gates import counted_now
from orchestra_lib.validation.opportunities import cost_levers, opportunities
from orchestra_lib.validation.report_page import Report, page
from orchestra_lib.validation.retirement import retirement
from orchestra_lib.validation.schedule import schedule
from orchestra_lib.validation.sealed import SealedRun
from orchestra_lib.validation.targets import Side, State, Target

DAY = date(2026, 11, 26)
LIMIT = Bound("<", 30)


def side(value: float, width: float = 0.0, source: Source = Source.MEASURED) -> Side:
    return Side(value, value - width, value + width, source, "one at a time")


def target(now: Side | None, before: Side | None = None, bound: Bound = LIMIT, **values: Any) -> Target:
    return Target(
        **{"title": "vector search, p95", "unit": "ms", "bound": bound, "now": now, "before": before, **values}
    )


@pytest.mark.parametrize(
    ("now", "bound", "state"),
    [
        (side(29, 0.5), Bound("<", 30), State.REACHED),
        (side(29, 1), Bound("<", 30), State.NOT_REACHED),
        (side(0.96, 0.02), Bound(">=", 0.95), State.NOT_REACHED),
        (side(0.97, 0.02), Bound(">=", 0.95), State.REACHED),
        (side(3, source=Source.REHEARSED), Bound("<", 180), State.REHEARSED),
        (side(200, source=Source.REHEARSED), Bound("<", 180), State.NOT_REACHED),
        (Side(3, 2, float("inf"), Source.MEASURED, ""), Bound("<", 30), State.NOT_REACHED),
        (None, Bound("<", 30), State.MISSING),
    ],
)
def test_a_target_is_judged_by_the_end_of_the_interval_that_is_against_us(
    now: Side | None, bound: Bound, state: State
) -> None:
    assert target(now, bound=bound).state is state


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (side(12, 1), side(3, 1), "4 times better"),
        (side(3, 1), side(12, 1), "4 times worse"),
        (side(4, 1), side(3, 1), "no difference can be told from these intervals"),
        (side(120, source=Source.ASSUMED), side(3, 1), "nothing: before is ASSUMED"),
        (side(12, 1), side(3, 1, Source.REHEARSED), "nothing: after is REHEARSED"),
        (None, side(3), "nothing: there is no figure of before"),
        (side(12), None, "nothing: it was not measured now"),
    ],
)
def test_an_improvement_is_claimed_only_where_both_sides_were_measured_and_part(
    before: Side | None, now: Side | None, told: str
) -> None:
    assert target(now, before).improvement == told


def test_what_is_used_up_of_a_target_is_counted_from_the_best_that_there_is() -> None:
    assert target(side(15, 3)).used_share == pytest.approx(0.6)
    assert target(side(3_000), bound=Bound(">=", 1_500)).used_share == pytest.approx(0.5)
    recall = target(side(0.98, 0.01), bound=Bound(">=", 0.95), best=1.0)
    assert recall.used_share == pytest.approx(0.6), "three misses of the five that are allowed"


def test_more_recall_is_better_and_more_milliseconds_are_worse() -> None:
    recall = target(side(0.97, 0.01), side(0.80, 0.01), Bound(">=", 0.95))
    assert recall.improvement == "1.2 times better"
    assert recall.is_improved is True
    assert target(side(9, 1), side(3, 1)).is_improved is False
    assert target(side(9, 5), side(8, 5)).is_improved is None


sides = st.builds(
    lambda low, width, more, source: Side(low + width, low, low + width + more, source, ""),
    st.floats(0.001, 1e6),
    st.floats(0, 1e3),
    st.floats(0, 1e3),
    st.sampled_from([Source.MEASURED, Source.ASSUMED, Source.REHEARSED]),
)


@given(st.none() | sides, sides, st.sampled_from(["<", ">="]))
def test_nothing_is_ever_claimed_on_an_assumption_or_within_the_noise(
    before: Side | None, now: Side, comparison: str
) -> None:
    found = target(now, before, Bound(comparison, 30))
    if found.is_improved is None:
        return
    assert before is not None
    assert {before.source, now.source} == {Source.MEASURED}
    assert now.high < before.low or before.high < now.low


# --- criteria and what is left ----------------------------------------------------------------------------------------


def whole(**values: Target) -> dict[str, Target]:
    return {"vector_search": target(side(3, 1), side(12, 1)), "api": target(side(20, 1), title="API, p95"), **values}


RECALL = target(side(0.97, 0.01), side(0.96, 0.01), Bound(">=", 0.95), title="recall@10", unit="")


def test_each_criterion_has_its_evidence_or_is_missing() -> None:
    found = criteria(whole(), RECALL, {}, None)
    assert [one.state for one in found] == [
        State.REACHED, State.MISSING, State.REACHED, State.REACHED, State.MISSING,
    ]  # fmt: skip
    assert "nobody has asked them" in found[1].evidence
    assert found[2].evidence.startswith("p95 4 times better; recall no difference")
    assert "01_infrastructure: MISSING" in found[4].evidence


def test_one_target_that_is_missing_or_missed_takes_the_whole_criterion_with_it() -> None:
    missing = target(None, title="API, p95", missing="there is no service: run 05_api first")
    found = criteria(whole(api=missing), RECALL, {}, "ada asked on 2027-02-01: yes")
    assert (found[0].state, found[3].state) == (State.MISSING, State.MISSING)
    assert "there is no service" in found[0].evidence
    assert found[1].state is State.REACHED
    missed = criteria(whole(api=target(side(120, 1), title="API, p95")), RECALL, {}, None)
    assert missed[0].state is State.NOT_REACHED


def test_reliability_and_security_are_shown_by_runs_that_are_not_too_old() -> None:
    drills = (
        "rows on the source acknowledged and not there", "rows on the target acknowledged and not there",
        "marker rows that a restore lost", "changes in quarantine",
    )  # fmt: skip
    memory = sealed("03_memory", *(Evidence(claim, Source.MEASURED, 0, "rows", Bound("==", 0)) for claim in drills))
    others = [
        sealed(name, yes_or_no("read back", Source.OBSERVED, True)) for name in ("01_infrastructure", "02_workstations")
    ]
    runs, ended = {run.entry.runbook: run for run in (memory, *others)}, memory.ended
    assert ended is not None

    def judged(days: int, *, is_switched: bool = False) -> Criterion:
        at = ended + timedelta(days=days)
        return criteria(whole(), RECALL, counted_now(runs, at, 72.0, is_switched=is_switched), None)[4]

    assert judged(2).state is State.REACHED
    assert judged(4).state is State.MISSING
    assert "03_memory does not count: its evidence is 96.0 hours old, and 72 are allowed" in judged(4).evidence
    assert judged(30, is_switched=True).state is State.REACHED, "it was judged at the switch"


def sealed(runbook: str, *rows: Evidence) -> SealedRun:
    found = open_record(runbook, None, None)
    found.ended = found.started
    return SealedRun(entry(runbook, found.run_id, found.started.isoformat()), found, rows, ())


def test_faster_with_less_recall_is_no_improvement() -> None:
    worse = target(side(0.80, 0.01), side(0.96, 0.01), Bound(">=", 0.75), title="recall@10")
    assert criteria(whole(), worse, {}, None)[2].state is State.NOT_REACHED


def test_what_is_left_is_ranked_missed_first_then_missing_then_near_then_money() -> None:
    levers = cost_levers(settings.load("local").public(), list_prices(), DAY)
    near, far = target(side(20, 1), title="near"), target(side(2, 1), title="far")
    missed, missing = target(side(90, 1), title="missed"), target(None, title="missing", missing="nobody was there")
    worse = target(side(5, 0.1), side(1, 0.1), title="worse")
    found = opportunities((far, near, worse, missing, missed), {"near": "tune again"}, levers)
    assert [one.name for one in found[:4]] == ["missed", "missing", "worse", "near"]
    assert found[2].gain.startswith("5 times worse than before")
    assert found[3].step == "tune again"
    assert found[4:] == levers
    saved = [float(re.sub(r"[^0-9.]", "", one.gain)) for one in levers]
    assert saved == sorted(saved, reverse=True)
    assert all("usage." not in one.step for one in levers), "what is expected is no lever"


# --- the plan beside the ledger ---------------------------------------------------------------------------------------


def entry(runbook: str, run_id: str, at: str, verdict: Verdict | None = Verdict.REHEARSED) -> Entry:
    return Entry(
        sequence=1, at=at, run_id=run_id, runbook=runbook, environment="local", operator="ada",
        outcome=Outcome.COMPLETED, verdict=verdict, exit_code=0, record="r", record_sha256="0", notebook=None,
        notebook_sha256=None, notebook_missing=None, supersedes=(), repair=None, previous_sha256="0", entry_sha256="0",
    )  # fmt: skip


LEDGER = (
    entry("01_infrastructure", "20261126T100000Z-aaaaaa", "2026-11-26T10:00:13+00:00"),
    entry("03_memory", "20261127T100000Z-bbbbbb", "2026-11-27T10:03:00+00:00", Verdict.FAIL),
    entry("03_memory", "20261128T100000Z-cccccc", "2026-11-28T10:03:00+00:00"),
    entry("99_rollback", "20261129T100000Z-dddddd", "2026-11-29T10:03:00+00:00"),
    entry("03_memory", "not one of ours", "2026-11-29T10:03:00+00:00"),
)


def test_the_plan_begins_with_the_first_run_and_each_run_stands_in_its_phase() -> None:
    timeline = settings.load("local").timeline or ()
    found = schedule(timeline, (), LEDGER, "local", None, DAY)
    assert found.first_day == date(2026, 11, 26)
    assert len(found.stretches) == 6
    assert (found.stretches[0].begins.date(), found.stretches[0].ends.date()) == (DAY, date(2026, 12, 10))
    memory = next(stretch for stretch in found.stretches if stretch.name == "Memory System Optimization")
    assert [run.verdict for run in memory.runs] == ["FAIL", "REHEARSED"]
    assert memory.actual == (datetime(2026, 11, 27, 10, tzinfo=UTC), datetime(2026, 11, 28, 10, 3, tzinfo=UTC))
    assert {run for stretch in timeline for run in stretch.runbooks} == {f"0{number}" for number in range(1, 8)}
    figure = schedule_figure(found, "environment local")
    assert figure.layout.title.text.startswith("6 weeks planned, 3 runs in the ledger")


def test_a_plan_may_begin_on_a_day_that_was_said_and_shows_its_windows() -> None:
    freeze = Window.model_validate({
        "name": "freeze", "purpose": "feature_freeze", "phases": ["03"], "timezone": "UTC",
        "first_day": "2027-01-20", "last_day": "2027-01-22",
    })  # fmt: skip
    found = schedule(settings.load("local").timeline or (), (freeze,), (), "local", date(2027, 1, 11), DAY)
    assert found.first_day == date(2027, 1, 11)
    assert [(one.name, one.ends.date()) for one in found.windows] == [("freeze", date(2027, 1, 23))]
    assert all(stretch.actual is None for stretch in found.stretches)


def test_the_old_system_goes_only_after_its_days_and_after_its_conditions() -> None:
    found = retirement(DAY, 30, "orchestra_memory_return", "orchestra-source-dsn", "production")
    assert found.ends == date(2026, 12, 26)
    days = [step.on for step in found.steps]
    assert days == sorted(days)
    gone = next(step for step in found.steps if "shut down" in step.what)
    assert (gone.on, gone.condition) == (date(2026, 12, 27), "the slot is gone")
    assert retirement(DAY, 1, "slot", "", "local").steps[2].on == DAY, "never before the cutover"


# --- the page ---------------------------------------------------------------------------------------------------------


def shown() -> tuple[Target, ...]:
    return (
        target(side(3, 1), side(12, 1), hardware="2 cores, <AMD>", load="load average 0.2"),
        RECALL,
        target(side(20, 1, Source.REHEARSED), side(250, source=Source.ASSUMED), Bound("<", 100), title="API, p95"),
        target(None, title="workstation start", unit="s", bound=Bound("<", 180), missing="nobody has a workstation"),
        target(side(1_200), None, Bound(">=", 1_500), title="synchronization", unit="records/s"),
    )


def test_the_page_says_it_all_on_its_own_and_asks_no_network() -> None:
    found = criteria(whole(), RECALL, {}, None)
    left = opportunities(shown(), {}, cost_levers(settings.load("local").public(), list_prices(), DAY))
    timeline = schedule(settings.load("local").timeline or (), (), LEDGER, "local", None, DAY)
    report = Report(
        verdict=Verdict.MISSING, environment="local", is_rehearsal=True, run_id="20261126T100000Z-aaaaaa",
        operator="ada", commit="0123456789ab", machine="2 cores", at=datetime(2026, 11, 26, tzinfo=UTC),
        targets=shown(), criteria=found, opportunities=left,
        figures=(targets_figure(shown(), "here"), schedule_figure(timeline, "environment local")),
    )  # fmt: skip
    text = page(report)
    assert "3 of 5 targets are reached, 1 are not, 1 could not be measured" in text
    assert "vector search, p95 4 times better" in text
    assert "MISSING: nobody has a workstation" in text
    assert text.count("<svg") == 2
    assert not re.search(r"<script|<link|@import|url\(|\bsrc=", text)
    outside = [link for link in re.findall(r"https?://[^\"'\s<)]+", text) if not link.startswith("http://www.w3.org/")]
    assert outside == []
    assert "<AMD>" not in text, "what is not ours is escaped"


def test_the_tables_and_the_figure_show_what_is_missing_as_missing() -> None:
    assert "MISSING: nobody has a workstation" in repr(targets_table(shown()))
    assert "not measured: workstation start" in targets_figure(shown(), "here").layout.title.text
    assert "MISSING" in repr(criteria_table(criteria(whole(), RECALL, {}, None)))
    assert "not measured: nobody has a workstation" in repr(opportunities_table(opportunities(shown(), {}, ())))
