"""Runbook 02 by the plain papermill command, after 01: planned, applied, a home restored, rolled back."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_runbooks

from orchestra_lib.settings import root


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home in which phase 1 has been applied."""
    # Not under pytest's tmp_path: the databases' own user must be able to enter every folder above its data.
    directory = Path(tempfile.mkdtemp(prefix="orchestra-runbook-"))
    directory.chmod(0o755)
    try:
        assert run(directory, "01_infrastructure").exit_code == 0
        yield directory
    finally:
        library(directory, "local", "down")
        shutil.rmtree(directory)


def run(home: Path, name: str, output: str = "", *arguments: str) -> small_runbooks.Told:
    target = home / f"{output or name}.ipynb"
    process = small_runbooks.start(home, root() / "notebooks" / f"{name}.ipynb", target, *arguments)
    return small_runbooks.told(home, process, target)


def library(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "orchestra_lib", *arguments]
    variables = small_runbooks.environment(home)
    return subprocess.run(command, env=variables, check=True, capture_output=True, text=True, timeout=200).stdout


@pytest.mark.slow
def test_workstations_are_planned_made_measured_restored_and_undone(home: Path) -> None:
    planned = run(home, "02_workstations", "planned", "-p", "mode", "plan")
    assert (planned.exit_code, planned.record.outcome) == (0, "planned"), planned.output

    made = run(home, "02_workstations", "made", "-p", "approved_plan", str(planned.record.plan_sha256))
    assert (made.exit_code, made.record.outcome, made.record.verdict) == (0, "completed", "REHEARSED"), made.output
    rows = {row["claim"]: row for row in made.record.evidence}
    assert rows["people who may use a workstation that is not theirs"]["value"] == 0
    assert rows["machine types and GPUs that a replica zone lacks"]["value"] == 0
    (start,) = [row for claim, row in rows.items() if claim.startswith("start of the gpu machine")]
    assert (start["source"], start["verdict"]) == ("REHEARSED", "REHEARSED")
    assert "n1-standard-32, 2 nvidia-tesla-t4" in str(start["note"])

    restored = run(home, "02_workstations", "restored", "-p", "restore", "grace@example.com", "-p", "snapshot", "last")
    assert restored.exit_code == 0, restored.output
    claims = {row["claim"]: row["value"] for row in restored.record.evidence}
    assert claims["home of restored-last: made from snapshot last"] == 1
    assert "phase 02             18 resources, none drifted" in library(home, "status", "--drift")

    names = ("ada", "grace", "restored-last", "last")
    told = library(home, "rollback", "--phase", "02", "--may-destroy", *names)
    assert "changes that a second rollback would make: 0 changes" in told


@pytest.mark.slow
def test_fewer_starts_than_an_interval_takes_are_refused_in_one_line(home: Path) -> None:
    told = run(home, "02_workstations", "few", "-p", "starts", "3")
    assert told.exit_code == 2
    (line,) = [line for line in told.output.splitlines() if line.startswith("Error:")]
    assert "parameter starts is 3" in line
    assert "from 6 to 50" in line
