"""Holding a record against itself: whether what it says of its run is what its rows and steps come to.

A record is written by the kernel that it speaks of, so a cell can write anything into it. What it cannot do is to make
the rows say something else than they do. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from orchestra_lib.evidence import Evidence, Verdict, digest_of, evidence_of, roll_up
from orchestra_lib.record import Failure, Outcome, Record

_CLOCK_STEP = timedelta(seconds=5)
"""By so much a clock may be corrected in the middle of a run, without anybody meaning anything by it."""
_GREEN = (Verdict.PASS, Verdict.REHEARSED)


def contradictions(found: Record) -> tuple[str, ...]:
    """In which points a record of a completed run contradicts itself, one sentence each; none for any other run."""
    if found.outcome is not Outcome.COMPLETED:
        return ()
    return (*_of_rows(found), *_of_steps(found), *_of_times(found))


def disbelieved(found: Record) -> Record:
    """A copy of the record as failed, when it contradicts itself; else the record."""
    wrong = contradictions(found)
    if not wrong:
        return found
    settled = found.model_copy(deep=True)
    settled.outcome, settled.verdict, settled.exit_code, settled.end_marker = Outcome.FAILED, Verdict.FAIL, 1, False
    settled.failure = Failure(error="RecordError", message=f"the record contradicts itself: {'; '.join(wrong)}")
    return settled


def unfinished_steps(found: Record) -> tuple[str, ...]:
    """Steps that failed or were broken off and were not completed afterwards, by name."""
    last = {step.name: step.outcome for step in found.steps}
    return tuple(name for name, outcome in last.items() if outcome in ("failed", "interrupted"))


def _of_rows(found: Record) -> Iterator[str]:
    rows: list[Evidence] = []
    for stated in found.evidence:
        try:
            row = evidence_of(stated)
        except ValueError as error:
            yield str(error)
            return
        rows.append(row)
        if stated.get("verdict") != row.verdict.value:
            yield f"{row.claim!r} is said to be {stated.get('verdict')}, its value comes to {row.verdict.value}"
        elif stated.get("digest") != digest_of(stated):
            yield f"{row.claim!r} is not the row that was added: its digest does not match"
        if row.at < found.started - _CLOCK_STEP:
            yield f"{row.claim!r} is of {row.at:%Y-%m-%d %H:%M:%S}, before the run began: it was not found out by it"
    verdict = roll_up(rows, rehearsal=bool(found.rehearsal))
    if verdict is not found.verdict:
        said = found.verdict.value if found.verdict else "none"
        yield f"its verdict is said to be {said}, its {len(rows)} rows come to {verdict.value}"
    elif verdict not in _GREEN:
        yield f"it is said to be completed, and its verdict is {verdict.value}"


def _of_steps(found: Record) -> Iterator[str]:
    for name in unfinished_steps(found):
        yield f"its step {name!r} failed and was not done again"


def _of_times(found: Record) -> Iterator[str]:
    if found.ended is not None and found.ended < found.started - _CLOCK_STEP:
        yield f"it ended at {found.ended:%Y-%m-%d %H:%M:%S}, before it began: the clock was set back"
