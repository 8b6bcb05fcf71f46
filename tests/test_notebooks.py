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
import psycopg
import pytest
import small_runbooks
from nbformat import NotebookNode

from orchestra_lib.local import databases
from orchestra_lib.settings import OVERRIDES, root

NOTEBOOKS = sorted((root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
HEADINGS = ["Inputs", "Check", "Plan", "Approve", "Apply", "Verify", "Roll back"]
CHANGES_NOTHING = "00_preflight"  # there is nothing to approve in it, and nothing to apply
MOST_LINES = 12

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
        assert len(cell.source.splitlines()) <= MOST_LINES, cell.id
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


# --- running the memory phase -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One state directory for the module: the corpus and the two servers are made once."""
    directory = tmp_path_factory.mktemp("home")
    for folder in (directory, *directory.parents):
        folder.chmod(folder.stat().st_mode | 0o055) if folder.is_relative_to("/tmp") else None  # the server's own user
    yield directory
    local(directory, "down")


def local(home: Path, action: str) -> None:
    command = [sys.executable, "-m", "orchestra_lib", "local", action]
    subprocess.run(command, env=small_runbooks.environment(home), check=True, capture_output=True, timeout=120)


def run(home: Path, output: str, *arguments: str) -> small_runbooks.Told:
    notebook = root() / "notebooks" / "03_memory.ipynb"
    process = small_runbooks.start(home, notebook, home / output, *arguments)
    return small_runbooks.told(home, process, home / output)


@pytest.mark.slow
def test_the_memory_phase_is_rehearsed_by_the_plain_papermill_command(home: Path) -> None:
    told = run(home, "out.ipynb", "-p", "lists", "64", "-p", "queries", "200")
    assert told.exit_code == 0, told.output
    assert (told.record.outcome, told.record.verdict) == ("completed", "REHEARSED")
    evidence = {row["claim"]: row for row in told.record.evidence}
    assert evidence["lists of the index, read back"]["value"] == 64
    assert evidence["rows on the target less rows on the source"]["value"] == 0
    assert evidence["key ranges whose checksums differ"]["value"] == 0
    assert all(row["verdict"] in ("PASS", "NOTED") for row in told.record.evidence)
    assert {step.name for step in told.record.steps} >= {"inventory", "copy", "check", "index", "measure"}
    assert told.record.plan_sha256
    assert any(note.startswith("With 64 lists") for note in told.record.notes), "what the lists cost is kept"
    assert set(told.statuses) == {"completed"}
    outputs = json.dumps(read(home / "out.ipynb"))
    assert "application/vnd.plotly.v1+json" in outputs
    assert "orchestra-end-marker" in outputs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-p", "lists", "banana"), "parameter lists is 'banana'"),
        (("-p", "lists", "0"), "a whole number from 1 to 32768"),
        (("-p", "lists", "40000"), "parameter lists is 40000"),
        (("-p", "list", "4000"), "did you mean 'lists'?"),
        (("-p", "environment", "nowhere"), "there is no environment 'nowhere'"),
    ],
)
def test_a_wrong_parameter_stops_in_the_first_cells_with_one_line(
    home: Path, arguments: tuple[str, ...], words: str
) -> None:
    told = run(home, f"refused{abs(hash(arguments))}.ipynb", *arguments)
    assert told.exit_code == 2
    (line,) = [line for line in told.output.splitlines() if line.startswith("Error:")]
    assert words in line
    assert told.record.outcome == "refused"
    assert told.statuses[6:] == ["not_run"] * (len(told.statuses) - 6)


@pytest.mark.slow
def test_plan_mode_changes_nothing_and_an_approved_plan_has_to_be_the_same(home: Path) -> None:
    planned = run(home, "planned.ipynb", "-p", "mode", "plan", "-p", "lists", "32")
    assert (planned.exit_code, planned.record.outcome) == (0, "planned"), planned.output
    other = run(home, "other.ipynb", "-p", "lists", "33", "-p", "approved_plan", str(planned.record.plan_sha256))
    assert other.exit_code == 1
    assert "the approved plan is" in other.output


@pytest.mark.slow
def test_a_kernel_killed_in_the_middle_of_the_copy_loses_and_doubles_nothing(home: Path) -> None:
    """kill -9 while rows are on their way, then the same command again: it finishes, and every row is there once."""
    arguments = ("-p", "lists", "64", "-p", "queries", "400", "-p", "rows", "9000")
    target = databases.status(home / "state").databases["target"].conninfo
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS memories")
    output = home / "killed.ipynb"
    process = small_runbooks.start(home, root() / "notebooks" / "03_memory.ipynb", output, *arguments)
    there = _rows_arriving(target, process)
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    killed = small_runbooks.told(home, process, output)
    assert (killed.exit_code, killed.record.outcome) == (1, "failed"), killed.output
    assert killed.record.steps[-1].name == "copy"
    with psycopg.connect(target) as connection:
        half = _count(connection)
    assert 0 < there <= half < 9_000

    again = run(home, "again.ipynb", *arguments)
    assert again.exit_code == 0, again.output
    evidence = {row["claim"]: row["value"] for row in again.record.evidence}
    assert evidence["rows on the target less rows on the source"] == 0
    assert evidence["key ranges whose checksums differ"] == 0
    assert evidence["rows sent"] <= 9_000 - half, "what had arrived is not sent again"
    with psycopg.connect(target) as connection:
        assert _count(connection) == 9_000
        assert connection.execute("SELECT count(DISTINCT id) FROM memories").fetchone() == (9_000,)


def _rows_arriving(target: str, process: subprocess.Popen[str]) -> int:
    """Wait until the first key ranges have been committed on the target; how many rows they hold."""
    deadline = time.monotonic() + 240
    with psycopg.connect(target, autocommit=True) as connection:
        while time.monotonic() < deadline and process.poll() is None:
            if connection.execute("SELECT to_regclass('memories')").fetchone() != (None,) and _count(connection):
                return _count(connection)
            time.sleep(0.01)
    raise AssertionError(f"no row arrived: {process.communicate()[0]}")


def _count(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM memories").fetchone()
    assert row is not None
    return int(row[0])
