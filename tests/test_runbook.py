"""The life of a run, headless, in plain Python and in a real kernel; and what its record says of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from orchestra_lib import audit, record, runbook, settings
from orchestra_lib.errors import GateFailed, LockHeld, OrchestraError, ParameterError, RecordError, StopAfterPlan
from orchestra_lib.evidence import Bound, Evidence, Source, Verdict, yes_or_no
from orchestra_lib.lock import process_start
from orchestra_lib.plan import Change, Plan, Verb
from orchestra_lib.record import Outcome, Record
from orchestra_lib.runbook import Runbook

pytestmark = pytest.mark.slow

PARAMETERS = settings.root() / "parameters"
PLAN = Plan((Change(Verb.CREATE, "table", "memories"),))
OTHER_PLAN = Plan((Change(Verb.DELETE, "table", "memories"),))
GOOD = yes_or_no("rows are equal", Source.MEASURED, True)
BAD = yes_or_no("indexes are equal", Source.MEASURED, False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(PARAMETERS, tmp_path / "parameters")
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    yield tmp_path
    runbook._release_locks()
    runbook._open_here.clear()


@pytest.fixture
def engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Open a record the way the papermill engine does before the kernel starts."""

    def open_record() -> Path:
        output = home / "out.ipynb"
        path = record.record_path(output)
        record.save(record.open_record("03_memory", output, None), path)
        monkeypatch.setenv(record.RUN_CONTEXT_VARIABLE, str(path))
        return path

    return open_record


def open_run(**parameters: object) -> Runbook:
    return Runbook.open("03_memory", **({"mode": "apply", "approved_plan": PLAN.digest} | parameters))


def through(run: Runbook, *rows: Evidence) -> None:
    run.plan(PLAN)
    run.approve(PLAN)
    run.apply(PLAN)
    run.add(*(replace(row, at=datetime.now(UTC)) for row in rows))  # a row older than its run is not its own


def saved(run: Runbook) -> Record:
    return record.load(run.record_path)


def only_record(home: Path) -> Record:
    (path,) = (home / "runs").rglob("*.record.json")
    return record.load(path)


def lock_is_free() -> bool:
    holder = runbook.Holder.of_this_process("grace", "probe", "test")
    lock = runbook.PhaseLock("local", "03", holder)
    try:
        free = lock.acquire() is None
    except LockHeld:
        return False
    lock.release()
    return free


# --- from open to close -----------------------------------------------------------------------------------------------


def test_a_whole_run_is_recorded_sealed_and_leaves_nothing_open(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = open_run(lists=16)
    assert (run.interactive, run.rehearsal) == (True, True)
    assert not lock_is_free()
    run.preflight([Evidence("free disk", Source.MEASURED, 10, "GiB", Bound(">", 1))])
    with run.step("copy"):
        through(run, GOOD)
    run.note("nothing special")
    run.verify()
    assert run.close() is Verdict.REHEARSED

    found = saved(run)
    assert (found.outcome, found.verdict, found.exit_code) == (Outcome.COMPLETED, Verdict.REHEARSED, 0)
    assert (found.environment, found.rehearsal, found.mode) == ("local", True, "apply")
    assert found.end_marker
    assert found.failure is None
    assert found.parameters["lists"] == 16
    assert found.settings_sha256 == run.settings.digest()
    assert found.plan_sha256 == PLAN.digest
    assert [row["claim"] for row in found.evidence] == ["free disk", "rows are equal"]
    assert "nothing special" in found.notes
    assert found.ended is not None
    assert found.duration_seconds is not None

    assert lock_is_free()
    assert audit.open_runs() == []
    assert [entry.run_id for entry in audit.entries()] == [found.run_id]
    assert audit.verify() == audit.Verification(1, ())
    out = capsys.readouterr().out
    marker = json.loads(out.split("orchestra-end-marker ")[1])
    assert marker == {"run_id": found.run_id, "verdict": "REHEARSED"}
    assert "not of Google Cloud" in out


def test_evidence_and_steps_stand_in_the_record_at_once() -> None:
    run = open_run()
    run.add(BAD)
    assert saved(run).evidence[0]["verdict"] == "FAIL"
    with run.step("copy"):
        assert saved(run).steps[0].outcome == "running"
    with pytest.raises(ValueError, match="lost"), run.step("index"):
        raise ValueError("lost")
    with pytest.raises(KeyboardInterrupt), run.step("measure"):
        raise KeyboardInterrupt
    steps = saved(run).steps
    assert [(step.name, step.outcome) for step in steps] == [
        ("copy", "completed"),
        ("index", "failed"),
        ("measure", "interrupted"),
    ]
    assert all(step.duration_seconds is not None for step in steps)


def test_an_ended_run_takes_nothing_more() -> None:
    run = open_run()
    through(run, GOOD)
    run.verify()
    run.close()
    before = run.record_path.read_bytes()
    for call in (lambda: run.add(BAD), lambda: run.apply(PLAN), run.verify, run.close):
        with pytest.raises(RecordError, match="has ended"):
            call()
    assert run.record_path.read_bytes() == before


# --- gates ------------------------------------------------------------------------------------------------------------


def test_a_red_check_before_the_start_stops_the_run() -> None:
    run = open_run()
    with pytest.raises(GateFailed, match="indexes are equal") as stopped:
        run.preflight([GOOD, BAD])
    assert len(stopped.value.failures) == 1
    assert [row["verdict"] for row in saved(run).evidence] == ["PASS", "FAIL"]


def test_a_red_verdict_names_three_rows_and_counts_the_rest() -> None:
    run = open_run()
    through(run, GOOD, *(yes_or_no(f"claim {number}", Source.MEASURED, False) for number in range(5)))
    with pytest.raises(GateFailed) as stopped:
        run.verify()
    assert [line.split(":")[0] for line in stopped.value.failures] == [f"claim {number}" for number in range(5)]
    lines = str(stopped.value).splitlines()
    assert lines[0] == "the verdict is FAIL"
    assert [line.split(":")[0] for line in lines[1:4]] == ["claim 0", "claim 1", "claim 2"]
    assert lines[4] == "and 2 more"
    assert saved(run).verdict is Verdict.FAIL


@pytest.mark.parametrize("rows", [[], [Evidence("a reading", Source.MEASURED, 3)]])
def test_no_judged_evidence_is_a_failure(rows: list[Evidence]) -> None:
    run = open_run()
    through(run, *rows)
    with pytest.raises(GateFailed, match="no evidence was judged"):
        run.verify()


def test_a_run_is_not_closed_unverified() -> None:
    run = open_run()
    through(run, GOOD)
    with pytest.raises(GateFailed, match="not verified"):
        run.close()
    run.verify()
    run.add(BAD)
    with pytest.raises(GateFailed, match="indexes are equal"):
        run.close()
    assert saved(run).outcome is Outcome.RUNNING
    assert not saved(run).end_marker


def test_a_failed_verification_is_not_forgotten() -> None:
    run = open_run()
    through(run, GOOD)
    run.verify()
    run.add(BAD)
    with pytest.raises(GateFailed):
        run.verify()
    with pytest.raises(GateFailed):
        run.close()


# --- approval ---------------------------------------------------------------------------------------------------------


def test_mode_plan_ends_the_run_before_anything_is_changed() -> None:
    run = open_run(mode="plan", approved_plan=None)
    run.plan(PLAN)
    with pytest.raises(StopAfterPlan, match=f"-p mode apply -p approved_plan {PLAN.digest}"):
        run.approve(PLAN)
    found = saved(run)
    assert (found.outcome, found.verdict, found.exit_code) == (Outcome.PLANNED, Verdict.PLANNED, 0)
    assert found.plan_sha256 == PLAN.digest
    assert lock_is_free()
    assert audit.entries()[-1].outcome is Outcome.PLANNED
    with pytest.raises(RecordError):
        run.apply(PLAN)


def test_another_plan_than_the_approved_one_is_refused_with_both_digests() -> None:
    run = open_run(approved_plan=OTHER_PLAN.digest)
    run.plan(PLAN)
    with pytest.raises(GateFailed) as stopped:
        run.approve(PLAN)
    assert PLAN.digest in str(stopped.value)
    assert OTHER_PLAN.digest in str(stopped.value)
    with pytest.raises(GateFailed):
        run.apply(PLAN)


def test_without_a_browser_an_interactive_run_needs_the_digest() -> None:
    run = open_run(approved_plan=None)
    run.plan(PLAN)
    with pytest.raises(GateFailed, match="approved_plan"):
        run.approve(PLAN)
    with pytest.raises(GateFailed, match="not approved"):
        run.apply(PLAN)


def test_a_plan_that_was_not_shown_cannot_be_approved() -> None:
    run = open_run()
    with pytest.raises(GateFailed, match="not shown"):
        run.approve(PLAN)
    run.plan(OTHER_PLAN)
    with pytest.raises(GateFailed, match="not shown"):
        run.approve(PLAN)


def test_a_plan_that_changed_after_its_approval_is_not_applied() -> None:
    run = open_run()
    run.plan(PLAN)
    run.approve(PLAN)
    with pytest.raises(GateFailed) as stopped:
        run.apply(OTHER_PLAN)
    assert PLAN.digest in str(stopped.value)
    assert OTHER_PLAN.digest in str(stopped.value)
    run.plan(OTHER_PLAN)
    with pytest.raises(GateFailed, match="not approved"):
        run.apply(PLAN)


# --- refused at the door ----------------------------------------------------------------------------------------------


def test_an_unknown_parameter_is_refused_and_recorded(home: Path) -> None:
    with pytest.raises(ParameterError, match="did you mean 'lists'"):
        open_run(list=5)
    found = only_record(home)
    assert (found.outcome, found.verdict, found.exit_code) == (Outcome.REFUSED, Verdict.FAIL, 2)
    assert found.failure is not None
    assert found.failure.error == "ParameterError"
    assert lock_is_free()
    assert audit.entries()[-1].outcome is Outcome.REFUSED
    assert audit.verify().ok


@pytest.mark.parametrize("environment", ["nowhere", "../local"])
def test_an_unknown_environment_is_refused(home: Path, environment: str) -> None:
    with pytest.raises(OrchestraError):
        open_run(environment=environment)
    assert only_record(home).outcome is Outcome.REFUSED


def test_a_name_without_a_phase_is_refused(home: Path) -> None:
    with pytest.raises(ParameterError, match="begins with its phase"):
        Runbook.open("memory")
    assert only_record(home).outcome is Outcome.REFUSED


def test_a_phase_that_another_process_runs_is_refused_and_its_lock_kept(home: Path) -> None:
    code = (
        "import time; from orchestra_lib.lock import Holder, PhaseLock\n"
        "PhaseLock('local', '03', Holder.of_this_process('ada', 'run-there', 'papermill')).acquire()\n"
        "print('held', flush=True); time.sleep(30)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    with pytest.raises(LockHeld, match="run-there"):
        open_run()
    found = only_record(home)
    assert (found.outcome, found.exit_code) == (Outcome.REFUSED, 1)
    assert not lock_is_free()
    other.kill()
    other.wait()


# --- one after the other ----------------------------------------------------------------------------------------------


def test_opening_again_settles_the_earlier_run_and_keeps_the_lock() -> None:
    first = open_run()
    second = open_run()
    assert (saved(first).outcome, saved(first).verdict) == (Outcome.INTERRUPTED, Verdict.INTERRUPTED)
    assert [entry.run_id for entry in audit.entries()] == [first.record.run_id]
    assert any(first.record.run_id in note for note in saved(second).notes)
    assert not lock_is_free()
    with pytest.raises(RecordError):
        first.add(GOOD)
    through(second, GOOD)
    second.verify()
    second.close()
    assert lock_is_free()
    assert audit.verify() == audit.Verification(2, ())


def test_opening_again_in_vain_frees_the_lock() -> None:
    open_run()
    with pytest.raises(ParameterError):
        open_run(list=5)
    assert lock_is_free()


def test_a_killed_run_is_found_sealed_and_said_by_the_next(home: Path) -> None:
    code = (
        "import os, signal; from orchestra_lib.runbook import Runbook\n"
        "run = Runbook.open('03_memory', mode='apply')\n"
        "with run.step('copy'): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    killed = only_record(home)
    assert killed.outcome is Outcome.RUNNING
    assert [finding.what for finding in audit.verify().findings] == ["interrupted"]

    run = open_run()
    notes = " ".join(saved(run).notes)
    assert "was taken over" in notes
    assert "sealed as interrupted" in notes
    assert killed.run_id in notes
    entry = audit.entries()[-1]
    assert (entry.run_id, entry.outcome, entry.exit_code) == (killed.run_id, Outcome.INTERRUPTED, 137)
    settled = record.load(home / entry.record)
    assert settled.steps[0].outcome == "interrupted"


# --- headless ---------------------------------------------------------------------------------------------------------


def test_a_headless_run_fills_the_engine_s_record_and_leaves_the_settling_to_it(
    home: Path, engine: Callable[[], Path]
) -> None:
    path = engine()
    run = open_run(approved_plan=None)
    assert (run.interactive, run.record_path) == (False, path)
    (pointer,) = audit.open_runs()
    assert (pointer.run_id, pointer.record, pointer.pid) == (run.record.run_id, path, run.record.pid)
    through(run, GOOD)
    run.verify()
    run.close()
    found = record.load(path)
    assert (found.outcome, found.verdict, found.exit_code) == (Outcome.COMPLETED, Verdict.REHEARSED, 0)
    assert found.end_marker
    assert found.ended is None
    assert audit.entries() == []
    assert lock_is_free()
    assert not (home / "runs" / run.record.run_id).exists()


def test_an_announcement_of_the_engine_is_kept(engine: Callable[[], Path]) -> None:
    path = engine()
    parent = os.getppid()
    run_id = record.load(path).run_id
    audit.announce(path, run_id, parent, process_start(parent) or 0.0)
    open_run()
    assert [pointer.pid for pointer in audit.open_runs()] == [parent]


def test_a_headless_run_stops_after_the_plan(engine: Callable[[], Path]) -> None:
    path = engine()
    run = open_run(mode="plan", approved_plan=None)
    run.plan(PLAN)
    with pytest.raises(StopAfterPlan):
        run.approve(PLAN)
    assert record.load(path).outcome is Outcome.PLANNED
    assert lock_is_free()


def test_a_headless_refusal_stands_in_the_engine_s_record(engine: Callable[[], Path]) -> None:
    path = engine()
    with pytest.raises(ParameterError):
        open_run(list=5)
    found = record.load(path)
    assert (found.outcome, found.exit_code) == (Outcome.REFUSED, 2)
    assert audit.entries() == []


def test_a_headless_notebook_opens_once(engine: Callable[[], Path]) -> None:
    engine()
    open_run()
    with pytest.raises(RecordError, match="already open"):
        open_run()


# --- secrets ----------------------------------------------------------------------------------------------------------

PASSWORD = "hunter2-canary-value"
DSN = f"postgresql://ada:{PASSWORD}@db.example.com:5432/memories"


def test_secrets_never_reach_the_record() -> None:
    run = open_run(source_dsn=DSN)
    run.note(f"reading from {DSN}")
    run.add(Evidence("rows", Source.MEASURED, 1, target=Bound("==", 1), command=f"psql {DSN}", note=DSN))
    with pytest.raises(ValueError, match="canary"), run.step(f"copy from {DSN}"):
        raise ValueError(DSN)
    through(run, yes_or_no(f"rows of {DSN}", Source.MEASURED, False))
    with pytest.raises(GateFailed) as stopped:
        run.verify()
    assert PASSWORD not in str(stopped.value)
    assert PASSWORD not in " ".join(stopped.value.failures)
    assert PASSWORD not in run.record_path.read_text()


def test_secrets_never_reach_the_record_of_a_refusal(home: Path) -> None:
    with pytest.raises(ParameterError):
        open_run(source_dsn=DSN, environment=DSN)
    assert PASSWORD not in only_record(home).model_dump_json()


# --- in a real kernel -------------------------------------------------------------------------------------------------


class Kernel:
    """A kernel as JupyterLab starts it; ``run`` executes a cell and gives the name of its error, if any."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def run(self, source: str) -> str | None:
        reply = self.client.execute_interactive(source, timeout=60, output_hook=lambda _: None)
        return reply["content"].get("ename")

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()


@pytest.fixture
def kernel(home: Path) -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.stop()


SETUP = """import sys
from orchestra_lib.runbook import Runbook
from orchestra_lib.evidence import Source, yes_or_no
from orchestra_lib.plan import Change, Plan, Verb"""
PRESS = """import ipywidgets
[button] = [one for one in ipywidgets.Widget.widgets.values() if isinstance(one, ipywidgets.Button)]
button.click()"""


def test_an_interactive_run_writes_and_seals_the_cells_as_they_ran(home: Path, kernel: Kernel) -> None:
    cells: list[tuple[str, str | None]] = [
        (SETUP, None),
        ("run = Runbook.open('03_memory', mode='apply')", None),
        ("plan = run.plan(Plan((Change(Verb.CREATE, 'table', 'memories'),)))\nrun.approve(plan)", None),
        ("run.apply(plan)", "GateFailed"),
        (PRESS, None),
        ("run.apply(plan)", None),
        (f"print('from {DSN}')\nprint('careful', file=sys.stderr)\n6 * 7", None),
        ("from orchestra_lib.display import Progress\nbar = Progress('copy', 'rows')\nbar(1, 2); bar(2, 2)", None),
        ("run.add(yes_or_no('rows are equal', Source.MEASURED, True))\nrun.verify()", None),
        ("run.close()", None),
    ]
    for source, error in cells:
        assert kernel.run(source) == error

    found = only_record(home)
    assert (found.outcome, found.verdict, found.failure) == (Outcome.COMPLETED, Verdict.REHEARSED, None)
    assert any(note.startswith("cell [4] failed: GateFailed: the plan is not approved") for note in found.notes)
    assert any("(button)" in note for note in found.notes)
    (path,) = (home / "runs").rglob("*.ipynb")
    assert PASSWORD not in path.read_text()
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells if "***" not in cell.source] == [
        source for source, _ in cells if PASSWORD not in source
    ]
    assert [cell.execution_count for cell in notebook.cells] == list(range(1, len(cells) + 1))
    outputs = [cell.outputs for cell in notebook.cells]
    assert outputs[3][-1].ename == "GateFailed"
    assert [output.output_type for output in outputs[6]] == ["stream", "stream", "execute_result"]
    assert {output.get("name") for output in outputs[6]} == {"stdout", "stderr", None}
    assert outputs[6][-1].data["text/plain"] == "42"
    assert len(outputs[7]) == 1
    assert "2 of 2 rows" in outputs[7][0].data["text/plain"]
    assert f"03_memory · environment local · mode apply\\nrun {found.run_id}" in json.dumps(
        outputs[1], ensure_ascii=False
    )
    assert "orchestra-end-marker" in json.dumps(outputs[9])
    assert all("widget-view" not in mime for cell in outputs for output in cell for mime in output.get("data", {}))

    (entry,) = audit.entries()
    assert entry.notebook_sha256 == record.sha256_of(path)
    assert audit.verify() == audit.Verification(1, ())


def test_a_misspelt_parameter_stops_a_real_notebook(home: Path, kernel: Kernel) -> None:
    assert kernel.run("lists = None") is None
    assert kernel.run("# Parameters\nlist = 4000\n") is None
    assert kernel.run(SETUP) is None
    assert kernel.run("run = Runbook.open('03_memory', lists=lists)") == "ParameterError"
    found = only_record(home)
    assert found.outcome is Outcome.REFUSED
    assert found.failure is not None
    assert "did you mean 'lists'" in found.failure.message


def test_a_kernel_shut_down_in_good_order_frees_its_lock_and_leaves_the_run_to_the_next(home: Path) -> None:
    kernel = Kernel()
    assert kernel.run(SETUP) is None
    assert kernel.run("run = Runbook.open('03_memory', mode='apply')") is None
    assert kernel.run("1 / 0") == "ZeroDivisionError"
    kernel.stop()
    left = only_record(home)
    assert left.outcome is Outcome.RUNNING
    assert left.failure is not None
    assert (left.failure.error, left.failure.cell_index) == ("ZeroDivisionError", 2)
    assert lock_is_free()
    assert len(audit.sweep()) == 1
    assert record.load(home / audit.entries()[-1].record).outcome is Outcome.INTERRUPTED
