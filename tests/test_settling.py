"""What a run came to, as a table of both witnesses: how the cells ended, and what the record had reached."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import errors, record
from orchestra_lib.evidence import Verdict
from orchestra_lib.record import Failure, Outcome, Record, Step
from orchestra_lib.settling import INTERRUPTED_EXIT_CODE, CellsEnd, Ending, settle

STARTED = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOW = STARTED + timedelta(seconds=12.3456)
FRESH = record.open_record("03_memory", Path("out.ipynb"), None)


def reached(outcome: Outcome, *, end_marker: bool = False, verdict: Verdict | None = None, **more: object) -> Record:
    return FRESH.model_copy(
        deep=True, update={"outcome": outcome, "end_marker": end_marker, "verdict": verdict, "started": STARTED, **more}
    )


O, E = Outcome, CellsEnd  # noqa: E741
# How the cells ended -> what the record had reached (with its end marker when COMPLETED) -> what the run came to.
TABLE = {
    E.ALL_RAN: {
        O.RUNNING: O.INTERRUPTED, O.COMPLETED: O.COMPLETED, O.PLANNED: O.INTERRUPTED,
        O.REFUSED: O.INTERRUPTED, O.FAILED: O.INTERRUPTED, O.INTERRUPTED: O.INTERRUPTED,
    },
    E.RAISED: {
        O.RUNNING: O.FAILED, O.COMPLETED: O.FAILED, O.PLANNED: O.FAILED,
        O.REFUSED: O.REFUSED, O.FAILED: O.FAILED, O.INTERRUPTED: O.FAILED,
    },
    E.KERNEL_DIED: dict.fromkeys(O, O.FAILED),
    E.TIMED_OUT: dict.fromkeys(O, O.FAILED),
    E.NOT_STARTED: dict.fromkeys(O, O.FAILED),
    E.STOPPED: dict.fromkeys(O, O.INTERRUPTED),
}  # fmt: skip
ROWS = [(how, before, after) for how, inner in TABLE.items() for before, after in inner.items()]


def test_the_table_has_every_ending_and_every_outcome() -> None:
    assert len(ROWS) == len(CellsEnd) * len(Outcome)


@pytest.mark.parametrize(("how", "before", "after"), ROWS, ids=[f"{how.name}-{before.name}" for how, before, _ in ROWS])
def test_both_witnesses_together_decide(how: CellsEnd, before: Outcome, after: Outcome) -> None:
    completed = before is Outcome.COMPLETED
    found = reached(before, end_marker=completed, verdict=Verdict.REHEARSED if completed else None)
    settled = settle(found, Ending(how, 4, "ValueError", "no answer"), NOW)
    assert settled.outcome is after
    if after is Outcome.COMPLETED:
        assert (settled.verdict, settled.failure, settled.exit_code) == (Verdict.REHEARSED, None, 0)
        return
    assert settled.verdict is (Verdict.INTERRUPTED if after is Outcome.INTERRUPTED else Verdict.FAIL)
    assert settled.exit_code == (INTERRUPTED_EXIT_CODE if after is Outcome.INTERRUPTED else 1)
    if how is CellsEnd.ALL_RAN:
        said = Failure(error="NoEndMarker", message="every cell ran, and none of them closed the run")
    else:
        said = Failure(error="ValueError", message="no answer", cell_index=4)
    assert settled.failure == said


def test_completed_without_the_end_marker_is_not_completed() -> None:
    settled = settle(reached(Outcome.COMPLETED, verdict=Verdict.PASS), Ending(CellsEnd.ALL_RAN, 4), NOW)
    assert (settled.outcome, settled.verdict) == (Outcome.INTERRUPTED, Verdict.INTERRUPTED)
    assert settled.exit_code == INTERRUPTED_EXIT_CODE


def test_a_run_stopped_after_its_plan_is_planned() -> None:
    found = reached(Outcome.PLANNED, verdict=Verdict.PLANNED)
    settled = settle(found, Ending(CellsEnd.RAISED, 3, "StopAfterPlan", "stopped as asked"), NOW)
    assert (settled.outcome, settled.verdict, settled.exit_code) == (Outcome.PLANNED, Verdict.PLANNED, 0)
    assert settled.failure is None


@pytest.mark.parametrize("before", [outcome for outcome in Outcome if outcome is not Outcome.PLANNED])
def test_stop_after_plan_alone_makes_no_run_planned(before: Outcome) -> None:
    settled = settle(reached(before), Ending(CellsEnd.RAISED, 3, "StopAfterPlan", "stopped"), NOW)
    assert settled.outcome is not Outcome.PLANNED
    assert settled.exit_code != 0


def test_an_interrupt_inside_the_kernel_is_an_interruption() -> None:
    settled = settle(reached(Outcome.RUNNING), Ending(CellsEnd.RAISED, 2, "KeyboardInterrupt", ""), NOW)
    assert (settled.outcome, settled.exit_code) == (Outcome.INTERRUPTED, INTERRUPTED_EXIT_CODE)
    assert settled.failure == Failure(error="KeyboardInterrupt", message="a cell raised", cell_index=2)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("ParameterError", 2),
        ("TargetUnreachable", 3),
        ("GateFailed", 1),
        ("StopAfterPlan", 1),  # it says 0, but the record had not reached its plan
        ("ZeroDivisionError", 1),
        ("annotations", 1),  # a name in our module of errors that is no error
        ("", 1),
    ],
)
def test_our_own_errors_carry_their_exit_code_over_from_the_kernel(error: str, code: int) -> None:
    assert settle(reached(Outcome.RUNNING), Ending(CellsEnd.RAISED, 2, error, "gone"), NOW).exit_code == code
    died = settle(reached(Outcome.RUNNING), Ending(CellsEnd.KERNEL_DIED, 2, error, "gone"), NOW)
    assert died.exit_code == 1


def test_a_refusal_keeps_the_exit_code_that_it_was_given() -> None:
    found = reached(Outcome.REFUSED, verdict=Verdict.FAIL, exit_code=3)
    assert settle(found, Ending(CellsEnd.RAISED, 2, "ParameterError", "no"), NOW).exit_code == 3
    assert settle(found, Ending(CellsEnd.STOPPED, 2, "SIGTERM", "no"), NOW).exit_code == INTERRUPTED_EXIT_CODE


@pytest.mark.parametrize("how", [how for how in CellsEnd if how not in (CellsEnd.ALL_RAN, CellsEnd.STOPPED)])
def test_missing_evidence_stays_missing_in_a_failure_and_is_lost_in_an_interruption(how: CellsEnd) -> None:
    found = reached(Outcome.RUNNING, verdict=Verdict.MISSING)
    assert settle(found, Ending(how, 2), NOW).verdict is Verdict.MISSING
    assert settle(found, Ending(CellsEnd.STOPPED, 2), NOW).verdict is Verdict.INTERRUPTED
    assert settle(reached(Outcome.RUNNING, verdict=Verdict.PASS), Ending(how, 2), NOW).verdict is Verdict.FAIL


@pytest.mark.parametrize("before", [Outcome.COMPLETED, Outcome.PLANNED])
def test_an_end_that_was_reached_and_then_lost_is_noted(before: Outcome) -> None:
    found = reached(before, end_marker=True, notes=["first"])
    settled = settle(found, Ending(CellsEnd.KERNEL_DIED, 9, "DeadKernelError"), NOW)
    assert settled.notes == ["first", f"the runbook had reached {before.value}, then: the kernel died"]
    assert found.notes == ["first"], "the record that was given is not touched"


def test_running_steps_are_interrupted_and_ended_ones_stay() -> None:
    steps = [Step(name="copy", started=STARTED, outcome="completed"), Step(name="index", started=STARTED)]
    settled = settle(reached(Outcome.RUNNING, steps=steps), Ending(CellsEnd.KERNEL_DIED, 9), NOW)
    assert [(step.name, step.outcome) for step in settled.steps] == [("copy", "completed"), ("index", "interrupted")]
    assert (settled.ended, settled.duration_seconds) == (NOW, 12.346)


ENDINGS = st.builds(
    Ending,
    st.sampled_from(CellsEnd),
    st.none() | st.integers(0, 9),
    st.sampled_from(["", "StopAfterPlan", "KeyboardInterrupt", "ValueError", "SIGTERM"])
    | st.sampled_from(sorted(name for name in vars(errors) if not name.startswith("_"))),
    st.text(max_size=5),
)
RECORDS = st.builds(
    reached,
    st.sampled_from(Outcome),
    end_marker=st.booleans(),
    verdict=st.none() | st.sampled_from(Verdict),
    exit_code=st.none() | st.integers(0, 3),
)


@given(found=RECORDS, ending=ENDINGS)
def test_the_exit_code_is_0_exactly_for_what_completed_or_was_planned(found: Record, ending: Ending) -> None:
    settled = settle(found, ending, NOW)
    good = settled.outcome in (Outcome.COMPLETED, Outcome.PLANNED)
    assert (settled.exit_code == 0) == good
    assert (settled.failure is None) == good
    assert settled.outcome is not Outcome.RUNNING
    if good:
        assert found.outcome is settled.outcome
        assert ending.how is (CellsEnd.ALL_RAN if settled.outcome is Outcome.COMPLETED else CellsEnd.RAISED)
    else:
        assert settled.verdict in (Verdict.FAIL, Verdict.MISSING, Verdict.INTERRUPTED)
    assert Record.model_validate_json(settled.model_dump_json()) == settled
