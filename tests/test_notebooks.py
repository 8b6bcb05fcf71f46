"""The runbooks themselves: how they are written, and that they run, headless, as the README says."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
import small_runbooks
from nbformat import NotebookNode
from state_portrait import state_hash
from target_portrait import target_portrait

from orchestra_lib import record
from orchestra_lib.errors import GateFailed
from orchestra_lib.phases import finalization
from orchestra_lib.phases.finalization import FinalizationPhase
from orchestra_lib.runbook import Runbook
from orchestra_lib.settings import OVERRIDES, root

NOTEBOOKS = sorted((root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
HEADINGS = ["Inputs", "Check", "Plan", "Approve", "Apply", "Verify", "Roll back"]
CHANGES_NOTHING = "00_preflight"  # there is nothing to approve in it, and nothing to apply
MOST_LINES = 12
GREEN = ("PASS", "REHEARSED", "NOTED")
# Who else computes on this machine decides it, here another worker of the tests. A run of one's own is held to it.
HOW_QUICK = ("p95 of ", "until requests are answered within their goals again")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook: NotebookNode) -> NotebookNode:
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return cell


def test_there_are_runbooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(OVERRIDES)


@every_notebook
def test_it_is_committed_without_outputs_counts_or_traces_of_a_run(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert [cell.id for cell in code(notebook) if cell.outputs or cell.execution_count is not None] == []
    assert "papermill" not in notebook.metadata
    assert [cell.id for cell in notebook.cells if "papermill" in cell.metadata or cell.metadata.get("tags") == []] == []
    assert [cell.id for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", [])] == []
    assert notebook.metadata.orchestra.runbook == path.stem


@every_notebook
def test_it_reads_like_a_runbook(path: Path) -> None:
    notebook = read(path)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith(f"# {path.stem[:2]} ")
    titles = [line[3:] for cell in notebook.cells if cell.cell_type == "markdown"
              for line in cell.source.splitlines() if line.startswith("## ")]  # fmt: skip
    without = {"Approve", "Apply"} if path.stem == CHANGES_NOTHING else set()
    assert titles == [heading for heading in HEADINGS if heading not in without]
    assert code(notebook)[-1].source == "run.close()"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@every_notebook
def test_its_cells_are_short_and_hold_no_logic(path: Path) -> None:
    notebook = read(path)
    for cell in code(notebook):
        is_list = "parameters" in cell.metadata.get("tags", [])  # a line for each, as long as there are parameters
        assert is_list or len(cell.source.splitlines()) <= MOST_LINES, cell.id
        assert not cell.source.startswith(("!", "%")), cell.id
        logic = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.Try, ast.With, ast.Lambda)
        assert [type(node) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, logic)] == [], cell.id


@every_notebook
def test_its_parameters_are_those_of_the_settings_and_each_says_what_it_is(path: Path) -> None:
    source = parameters(read(path)).source
    assigned = [statement.targets[0].id for statement in ast.parse(source).body]  # type: ignore[attr-defined]
    assert assigned == ["environment", *OVERRIDES[path.stem]]
    assert [line for line in source.splitlines() if "  # " not in line] == []


@every_notebook
def test_every_parameter_is_handed_to_the_run(path: Path) -> None:
    cell = next(cell for cell in code(read(path)) if "Runbook.open" in cell.source)
    call = next(node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call) and node.keywords)
    assert {keyword.arg for keyword in call.keywords} == {"environment", *OVERRIDES[path.stem]}


def test_the_report_of_the_validation_is_written_when_everything_was_read_back() -> None:
    """What comes after it could turn the run red while the page says that it is green."""
    sources = [cell.source for cell in code(read(root() / "notebooks" / "06_validation.ipynb"))]
    assert sources[-4:] == ["validation.read_back()", "validation.report()", "run.verify()", "run.close()"]


# --- running the memory phase -----------------------------------------------------------------------------------------

# 4000 lists are built in minutes, and every row that the stream brings is held against each.
SMALL = ("-p", "lists", "400", "-p", "rows", "3000", "-p", "budget_seconds", "10")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One state directory for the module: the corpus, today's store and the local Google Cloud are made once.

    The control plane's operations take no time, which nothing here is about.
    """
    directory = tmp_path_factory.mktemp("home")
    for folder in (directory, *directory.parents):
        folder.chmod(folder.stat().st_mode | 0o055) if folder.is_relative_to("/tmp") else None  # the server's own user
    small_runbooks.share_corpus(directory, tmp_path_factory)
    orchestra(directory, "local", "up", "--latency", "0")
    yield directory
    orchestra(directory, "stream", "stop")
    orchestra(directory, "local", "down")


def orchestra(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "orchestra_lib", *arguments]
    environment = small_runbooks.environment(home)
    return subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120, text=True).stdout


def run(home: Path, output: str, *arguments: str, runbook: str = "03_memory") -> small_runbooks.Told:
    notebook = root() / "notebooks" / f"{runbook}.ipynb"
    process = small_runbooks.start(home, notebook, home / output, *arguments)
    return small_runbooks.told(home, process, home / output)


@pytest.fixture(scope="module")
def planned(home: Path) -> small_runbooks.Told:
    """The plan of a first run, which makes the rehearsal's store and nothing else."""
    return run(home, "planned.ipynb", "-p", "mode", "plan", *SMALL)


@pytest.fixture(scope="module")
def untouched(home: Path, planned: small_runbooks.Told) -> list[str]:
    """The local target before anything was applied: its Google Cloud, and today's store."""
    assert planned.exit_code == 0
    return portrait_of(home)


def portrait_of(home: Path) -> list[str]:
    up = json.loads(orchestra(home, "local", "up", "--json"))
    return target_portrait(up["url"], home / "state", up["databases"]["source"]["conninfo"])


@pytest.fixture(scope="module")
def killed(home: Path, planned: small_runbooks.Told) -> small_runbooks.Told:
    """The approved plan, carried out by a kernel that is killed while rows are on their way."""
    output, approved = home / "killed.ipynb", str(planned.record.plan_sha256)
    process = small_runbooks.start(
        home, root() / "notebooks" / "03_memory.ipynb", output, *SMALL, "-p", "approved_plan", approved
    )
    kernel = _at_step("copy", output, process)
    kernel.kill()
    return small_runbooks.told(home, process, output)


def _at_step(name: str, output: Path, process: subprocess.Popen[str], seconds: float = 240) -> psutil.Process:
    """Wait until a step of the run has begun; its kernel."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        path = record.record_path(output)
        if path.exists() and (steps := record.load(path).steps) and steps[-1].name == name:
            (kernel,) = (
                child for child in psutil.Process(process.pid).children() if "ipykernel" in " ".join(child.cmdline())
            )
            return kernel
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"it never came to {name}: {process.communicate()[0]}")


@pytest.mark.slow
@pytest.mark.usefixtures("untouched")
def test_plan_mode_changes_nothing_and_asks_for_exactly_its_plan(home: Path, planned: small_runbooks.Told) -> None:
    assert (planned.exit_code, planned.record.outcome) == (0, "planned"), planned.output
    assert f"-p approved_plan {planned.record.plan_sha256}" in json.dumps(read(home / "planned.ipynb"))
    assert not any(step.name in ("apply", "copy") for step in planned.record.steps)
    assert not (home / "state" / "local" / "journal").exists(), "nothing was sent to Google Cloud"


@pytest.mark.slow
def test_a_wrong_parameter_stops_in_the_first_cells_with_one_line(home: Path) -> None:
    told = run(home, "refused.ipynb", "-p", "lists", "40000")
    assert told.exit_code == 2
    (line,) = [line for line in told.output.splitlines() if line.startswith("Error:")]
    assert "parameter lists is 40000" in line
    assert told.record.outcome == "refused"
    assert told.statuses[6:] == ["not_run"] * (len(told.statuses) - 6)


@pytest.mark.slow
def test_a_kernel_killed_in_the_middle_of_the_copy_is_told_and_leaves_no_writer(
    home: Path, killed: small_runbooks.Told
) -> None:
    assert (killed.exit_code, killed.record.outcome) == (1, "failed"), killed.output
    assert killed.record.steps[-1].name == "copy"
    assert killed.record.steps[-1].outcome != "completed"
    deadline = time.monotonic() + 20
    while writers := [one.pid for one in psutil.process_iter(["cmdline"]) if _writes_for(home, one.info["cmdline"])]:
        assert time.monotonic() < deadline, f"the writers {writers} go on"
        time.sleep(0.05)


def _writes_for(home: Path, command: list[str] | None) -> bool:
    return "orchestra_lib.rehearsal.writer" in (command or ()) and any(str(home) in word for word in command or ())


@pytest.mark.slow
@pytest.mark.usefixtures("killed")
def test_the_plain_papermill_command_goes_on_to_the_end_and_loses_no_acknowledged_write(home: Path) -> None:
    told = run(home, "out.ipynb", *SMALL)
    assert told.exit_code == 0, told.output
    assert (told.record.outcome, told.record.verdict) == ("completed", "REHEARSED")
    rows = {row["claim"]: row for row in told.record.evidence}
    assert [claim for claim, row in rows.items() if row["verdict"] not in GREEN] == []
    assert rows["lists of the index, read back"]["value"] == 400
    assert rows["the copy was"]["value"] in ("begun", "gone on with"), "it depends on when it was killed"
    assert rows["writes acknowledged"]["value"] > 0
    for where in ("source", "target"):
        assert rows[f"acknowledged writes judged on the {where}"]["value"] > 0
        assert rows[f"rows on the {where} acknowledged and not there"]["value"] == 0
        assert rows[f"pause of the writers from the {where} to the {'target' if where == 'source' else 'source'}"]
    assert rows["marker rows that a restore lost"]["value"] == 0
    assert rows["rows that us-east1 has less than before"]["value"] == 0
    steps = {step.name for step in told.record.steps}
    assert steps >= {"inventory", "apply", "copy", "check", "index", "stream", "catch up", "compare live", "shadow"}
    assert steps >= {"cut over to the target", "cut over to the source", "judge", "measure", "read back"}
    beside = [note for note in told.record.notes if note.startswith("IVFFlat with 400 lists, as it was asked for, is ")]
    assert len(beside) == 1, "what was asked for is told beside the best"
    assert set(told.statuses) == {"completed"}
    outputs = json.dumps(read(home / "out.ipynb"))
    assert "application/vnd.plotly.v1+json" in outputs
    assert "orchestra-end-marker" in outputs
    said = orchestra(home, "stream", "status")
    assert said.startswith("ended: asked to stop\n"), "in a rehearsal it rests"


@pytest.mark.slow
def test_the_assistant_reads_the_store_that_was_moved_and_packs_it_without_losing_answers(home: Path) -> None:
    told = run(home, "assistant.ipynb", "-p", "sample", "20", "-p", "repeats", "2", runbook="04_assistant")
    assert (told.exit_code, told.record.outcome, told.record.verdict) == (0, "completed", "REHEARSED"), told.output
    rows = {row["claim"]: row for row in told.record.evidence}
    assert rows["memories to answer from"]["note"] == "AlloyDB, by phase 3"
    assert rows["p95 of reading and packing a context, upper end of its interval"]["verdict"] == "PASS"
    assert rows["answers that packing gains or loses, lower end of the interval"]["verdict"] == "PASS"
    assert rows["tokens after packing for each before, upper end of the interval"]["source"] == "REHEARSED"
    assert "orchestra-local-stand-in" in str(rows["answers that came to their end"]["note"])
    assert set(told.statuses) == {"completed"}


@pytest.mark.slow
def test_the_api_serves_the_store_that_was_moved_and_its_rollback_leaves_the_memories(home: Path) -> None:
    told = run(home, "api.ipynb", "-p", "requests", "20", runbook="05_api")
    rows = {row["claim"]: row for row in told.record.evidence}
    red = {claim for claim, row in rows.items() if row["verdict"] not in GREEN}
    assert {claim for claim in red if not claim.startswith(HOW_QUICK)} == set(), told.output
    assert (told.exit_code, told.record.outcome) == ((1, "failed") if red else (0, "completed")), told.output
    assert rows["memories to serve"]["note"] == "AlloyDB, by phase 3"
    assert rows["green at 100 %: answers that differ from blue's"]["value"] == 0
    assert rows["redirect back: until in effect"]["value"] < 1
    assert rows["first requests that found no instance, min instances 1"]["value"] == 0
    assert rows["answers 2xx that were wrong at the stated rates"]["value"] == 0
    assert rows["at 2 times the saturation point: refused, and told when to come again"]["value"] > 0
    assert rows["memories of the probe that are left"]["value"] == 0
    back = run(home, "api_back.ipynb", "-p", "phase", "05", runbook="99_rollback")
    assert back.exit_code == 0, back.output
    rows = {row["claim"]: row for row in back.record.evidence}
    assert rows["memories that were prepared for the API"]["value"] == 1
    assert rows["memories that are still prepared for the API"]["value"] == 0


@pytest.mark.slow
def test_the_live_store_is_tuned_headless_and_a_rollback_brings_the_previous_index_back(home: Path) -> None:
    # Asked for, since the best that is found may be the one that is there already.
    few = ("-p", "lists", "150", "-p", "methods", "ivfflat", "-p", "storages", "vector", "-p", "budget_seconds", "30",
           "-p", "load_seconds", "4")  # fmt: skip
    told = run(home, "tuned.ipynb", *few, runbook="08_vector_tuning")
    assert told.exit_code == 0, told.output
    assert (told.record.outcome, told.record.verdict) == ("completed", "REHEARSED")
    rows = {row["claim"]: row for row in told.record.evidence}
    assert [claim for claim, row in rows.items() if row["verdict"] not in GREEN] == []
    assert rows["queries that the index is judged by"]["note"] == "held-out questions"
    assert rows["indexes that went"]["value"] == "memories_embedding_ivfflat_400"
    assert read(home / "tuned.ipynb").cells[-1].outputs
    back = run(home, "back.ipynb", "-p", "phase", "08", runbook="99_rollback")
    assert back.exit_code == 0, back.output
    rows = {row["claim"]: row for row in back.record.evidence}
    assert rows["swaps of the index that stand"]["verdict"] == "PASS"


@pytest.mark.slow
def test_validation_measures_what_there_is_and_says_what_is_missing(home: Path) -> None:
    told = run(home, "validated.ipynb", "-p", "load_seconds", "2", runbook="06_validation")
    assert (told.exit_code, told.record.verdict) == (1, "MISSING"), told.output
    rows = {row["claim"]: row for row in told.record.evidence}
    red = {claim: row["note"] for claim, row in rows.items() if row["verdict"] not in GREEN}
    assert set(red) == {"p95 of the API", "workstation start: measured again"}
    assert red["p95 of the API"] == "there is no service: run 05_api first"
    assert rows["p95 of vector search on the target, upper end of its interval"]["verdict"] == "PASS"
    assert rows["p95 of reading and packing a context, upper end of its interval"]["verdict"] == "PASS"
    assert rows["rows applied a second while catching up"]["value"] > 0
    assert rows["rows of the measurement left on the target"]["value"] == 0
    assert rows["success criterion: API response times meet or exceed specified targets"]["value"] == "MISSING"
    page = (home / "validated.report.html").read_text()
    assert "MISSING: there is no service" in page
    assert "<script" not in page


@pytest.mark.slow
def test_the_writers_are_switched_for_good_and_a_rollback_brings_them_home_with_all_they_wrote(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in small_runbooks.environment(home).items():
        monkeypatch.setenv(name, value)
    opened = Runbook.open("07_finalization", environment="local")
    phase = FinalizationPhase(opened)
    gates = {row.claim[:2]: row.verdict.value for row in phase.checks() if "reasons why" in row.claim}
    assert gates == {
        "01": "MISSING", "02": "MISSING", "03": "REHEARSED", "04": "REHEARSED", "05": "FAIL", "06": "FAIL",
    }, "as they would have stopped the notebook here: 05 was undone"  # fmt: skip
    with pytest.raises(GateFailed, match="a gate has closed since the plan was made, and nothing was switched"):
        phase.switch_writers()
    monkeypatch.setattr(finalization, "gate_evidence", lambda *_arguments, **_named: ())  # what a whole chain closes
    phase.switch_writers()
    assert "acknowledged and not there" in repr(phase.judged())
    phase.retention()
    phase.read_back()
    rows = {row.claim: row for row in opened.evidence}
    red = [claim for claim, row in rows.items() if row.verdict.value not in GREEN]
    assert red == ["all traffic of the API goes to one revision, read back"], "there is no service here"
    assert rows["writes acknowledged"].value > 0
    assert rows["rows on the target acknowledged and not there"].value == 0
    assert rows["roles that may still write to the old store"].value == 0
    assert rows["rows of the rehearsal's writer left on either store"].value == 0
    lock = opened._replaced()
    assert lock is not None
    lock.release()
    assert "the application writes on the source: 1" in orchestra(home, "rollback", "--phase", "07")


@pytest.mark.slow
def test_everything_is_undone_in_one_run_and_the_local_target_is_what_it_was(home: Path, untouched: list[str]) -> None:
    """The strategy's last procedure. It comes last here, too."""
    everything = ("-p", "phase", "all")
    planned = run(home, "undoing.ipynb", *everything, "-p", "mode", "plan", runbook="99_rollback")
    assert (planned.exit_code, planned.record.outcome) == (0, "planned"), planned.output
    assert portrait_of(home) != untouched
    (refused,) = [note for note in planned.record.notes if "the plan would destroy what these hold" in note]
    holding_data = refused.partition("may_destroy ")[2]
    told = run(home, "undone.ipynb", *everything, "-p", "may_destroy", holding_data, runbook="99_rollback")
    assert (told.exit_code, told.record.verdict) == (0, "REHEARSED"), told.output
    assert state_hash(portrait_of(home)) == state_hash(untouched), set(portrait_of(home)) ^ set(untouched)
    phases = [step.name for step in told.record.steps if step.name.startswith("apply ")]
    assert phases == sorted(phases, reverse=True), "the last one first"
