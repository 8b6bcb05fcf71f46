"""Which sealed runs count at the cutover: fresh, as they were sealed, following from their rows, and not undone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestra_lib import audit, paths, record, settings
from orchestra_lib.errors import GateFailed, OrchestraError, StopAfterPlan
from orchestra_lib.evidence import Evidence, Source, Verdict, yes_or_no
from orchestra_lib.plan import Plan
from orchestra_lib.record import Record
from orchestra_lib.runbook import Runbook
from orchestra_lib.validation.gates import (
    PHASES,
    evidence_read,
    gate_evidence,
    phase_reasons,
    require_standing,
    runbook_of,
)
from orchestra_lib.validation.sealed import SealedRun, latest_runs

HOUR = timedelta(hours=1)

Ran = Callable[..., Path]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Runs a runbook to its end with one row of evidence, in a home of its own; returns its record's path."""
    shutil.copytree(settings.root() / "parameters", tmp_path / "parameters")
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)

    def run(name: str, row: Evidence | None = None, **parameters: object) -> Path:
        opened = Runbook.open(name, environment="local", **parameters)
        with opened.step("apply"):
            opened.add(row or good())
        opened.verify()
        opened.close()
        return opened.record_path

    return run


def good() -> Evidence:
    """Green, and found out now: evidence that is older than its run is no evidence of it."""
    return yes_or_no("it is as it was wanted", Source.REHEARSED, holds=True)


def runs() -> dict[str, SealedRun]:
    return latest_runs("local", rehearsal=True)


def reasons(runbook: str = "02_workstations") -> tuple[str, ...]:
    return runs()[runbook].reasons


def changed(path: Path, change: Callable[[Record], object]) -> Record:
    """Alter a record on the disk."""
    found = record.load(path)
    change(found)
    record.save(found, path)
    return found


def broken_off(name: str, *steps: str, **parameters: object) -> Path:
    """A run that came as far as these steps and found something red; returns its record's path."""
    opened = Runbook.open(name, environment="local", **parameters)
    for step in steps:
        with opened.step(step):
            pass
    with pytest.raises(GateFailed):
        opened.preflight((yes_or_no("it may begin", Source.REHEARSED, holds=False),))
    lock = opened._replaced()
    assert lock is not None
    lock.release()
    return opened.record_path


def forged(path: Path, change: Callable[[Record], object]) -> None:
    """Make a record of what never ran from one that did, and seal it, as somebody does who can write the ledger."""
    made = record.load(path)
    change(made)
    made.run_id = record.new_run_id()
    forgery = path.with_name(f"forged-{path.name}")
    record.save(made, forgery)
    audit.seal(forgery, None)


def test_a_run_that_is_as_it_was_sealed_counts(ran: Ran) -> None:
    ran("02_workstations")
    found = runs()["02_workstations"]
    assert found.reasons == ()
    assert [row.claim for row in found.rows] == [good().claim]
    assert found.row(good().claim) is not None
    assert phase_reasons(found, datetime.now(UTC), 1.0) == ()


def test_a_phase_that_was_never_run_is_missing_and_every_phase_is_asked_for(ran: Ran) -> None:
    ran("02_workstations")
    rows = gate_evidence(runs(), datetime.now(UTC), 1.0, Source.REHEARSED)
    assert [row.claim[:2] for row in rows] == list(PHASES) == ["01", "02", "03", "04", "05", "06"]
    verdicts = {row.claim[:2]: row.verdict for row in rows}
    assert verdicts.pop("02") is Verdict.REHEARSED
    assert set(verdicts.values()) == {Verdict.MISSING}


def test_evidence_that_is_too_old_does_not_count_and_the_limit_itself_does(ran: Ran) -> None:
    ran("02_workstations")
    found = runs()["02_workstations"]
    assert found.ended is not None
    assert phase_reasons(found, found.ended + 24 * HOUR, 24.0) == ()
    (reason,) = phase_reasons(found, found.ended + 24 * HOUR + timedelta(seconds=1), 24.0)
    assert "24.0 hours old, and 24 are allowed" in reason


def test_after_the_switch_only_the_validation_has_to_be_fresh(ran: Ran) -> None:
    for name in ("01_infrastructure", "03_memory", "06_validation"):
        ran(name)
    later = datetime.now(UTC) + 30 * 24 * HOUR
    before = gate_evidence(runs(), later, 72.0, Source.REHEARSED)
    after = gate_evidence(runs(), later, 72.0, Source.REHEARSED, is_switched=True)
    assert [row.claim[:2] for row in before if row.verdict is Verdict.FAIL] == ["01", "03", "06"]
    assert [row.claim[:2] for row in after if row.verdict is Verdict.FAIL] == ["06"]
    assert "minutes old" in next(row.note for row in after if row.claim.startswith("03")), "a reading all the same"
    early = datetime.now(UTC) - HOUR
    assert all(
        "a clock is wrong" in row.note
        for row in gate_evidence(runs(), early, 72.0, Source.REHEARSED, is_switched=True)
        if row.value
    )


def test_evidence_of_the_future_does_not_count(ran: Ran) -> None:
    ran("02_workstations")
    found = runs()["02_workstations"]
    assert found.ended is not None
    (reason,) = phase_reasons(found, found.ended - timedelta(seconds=1), 24.0)
    assert "a clock is wrong" in reason


def test_a_record_that_was_altered_after_it_was_sealed_does_not_count(ran: Ran) -> None:
    path = ran("02_workstations")
    changed(path, lambda found: found.notes.append("nothing of importance"))
    (reason,) = reasons()
    assert reason.startswith("02_workstations.record.json is not as it was sealed (altered")


def test_a_verdict_that_was_edited_and_sealed_again_does_not_follow_from_its_rows(ran: Ran) -> None:
    path = ran("02_workstations")
    forged(path, lambda found: setattr(found, "verdict", Verdict.PASS))
    (reason,) = reasons()
    assert "forged: run" in reason
    assert "its verdict is said to be PASS, its 1 rows come to REHEARSED" in reason


def test_a_row_that_was_edited_and_sealed_again_is_judged_anew(ran: Ran) -> None:
    path = ran("02_workstations")

    def lie(found: Record) -> None:
        found.evidence = [{**found.evidence[0], "value": 0}]

    forged(path, lie)
    said = reasons()
    assert any(f"{good().claim!r} is said to be REHEARSED, its value comes to FAIL" in reason for reason in said)
    assert "its evidence comes to FAIL" in said


def test_a_run_without_any_evidence_does_not_count(ran: Ran) -> None:
    path = ran("02_workstations")
    forged(path, lambda found: setattr(found, "evidence", []))
    assert "its evidence comes to FAIL" in reasons()


def test_on_google_cloud_what_is_only_rehearsed_does_not_count(ran: Ran) -> None:
    ran("02_workstations")
    found = latest_runs("local", rehearsal=False)["02_workstations"]
    assert found.reasons == ("its evidence comes to MISSING",)


def test_a_record_that_is_gone_does_not_count(ran: Ran) -> None:
    path = ran("02_workstations")
    path.unlink()
    said = reasons()
    assert any("removed" in reason for reason in said)
    assert runs()["02_workstations"].row(good().claim) is None


def test_a_line_of_the_ledger_that_was_altered_takes_everything_with_it(ran: Ran) -> None:
    for name in ("01_infrastructure", "02_workstations"):
        ran(name)
    ledger = paths.ledger_path()
    lines = ledger.read_text().splitlines(keepends=True)
    entry = json.loads(lines[0])
    ledger.write_text(lines[0].replace(entry["operator"], entry["operator"] + "x") + lines[1])
    assert any("ledger.jsonl is not as it was sealed" in reason for reason in reasons("02_workstations"))


def test_a_ledger_without_its_head_proves_nothing(ran: Ran) -> None:
    ran("02_workstations")
    paths.ledger_path().with_suffix(".head").unlink()
    assert any("ledger.head is not as it was sealed (removed" in reason for reason in reasons())


def test_the_last_run_decides_also_when_it_failed(ran: Ran) -> None:
    ran("02_workstations")
    opened = Runbook.open("02_workstations", environment="local")
    opened.add(yes_or_no("it broke", Source.REHEARSED, holds=False))
    with pytest.raises(GateFailed):
        opened.verify()
    lock = opened._replaced()
    assert lock is not None
    lock.release()
    assert any("ended interrupted" in reason for reason in reasons())
    ran("02_workstations")
    assert reasons() == ()


def test_a_run_that_only_planned_or_was_refused_says_nothing_either_way(ran: Ran) -> None:
    ran("02_workstations")
    opened = Runbook.open("02_workstations", environment="local", mode="plan")
    plan = opened.plan(Plan(()))
    with pytest.raises(StopAfterPlan):
        opened.approve(plan)
    with pytest.raises(OrchestraError):
        Runbook.open("02_workstations", environment="local", starts=1)
    broken_off("02_workstations", "recover", mode="plan")
    assert reasons() == (), "its checks were red, and it would only have planned"


@pytest.mark.parametrize(("undone", "counts"), [("02", False), ("all", False), ("03", True)])
def test_what_was_rolled_back_since_does_not_count(ran: Ran, undone: str, counts: bool) -> None:
    ran("02_workstations")
    ran("99_rollback", phase=undone)
    assert (reasons() == ()) is counts, reasons()
    ran("02_workstations")
    assert reasons() == (), "it was made anew"


def test_a_rollback_that_only_planned_has_undone_nothing(ran: Ran) -> None:
    ran("02_workstations")
    opened = Runbook.open("99_rollback", environment="local", mode="plan", phase="02")
    with pytest.raises(StopAfterPlan):
        opened.approve(opened.plan(Plan(())))
    assert reasons() == ()


@pytest.mark.parametrize("parameters", [{"phase": "02"}, {"phase": "all"}, {"phase": "02", "mode": "plan"}])
def test_a_rollback_that_was_stopped_by_its_checks_has_undone_nothing(ran: Ran, parameters: dict[str, str]) -> None:
    ran("02_workstations")
    broken_off("99_rollback", "recover", **parameters)
    assert reasons() == ()


@pytest.mark.parametrize(("step", "undone"), [("apply", "02"), ("apply 02", "all")])
def test_a_rollback_that_had_begun_counts_however_it_ended(ran: Ran, step: str, undone: str) -> None:
    ran("02_workstations")
    broken_off("99_rollback", "recover", "plan", step, phase=undone)
    (reason,) = reasons()
    assert reason.startswith("undone by run ")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: changed(path, lambda found: found.steps.clear())])
def test_a_rollback_whose_record_is_not_as_it_was_sealed_may_have_undone_anything(
    ran: Ran, damage: Callable[[Path], object]
) -> None:
    ran("02_workstations")
    damage(ran("99_rollback", phase="08"))
    assert any(reason.startswith("undone by run ") for reason in reasons())


@pytest.mark.parametrize(
    ("later", "parameters"),
    [
        ("02_workstations", {}), ("03_memory", {}), ("04_assistant", {}), ("05_api", {}), ("08_vector_tuning", {}),
        ("99_rollback", {"phase": "05"}), ("99_rollback", {"phase": "08"}),
    ],
)  # fmt: skip
def test_a_validation_says_nothing_of_what_was_changed_since(ran: Ran, later: str, parameters: dict[str, str]) -> None:
    ran("05_api")
    ran("06_validation")
    assert reasons("06_validation") == (), "what came before it is what it has measured"
    ran(later, **parameters)
    (reason,) = reasons("06_validation")
    assert f"of {later} came after it" in reason
    (gate,) = [row for row in gate_evidence(runs(), datetime.now(UTC), 1.0, Source.REHEARSED) if "06" in row.claim]
    assert gate.verdict is Verdict.FAIL
    ran("06_validation")
    assert reasons("06_validation") == (), "it was measured anew"


def test_a_validation_stands_while_nothing_that_it_has_measured_changes(ran: Ran) -> None:
    ran("06_validation")
    for name in ("00_preflight", "01_infrastructure", "07_finalization"):
        ran(name)
    ran("99_rollback", phase="07")
    broken_off("05_api", "recover", mode="plan")
    opened = Runbook.open("08_vector_tuning", environment="local", mode="plan")
    with pytest.raises(StopAfterPlan):
        opened.approve(opened.plan(Plan(())))
    assert reasons("06_validation") == ()


def test_a_run_that_was_broken_off_may_have_changed_what_was_measured(ran: Ran) -> None:
    ran("06_validation")
    broken_off("08_vector_tuning", "recover")
    (reason,) = reasons("06_validation")
    assert "of 08_vector_tuning came after it" in reason


def test_what_was_approved_is_switched_only_while_it_counts(ran: Ran) -> None:
    for phase in PHASES:
        ran(runbook_of(phase))
    approved = evidence_read(runs())
    assert set(approved) == {runbook_of(phase) for phase in PHASES}

    def switch(later: timedelta = timedelta()) -> None:
        found = runs()
        gates = gate_evidence(found, datetime.now(UTC) + later, 24.0, Source.REHEARSED)
        require_standing(gates, evidence_read(found), approved, rehearsal=True)

    switch()
    with pytest.raises(GateFailed, match=r"a gate has closed since the plan was made(.|\n)*25.0 hours old"):
        switch(25 * HOUR)
    ran("06_validation")
    with pytest.raises(GateFailed, match="06_validation ran since the plan was made, and nothing was switched"):
        switch()
    ran("02_workstations")
    with pytest.raises(GateFailed, match="of 02_workstations came after it"):
        switch()


def test_a_run_of_another_environment_says_nothing_of_this_one(ran: Ran) -> None:
    ran("02_workstations")
    assert latest_runs("production", rehearsal=False) == {}


def test_every_phase_has_a_runbook() -> None:
    assert all(runbook_of(phase).startswith(f"{phase}_") for phase in PHASES)
