"""What a headless run came to, from two witnesses: the record that its kernel kept, and how its cells ended.

Pure: the engine saw the cells, the record says what the runbook reached, and this decides where they disagree. A run
counts as completed only when the kernel wrote the end marker *and* every cell ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestra_lib import errors
from orchestra_lib.evidence import Verdict
from orchestra_lib.record import Failure, Outcome, Record

INTERRUPTED_EXIT_CODE = 130


class CellsEnd(StrEnum):
    """How the cells ended."""

    ALL_RAN = "all ran"
    RAISED = "a cell raised"
    KERNEL_DIED = "the kernel died"
    TIMED_OUT = "a cell ran out of time"
    STOPPED = "a signal"
    NOT_STARTED = "the kernel did not start"


@dataclass(frozen=True)
class Ending:
    """The engine's witness: what ended the cells, in which cell (counted from 0), and the error's name and message."""

    how: CellsEnd
    cell_index: int | None = None
    error: str = ""
    message: str = ""


def settle(found: Record, ending: Ending, now: datetime) -> Record:
    """A copy of the record with its outcome, verdict, failure, exit code and end time. Messages are taken as given."""
    settled = found.model_copy(deep=True)
    outcome = _outcome(found, ending)
    if found.outcome in (Outcome.COMPLETED, Outcome.PLANNED) and outcome is not found.outcome:
        settled.notes.append(f"the runbook had reached {found.outcome.value}, then: {_said(ending)}")
    settled.outcome = outcome
    settled.verdict = _verdict(found, outcome)
    settled.failure = _failure(ending, outcome)
    settled.exit_code = _exit_code(found, ending, outcome)
    for step in settled.steps:
        if step.outcome == "running":
            step.outcome = "interrupted"
    settled.ended = now
    settled.duration_seconds = round((now - found.started).total_seconds(), 3)
    return settled


def _outcome(found: Record, ending: Ending) -> Outcome:
    if ending.how is CellsEnd.STOPPED or ending.error == "KeyboardInterrupt":
        return Outcome.INTERRUPTED
    if ending.how is CellsEnd.ALL_RAN:
        completed = found.end_marker and found.outcome is Outcome.COMPLETED
        return Outcome.COMPLETED if completed else Outcome.INTERRUPTED
    if ending.how is CellsEnd.RAISED:
        if found.outcome is Outcome.PLANNED and ending.error == errors.StopAfterPlan.__name__:
            return Outcome.PLANNED
        if found.outcome is Outcome.REFUSED:
            return Outcome.REFUSED
    return Outcome.FAILED


def _verdict(found: Record, outcome: Outcome) -> Verdict | None:
    if outcome in (Outcome.COMPLETED, Outcome.PLANNED):
        return found.verdict
    if outcome is Outcome.INTERRUPTED:
        return Verdict.INTERRUPTED
    return Verdict.MISSING if found.verdict is Verdict.MISSING else Verdict.FAIL


def _failure(ending: Ending, outcome: Outcome) -> Failure | None:
    if outcome in (Outcome.COMPLETED, Outcome.PLANNED):
        return None
    if ending.how is CellsEnd.ALL_RAN:
        return Failure(error="NoEndMarker", message="every cell ran, and none of them closed the run")
    return Failure(error=ending.error or ending.how.name, message=_said(ending), cell_index=ending.cell_index)


def _exit_code(found: Record, ending: Ending, outcome: Outcome) -> int:
    if outcome in (Outcome.COMPLETED, Outcome.PLANNED):
        return 0
    if outcome is Outcome.INTERRUPTED:
        return INTERRUPTED_EXIT_CODE
    if outcome is Outcome.REFUSED and found.exit_code:
        return found.exit_code
    # An error of ours carries its own code over from the kernel; everything else is a plain failure.
    raised = getattr(errors, ending.error, None) if ending.how is CellsEnd.RAISED else None
    if isinstance(raised, type) and issubclass(raised, errors.OrchestraError):
        return raised.exit_code or 1
    return 1


def _said(ending: Ending) -> str:
    return ending.message or ending.how.value
