"""Lies about what was recorded: the record, the executed notebook, the ledger, the clock."""

from __future__ import annotations

import contextlib
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import nbformat
import small_runbooks
from lie import NOT_CAUGHT, Lie, World, found_by_audit, honest_run, said

from orchestra_lib import audit, ledger, paths, record, settings
from orchestra_lib.evidence import Bound, Evidence, Source, Verdict, roll_up, yes_or_no
from orchestra_lib.plan import Change, Plan, Verb
from orchestra_lib.record import Outcome
from orchestra_lib.runbook import Runbook
from orchestra_lib.validation.gates import gate_evidence
from orchestra_lib.validation.sealed import latest_runs

CHECKOUT = Path(__file__).resolve().parents[2]


def verdict_edited(world: World) -> str:
    path = honest_run()
    path.write_text(path.read_text().replace('"REHEARSED"', '"PASS"'))
    return found_by_audit()


def notebook_edited(world: World) -> str:
    output = _headless(world, small_runbooks.OPEN, small_runbooks.GOOD, small_runbooks.CLOSE)[0]
    assert found_by_audit() == NOT_CAUGHT
    notebook = nbformat.read(output, as_version=4)
    notebook.cells[-1].outputs = []
    nbformat.write(notebook, output)
    return found_by_audit()


def record_of_another_run(world: World) -> str:
    good = honest_run().read_bytes()
    run = Runbook.open("01_infrastructure", environment="local")
    run.add(yes_or_no("rows are equal", Source.MEASURED, False))
    run._end(Outcome.FAILED, Verdict.FAIL, 1)
    run.record_path.write_bytes(good)
    return found_by_audit()


def stale_record(world: World) -> str:
    honest_run()
    return _gate(datetime.now(UTC) + timedelta(hours=49))


def rolled_back_phase(world: World) -> str:
    honest_run()
    assert "undone" not in _gate(datetime.now(UTC))
    honest_run("99_rollback", phase="01")
    return _gate(datetime.now(UTC))


def complete_rollback(world: World) -> str:
    honest_run()
    honest_run("99_rollback", phase="all")
    return _gate(datetime.now(UTC))


def ledger_line_removed(world: World) -> str:
    for _ in range(3):
        honest_run()
    path = paths.ledger_path()
    first, _removed, last = path.read_text().splitlines(keepends=True)
    path.write_text(first + last)
    return found_by_audit()


def sealed_twice(world: World) -> str:
    path = honest_run()
    _edit(path, operator="somebody else")
    return said(lambda: audit.seal(path, None, no_notebook="made in Python"))


def sealed_twice_past_the_door(world: World) -> str:
    path = honest_run()
    _edit(path, operator="somebody else")
    entry = audit.entries()[0].model_dump(mode="json")
    stated = {name: entry[name] for name in entry if name not in ("sequence", "previous_sha256", "entry_sha256")}
    stated |= {"record_sha256": record.sha256_of(path), "at": datetime.now(UTC).isoformat(timespec="milliseconds")}
    with ledger.locked(paths.ledger_path()):
        ledger.append(paths.ledger_path(), ledger.read_lines(paths.ledger_path()), stated)
    return found_by_audit()


def clock_set_back(world: World) -> str:
    honest_run()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with mock.patch("orchestra_lib.audit.datetime", mock.Mock(now=lambda _zone: yesterday)):
        run = Runbook.open("01_infrastructure", environment="local")
        run.add(yes_or_no("rows are equal", Source.MEASURED, True))
        run.verify()
        run.close()
    return found_by_audit()


def evidence_of_an_earlier_run(world: World) -> str:
    run = Runbook.open("01_infrastructure", environment="local")
    old = datetime.now(UTC) - timedelta(days=3)
    run.add(Evidence("p95 of vector search", Source.MEASURED, 3.2, "ms", Bound("<", 30), at=old))
    run.verify()
    run.close()
    return found_by_audit()


def forged_from_a_cell(world: World) -> str:
    forged = (
        'run.add(yes_or_no("rows are equal", Source.MEASURED, False))\n'
        'run.record.end_marker, run.record.outcome, run.record.verdict = True, "completed", "PASS"\n'
        "run._save()"
    )
    return _red(_headless(world, small_runbooks.OPEN, forged))


def row_edited_from_a_cell(world: World) -> str:
    edited = (
        small_runbooks.GOOD + '\nrun.record.evidence[0] = {**run.record.evidence[0], "note": "on Google Cloud"}\n'
        "run._save()"
    )
    return _red(_headless(world, small_runbooks.OPEN, edited, small_runbooks.CLOSE))


def end_marker_printed(world: World) -> str:
    printed = 'print("orchestra-end-marker", {"verdict": "PASS"})'
    return _red(_headless(world, small_runbooks.OPEN, small_runbooks.GOOD, printed))


def kernel_ended_with_0(world: World) -> str:
    return _red(_headless(world, small_runbooks.OPEN, small_runbooks.GOOD, "import os; os._exit(0)"))


def exception_swallowed(world: World) -> str:
    run = Runbook.open("01_infrastructure", environment="local")
    with contextlib.suppress(ConnectionError), run.step("copy"):
        raise ConnectionError("the target is gone")
    run.add(yes_or_no("rows are equal", Source.MEASURED, True))
    run.verify()
    return said(run.close)


def red_gate_swallowed(world: World) -> str:
    run = Runbook.open("01_infrastructure", environment="local")
    with contextlib.suppress(Exception):
        run.preflight([yes_or_no("the quota is enough", Source.OBSERVED, False)])
    run.add(yes_or_no("rows are equal", Source.MEASURED, True))
    return said(run.verify)


def gate_cell_removed(world: World) -> str:
    return _executed(lambda cells: [cell for cell in cells if "preflight" not in cell.source])


def literal_typed_into_a_cell(world: World) -> str:
    typed = 'run.add(Evidence("p95 of vector search", Source.MEASURED, 3.2, "ms", Bound("<", 30)))'
    return _executed(lambda cells: [*cells[:-1], nbformat.v4.new_code_cell(typed), cells[-1]])


def approved_for_another_state(world: World) -> str:
    def plan(rows: int) -> Plan:
        return Plan((Change(Verb.CREATE, "rows", "memories"),), {"rows": rows})

    run = Runbook.open("01_infrastructure", environment="local", approved_plan=plan(1).digest)
    run.plan(plan(2))
    return said(lambda: run.approve(plan(2)))


def applied_without_approval(world: World) -> str:
    run = Runbook.open("01_infrastructure", environment="local")
    plan = run.plan(Plan((Change(Verb.CREATE, "rows", "memories"),)))
    return said(lambda: run.apply(plan))


def assumption_as_evidence(world: World) -> str:
    run = Runbook.open("01_infrastructure", environment="local")
    run.add(yes_or_no("rows are equal", Source.MEASURED, True))
    run.add(Evidence("p95 of vector search", Source.ASSUMED, 3.2, "ms", Bound("<", 30)))
    return said(run.verify)


def rehearsal_as_google_cloud(world: World) -> str:
    row = Evidence("start of a workstation", Source.REHEARSED, 40.0, "s", Bound("<", 180))
    verdict = roll_up([row], rehearsal=False)
    return NOT_CAUGHT if verdict is Verdict.PASS else f"{row.claim}: {verdict}"


def not_a_number(world: World) -> str:
    run = Runbook.open("01_infrastructure", environment="local")
    run.add(Evidence("p95 of vector search", Source.MEASURED, float("nan"), "ms", Bound("<", 30)))
    return said(run.verify)


LIES = (
    Lie("a verdict is edited in record.json", "altered: the file of run .* is not the one that was sealed",
        verdict_edited),
    Lie("an executed notebook is edited", "altered: the file of run .* is not the one that was sealed",
        notebook_edited),
    Lie("a good run's record stands in the place of a failed one's", "altered: the file of run", record_of_another_run),
    Lie("a stale record counts for the cutover", r"evidence is 49.0 hours old", stale_record),
    Lie("a phase that was rolled back is shown as done", "undone by run", rolled_back_phase),
    Lie("a phase is shown as done after the complete rollback", "undone by run", complete_rollback),
    Lie("a line of the ledger is removed", "removed: entry 2 is missing", ledger_line_removed),
    Lie("a record is edited and sealed again", "was sealed already, as entry 1", sealed_twice),
    Lie("a second entry is appended for an edited record", "forged: run .* was sealed twice, as entry 1 and 2",
        sealed_twice_past_the_door),
    Lie("the clock is set back", "backdated: entry 2 .* the clock was set back", clock_set_back),
    Lie("a number of three days ago is added to a run", "forged: .* before the run began", evidence_of_an_earlier_run),
    Lie("a cell writes the verdict into its record", "contradicts itself: its verdict is said to be PASS.* FAIL",
        forged_from_a_cell),
    Lie("a cell edits a row that was added", "contradicts itself: 'rows are equal' is not the row that was added",
        row_edited_from_a_cell, is_long=True),
    Lie("the end marker is printed, and the run never closed", "none of them closed the run", end_marker_printed,
        is_long=True),
    Lie("the kernel ends with 0 in the middle", "the kernel died", kernel_ended_with_0, is_long=True),
    Lie("an exception is swallowed", "what failed was not done again: copy", exception_swallowed),
    Lie("a closed gate is swallowed", "the verdict is FAIL\nthe quota is enough", red_gate_swallowed),
    Lie("the cell with the gate is taken out of the notebook", r"edited: .*'run.preflight\(.*' is not in it",
        gate_cell_removed),
    Lie("a literal is typed into a cell as measured", r"edited: .*'run.add\(Evidence\(.* is in it instead",
        literal_typed_into_a_cell),
    Lie("a plan is applied that was approved for another state", "the approved plan is .* but the plan is now",
        approved_for_another_state),
    Lie("a plan is applied that nobody approved", "the plan is not approved", applied_without_approval),
    Lie("an assumption stands for a measurement", "the verdict is MISSING\np95 of vector search",
        assumption_as_evidence),
    Lie("a rehearsal's figure stands for Google Cloud's", "start of a workstation: MISSING", rehearsal_as_google_cloud),
    Lie("a latency is not a number", "the verdict is FAIL\np95 of vector search: nan", not_a_number),
)  # fmt: skip


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _gate(now: datetime) -> str:
    """What the cutover's gate of phase 1 says."""
    found = gate_evidence(latest_runs("local", rehearsal=True), now, 24.0, Source.REHEARSED)
    row = next(row for row in found if row.claim.startswith("01_"))
    return f"{row.verdict}: {row.note}" if row.verdict is Verdict.FAIL else NOT_CAUGHT


def _headless(world: World, *cells: str) -> tuple[Path, small_runbooks.Told]:
    """A runbook of these cells by the plain papermill command, in the world's home."""
    source = small_runbooks.write(world.home / "03_memory.ipynb", small_runbooks.PARAMETERS, *cells)
    output = world.home / "out.ipynb"
    variables = {
        "ORCHESTRA_HOME": str(world.home),
        "ORCHESTRA_STATE_DIR": str(paths.state_directory()),
        "ORCHESTRA_RUNS_DIR": str(paths.runs_directory()),
    }
    paths.runs_directory().mkdir(parents=True, exist_ok=True)
    process = small_runbooks.start(world.home, source, output, **variables)
    return output, small_runbooks.told(world.home, process, output)


def _red(ran: tuple[Path, small_runbooks.Told]) -> str:
    told = ran[1]
    if told.exit_code == 0 or told.record.outcome is Outcome.COMPLETED:
        return NOT_CAUGHT
    return told.record.failure.message if told.record.failure else told.record.outcome.value


def _executed(edit) -> str:
    """An executed notebook of phase 1 whose cells were edited before it ran, sealed as everything else is."""
    commit = record.git_state(CHECKOUT)
    with mock.patch.object(settings, "root", return_value=CHECKOUT):
        assert _sealed_copy("honest", lambda cells: cells, commit) == NOT_CAUGHT
        return _sealed_copy("edited", edit, commit)


def _sealed_copy(name: str, edit, commit: record.Git) -> str:
    source = nbformat.reads(_committed("01_infrastructure", commit), as_version=4)
    source.cells = edit([cell for cell in source.cells if cell.cell_type == "code"])
    folder = paths.runs_directory() / name
    folder.mkdir(parents=True)
    output = folder / "01_infrastructure.ipynb"
    nbformat.write(source, output)
    settled = record.open_record("01_infrastructure", output, record.sha256_of(output), name)
    settled.git, settled.rehearsal, settled.end_marker = commit, True, True
    settled.evidence = [yes_or_no("rows are equal", Source.MEASURED, True).as_json()]
    settled.outcome, settled.verdict, settled.exit_code = Outcome.COMPLETED, Verdict.REHEARSED, 0
    settled.ended = datetime.now(UTC)
    record.save(settled, record.record_path(output))
    audit.seal(record.record_path(output), output)
    return found_by_audit()


def _committed(runbook: str, commit: record.Git) -> str:
    command = ["git", "-C", str(CHECKOUT), "show", f"{commit.commit}:notebooks/{runbook}.ipynb"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
