"""Running the chain: in order, to the first runbook that does not pass, and what is then said, in lines."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_runbooks
from small_runbooks import CLOSE, GOOD, OPEN, PARAMETERS

from orchestra_lib import audit, migrate, record, run_summary, settings
from orchestra_lib.errors import ParameterError

REAL_PARAMETERS = settings.root() / "parameters"
BAD = 'run.add(yes_or_no("indexes are equal", Source.MEASURED, False))\nrun.verify()'
ALL = ["01", "03", "06", "07"]
CHAIN = {"02_before": (), "03_memory": ("lists", "source_dsn"), "04_after": ("lists", "source_dsn")}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    shutil.copytree(REAL_PARAMETERS, tmp_path / "parameters")
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", "ORCHESTRA_OVERWRITE", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def notebook(home: Path, name: str, *cells: str) -> Path:
    """A runbook of the chain; it leaves a file with its name in ``home`` when its first cell runs."""
    left = f'from pathlib import Path\nPath({str(home / name)!r}).write_text(f"{{environment}} {{lists}}")'
    return small_runbooks.write(home / "notebooks" / f"{name}.ipynb", PARAMETERS, left, OPEN, *cells, CLOSE)


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters of phases that the library does not have yet."""
    monkeypatch.setattr(migrate, "parameter_names", lambda runbook: CHAIN[runbook])


def migrated(*parameters: tuple[str, str], first: str | None = None, last: str | None = None) -> tuple[int, str]:
    out = io.StringIO()
    return migrate.migrate(migrate.chosen(first, last), [("environment", "local"), *parameters], out), out.getvalue()


# --- which notebooks --------------------------------------------------------------------------------------------------


@pytest.fixture
def phases(home: Path) -> None:
    for name in (
        "07_last.ipynb",
        "03_memory.ipynb",
        "08_later.ipynb",
        "99_undo.ipynb",
        "00_first.ipynb",
        "05_api.ipynb",
    ):
        (home / "notebooks" / name).touch()
    (home / "notebooks" / "notes.ipynb").touch()
    (home / "notebooks" / "04_text.md").touch()


def names(first: str | None, last: str | None) -> list[str]:
    return [path.name[:2] for path in migrate.chosen(first, last)]


@pytest.mark.usefixtures("phases")
@pytest.mark.parametrize(
    ("first", "last", "wanted"),
    [
        (None, None, ["00", "03", "05", "07"]),
        ("03", None, ["03", "05", "07"]),
        (None, "03", ["00", "03"]),
        ("03", "05", ["03", "05"]),
        ("05", "05", ["05"]),
    ],
)
def test_phases_are_chosen_in_order_with_both_ends(first: str | None, last: str | None, wanted: list[str]) -> None:
    assert names(first, last) == wanted


@pytest.mark.usefixtures("phases")
@pytest.mark.parametrize(("first", "last"), [("04", None), (None, "99"), ("3", None), ("03", "08"), ("", None)])
def test_a_phase_that_is_not_there_is_refused_with_those_that_are(first: str | None, last: str | None) -> None:
    wrong = last if first in (None, "03") else first
    with pytest.raises(ParameterError, match=f"there is no phase '{wrong}'; there are 00, 03, 05, 07"):
        migrate.chosen(first, last)


@pytest.mark.usefixtures("phases")
def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(ParameterError, match="no phase lies between 05 and 03; --from must not come after --until"):
        migrate.chosen("05", "03")


@pytest.mark.usefixtures("chain")
def test_a_parameter_of_no_notebook_is_refused_before_anything_runs(home: Path) -> None:
    notebook(home, "02_before", GOOD)
    notebook(home, "03_memory", GOOD)
    with pytest.raises(ParameterError, match=r"list is a parameter of none of these .* environment, lists, source_dsn"):
        migrated(("list", "5"))
    with pytest.raises(ParameterError, match=r"lists is a parameter of none .*; they have environment$"):
        migrated(("lists", "5"), last="02")
    assert not (home / "runs").exists()


@pytest.mark.parametrize(("mode", "outcome", "ran"), [("plan", "planned", ["01", "03"]), ("apply", "completed", ALL)])
def test_a_plan_of_the_chain_goes_on_past_what_fails_and_leaves_out_what_measures(
    home: Path, monkeypatch: pytest.MonkeyPatch, mode: str, outcome: str, ran: list[str]
) -> None:
    for phase in ALL:
        (home / "notebooks" / f"{phase}_phase.ipynb").touch()
    monkeypatch.setattr(migrate, "parameter_names", lambda runbook: ("mode",))
    begun: list[str] = []

    def run(notebook: Path, output: Path, *_: object) -> run_summary.Ended:
        begun.append(notebook.name[:2])
        found = record.open_record(notebook.stem, output, None)
        found.outcome, found.mode = record.Outcome(outcome), mode
        fails = mode == "plan" and begun[-1] == "01"
        if fails:
            found.outcome, found.failure = record.Outcome.FAILED, record.Failure(error="GateFailed", message="closed")
        return run_summary.Ended(notebook.stem, found, int(fails), "", 1.0)

    monkeypatch.setattr(migrate, "_run", run)
    code, told = migrated(("mode", mode))
    assert (begun, code) == (ran, int(mode == "plan")), told
    assert ("06_phase  left out: what it measures is only planned" in told) is (mode == "plan")


# --- running them -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("chain")
def test_the_chain_stops_at_the_first_closed_gate_says_why_and_goes_on_from_there(home: Path) -> None:
    notebook(home, "02_before", GOOD)
    notebook(home, "03_memory", BAD)
    notebook(home, "04_after", GOOD)
    code, told = migrated(("lists", "50"))
    assert code == 1, told
    assert [(home / name).exists() for name in CHAIN] == [True, True, False]
    assert [(home / name).read_text() for name in ("02_before", "03_memory")] == ["local None", "local 50"]
    lines = [line.split() for line in told.splitlines() if line]
    assert told.index("02_before        REHEARSED") < told.index("03_memory        FAIL")
    assert [words[:4] for words in lines if words[0] == "PASS"] == [["PASS", "rows", "are", "equal:"]]
    assert [words[:4] for words in lines if words[0] == "FAIL"] == [["FAIL", "indexes", "are", "equal:"]]
    assert "GateFailed: the verdict is FAIL" in told
    assert "04_after" not in told
    assert "Traceback" not in told
    assert told.splitlines()[-1] == "resume with: ./run_migration.sh --from 03 -p lists 50"
    records = [Path(line.split(": ", 1)[1]) for line in told.splitlines() if line.strip().startswith("record: ")]
    assert [path.name for path in records] == ["02_before.record.json", "03_memory.record.json"]
    assert [record.load(path).exit_code for path in records] == [0, 1]
    assert [entry.exit_code for entry in audit.entries()] == [0, 1]

    notebook(home, "03_memory", GOOD)
    (home / "02_before").unlink()
    code, told = migrated(first="03")
    assert code == 0, told
    assert [(home / name).exists() for name in CHAIN] == [False, True, True]
    assert "resume" not in told
    assert [entry.exit_code for entry in audit.entries()] == [0, 1, 0, 0]
    assert audit.verify().ok


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "parameters", "code", "words"),
    [
        ('from orchestra_lib.errors import TargetUnreachable\nraise TargetUnreachable("the source is gone")', (), 3,
         "TargetUnreachable: the source is gone"),
        (GOOD, (("lists", "banana"),), 2, "ParameterError: parameter lists is 'banana'"),
        ("import os; os.kill(os.getpid(), 9)", (), 1, "DeadKernelError: the kernel died"),
        ('raise ConnectionError("no answer from postgresql://ada:s3cr3t@db/x")', (), 1,
         "ConnectionError: no answer from postgresql://ada:***@db/x"),
    ],
    ids=["unreachable", "refused", "killed", "raised"],
)  # fmt: skip
def test_the_exit_code_is_that_of_the_runbook_and_its_reason_is_said(
    home: Path, cell: str, parameters: tuple[tuple[str, str], ...], code: int, words: str
) -> None:
    notebook(home, "03_memory", cell)
    ended, told = migrated(*parameters)
    assert ended == code, told
    assert words in told
    assert "s3cr3t" not in told
    assert "Traceback" not in told
    assert [entry.exit_code for entry in audit.entries()] == [code]


@pytest.mark.slow
def test_a_notebook_that_cannot_be_read_leaves_no_record_and_says_so_in_one_line(home: Path) -> None:
    (home / "notebooks" / "03_memory.ipynb").write_text("{")
    code, told = migrated()
    assert code != 0
    *_, summary, why, _empty, _headings, row, resume = told.splitlines()
    assert summary.split()[:3] == row.split()[:3] == ["03_memory", "NO", "RECORD"]
    assert why.strip()
    assert "Traceback" not in told
    assert resume == "resume with: ./run_migration.sh --from 03"
    assert audit.entries() == []


@pytest.mark.slow
def test_a_notebook_that_keeps_no_record_is_not_green_though_papermill_says_0(home: Path) -> None:
    small_runbooks.write(home / "notebooks" / "03_memory.ipynb", PARAMETERS, "1 + 1", runbook=None)
    code, told = migrated()
    assert code == 1, told
    assert "NO RECORD" in told
    assert "papermill left no record" in told


@pytest.mark.slow
def test_a_killed_papermill_leaves_a_settled_record_and_a_shells_exit_code(home: Path) -> None:
    notebook(home, "03_memory", "import os, time; os.kill(os.getppid(), 9); time.sleep(60)")
    code, told = migrated()
    assert code == 137, told
    assert "INTERRUPTED" in told
    assert "ended without settling this run" in told
    (path,) = (home / "runs").rglob("*.record.json")
    assert (record.load(path).outcome, record.load(path).exit_code) == ("interrupted", 137)
    assert [entry.exit_code for entry in audit.entries()] == [137]
    assert audit.verify().ok


@pytest.mark.slow
def test_what_is_said_to_resume_with_is_accepted_where_later_phases_know_less(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "parameter_names", lambda runbook: {**CHAIN, "04_after": ()}[runbook])
    notebook(home, "03_memory", GOOD)
    notebook(home, "04_after", BAD)
    code, told = migrated(("lists", "50"))
    assert code == 1, told
    assert told.splitlines()[-1] == "resume with: ./run_migration.sh --from 04"
    with pytest.raises(ParameterError, match="lists is a parameter of none"):
        migrated(("lists", "50"), first="04")


@pytest.mark.slow
def test_what_is_said_to_resume_with_repeats_the_parameters_but_no_secret(home: Path) -> None:
    notebook(home, "03_memory", GOOD)
    notebook(home, "04_after", GOOD)
    code, told = migrated(("lists", "50 lists"), ("source_dsn", "host=db password=s3cr3t"), last="03")
    assert code == 2, told
    assert told.splitlines()[-1] == (
        "resume with: ./run_migration.sh --from 03 --until 03 -p lists '50 lists' -p source_dsn ..."
    )
    assert "s3cr3t" not in told


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_the_run_as_interrupted_and_the_command_with_130(home: Path, number: signal.Signals) -> None:
    notebook(home, "03_memory", "import time; time.sleep(120)")
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestra_lib", "migrate", "--only", "03"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list((home / "runs").rglob("*.record.json")) or not (home / "03_memory").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the runbook never started"
        time.sleep(0.1)
    time.sleep(1.5)
    process.send_signal(number)
    told, errors = process.communicate(timeout=60)
    assert process.returncode == 130, told + errors
    assert "INTERRUPTED" in told
    assert "Traceback" not in told + errors
    (path,) = (home / "runs").rglob("*.record.json")
    assert json.loads(path.read_text())["outcome"] == "interrupted"
    assert [entry.exit_code for entry in audit.entries()] == [130]
