"""The table at the end of a chain: one line a phase, with the number that says most about it."""

from __future__ import annotations

from pathlib import Path

from orchestra_lib import record, run_summary
from orchestra_lib.evidence import Bound, Evidence, Source, Verdict
from orchestra_lib.record import Failure, Outcome
from orchestra_lib.run_summary import Ended

NONE = Bound("==", 0)


def ended(runbook: str, verdict: Verdict, *rows: Evidence, seconds: float = 12.4) -> Ended:
    found = record.open_record(runbook, Path(f"/runs/{runbook}.ipynb"), None, "run-1")
    found.outcome, found.verdict = Outcome.COMPLETED, verdict
    found.evidence = [row.as_json() for row in rows]
    return Ended(runbook, found, 0, "", seconds)


def table(*runs: Ended) -> list[str]:
    lines = list(run_summary.lines(runs))
    return lines[lines.index("") + 1 :]


def test_each_phase_shows_the_number_that_it_is_known_by_with_what_was_wanted() -> None:
    first = Evidence("changes in quarantine", Source.OBSERVED, 0, "rows", NONE)
    key = Evidence(
        "p95 of vector search on the target, upper end of its interval", Source.MEASURED, 3.263, "ms", Bound("<", 30)
    )
    headings, row = table(ended("03_memory", Verdict.REHEARSED, first, key, seconds=215.9))
    assert headings.split() == ["phase", "verdict", "key", "number", "wanted", "time"]
    assert row.split()[:3] == ["03_memory", "REHEARSED", "p95"]
    assert row.endswith("its interval: 3.263 ms  < 30    3:35")


def test_a_red_row_goes_before_the_one_that_the_phase_is_known_by() -> None:
    good = Evidence("p95 of vector search on the target", Source.MEASURED, 3.2, "ms", Bound("<", 30))
    bad = Evidence("rows on the target less rows on the source", Source.MEASURED, -4, "rows", NONE)
    *_, row = table(ended("03_memory", Verdict.FAIL, good, bad))
    assert "less rows on the source: -4 rows  == 0" in row


def test_a_phase_that_nothing_is_known_of_shows_its_first_judged_row_and_a_plan_shows_none() -> None:
    reading = Evidence("rows", Source.OBSERVED, 5)
    judged = Evidence("things left", Source.OBSERVED, 0, "", NONE)
    _, known, planned = table(ended("07_last", Verdict.REHEARSED, reading, judged), ended("01_x", Verdict.PLANNED))
    assert "things left: 0" in known
    assert planned.split() == ["01_x", "PLANNED", "-", "-", "0:12"]


def test_a_run_without_a_record_is_told_as_such() -> None:
    lines = list(run_summary.lines([Ended("05_api", None, 1, "Traceback\nboom\n", 1.0)]))
    assert lines[1] == "    papermill left no record; its last words: boom"
    assert " ".join(lines[-1].split()) == "05_api NO RECORD papermill left no record; its last words: boom - 0:01"


def test_a_run_that_failed_without_a_red_row_shows_why() -> None:
    good = Evidence("p95 of vector search on the target", Source.MEASURED, 3.2, "ms", Bound("<", 30))
    run = ended("03_memory", Verdict.FAIL, good)
    assert run.record is not None
    run.record.outcome, run.record.failure = Outcome.FAILED, Failure(error="TargetUnreachable", message="it is gone")
    assert "TargetUnreachable: it is gone" in table(run)[-1]
