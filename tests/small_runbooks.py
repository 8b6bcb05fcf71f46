"""Small runbooks for tests, and running them with the plain papermill command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from orchestra_lib import record
from orchestra_lib.record import Record

PAPERMILL = Path(sys.executable).with_name("papermill")
PARAMETERS = 'environment = "local"\nlists = None\nsource_dsn = None'
OPEN = """from orchestra_lib.evidence import Source, yes_or_no
from orchestra_lib.runbook import Runbook

run = Runbook.open("03_memory", environment=environment, lists=lists, source_dsn=source_dsn)"""
GOOD = 'run.add(yes_or_no("rows are equal", Source.MEASURED, True))\nrun.verify()'
CLOSE = "run.close()"
_LONGEST_SECONDS = 600


@dataclass(frozen=True)
class Told:
    """What each of the four witnesses says of a run: exit code, record, cells' statuses, ledger."""

    exit_code: int
    record: Record
    statuses: list[str]
    ledger: list[dict[str, object]]
    output: str


def write(path: Path, *cells: str, runbook: str | None = "03_memory", tags: dict[int, list[str]] | None = None) -> Path:
    """A notebook of code cells; the first holds the parameters."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    for number, names in (tags or {}).items():
        notebook.cells[number].metadata["tags"] = names
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    if runbook:
        notebook.metadata["orchestra"] = {"runbook": runbook}
    nbformat.write(notebook, path)
    return path


def environment(home: Path) -> dict[str, str]:
    """The environment of a run whose state, records and ledger lie under ``home``."""
    dropped = ("ORCHESTRA_HOME", "ORCHESTRA_OVERWRITE", record.RUN_CONTEXT_VARIABLE)
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, "ORCHESTRA_STATE_DIR": str(home / "state"), "ORCHESTRA_RUNS_DIR": str(home / "runs")}


def share_corpus(home: Path, factory: pytest.TempPathFactory) -> None:
    """Let the runs under ``home`` keep the rehearsal's corpus where those of other files do: it takes 25 s to make."""
    own = factory.getbasetemp()
    shared = (own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own) / "corpus"
    shared.mkdir(exist_ok=True)
    (home / "state").mkdir(exist_ok=True)
    (home / "state" / "corpus").symlink_to(shared)


def start(home: Path, source: Path, output: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """The plain papermill command, in the folder of the notebook."""
    return subprocess.Popen(
        [str(PAPERMILL), source.name, str(output), "--no-progress-bar", *arguments],
        cwd=source.parent,
        env={**environment(home), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def told(home: Path, process: subprocess.Popen[str], output: Path) -> Told:
    """Wait for a run to end and hear all four witnesses."""
    try:
        words = process.communicate(timeout=_LONGEST_SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.terminate()  # it ends its kernel
        raise AssertionError(f"the run did not end: {process.communicate()[0]}") from None
    ledger = home / "runs" / "ledger.jsonl"
    return Told(
        process.returncode,
        record.load(record.record_path(output)),
        [cell.metadata.papermill.status for cell in nbformat.read(output, as_version=4).cells],
        [json.loads(line) for line in ledger.read_text().splitlines()],
        words,
    )
