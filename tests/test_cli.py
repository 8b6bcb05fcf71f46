"""The command line: each command's words, its JSON, and the exit code that a script can rely on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import small_runbooks
from small_runbooks import CLOSE, GOOD, OPEN, PARAMETERS

from orchestra_lib import cli, migrate, record, settings
from orchestra_lib.errors import ParameterError
from orchestra_lib.evidence import Source, yes_or_no
from orchestra_lib.runbook import Runbook

REAL_PARAMETERS = settings.root() / "parameters"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notebooks").mkdir()
    shutil.copytree(REAL_PARAMETERS, tmp_path / "parameters")
    small_runbooks.write(tmp_path / "notebooks" / "03_memory.ipynb", PARAMETERS, OPEN, GOOD, CLOSE)
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", "ORCHESTRA_OVERWRITE", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one command."""
        code = cli.main(arguments)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused_run(capsys: pytest.CaptureFixture[str]) -> record.Record:
    """One sealed run, made without a kernel: it was refused at the door."""
    with pytest.raises(ParameterError, match="has no parameter 'list'"):
        Runbook.open("03_memory", list=5)
    capsys.readouterr()
    (path,) = (settings.root() / "runs").rglob("*.record.json")
    return record.load(path)


@pytest.fixture
def finished_run(capsys: pytest.CaptureFixture[str]) -> Callable[..., record.Record]:
    """Runs a runbook to its end, without a kernel; what it said is not what the command says."""

    def run(name: str, **parameters: object) -> record.Record:
        opened = Runbook.open(name, **parameters)
        with opened.step("apply"):
            opened.add(yes_or_no("rows are equal", Source.MEASURED, True))
        opened.verify()
        opened.close()
        capsys.readouterr()
        return record.load(opened.record_path)

    return run


# --- wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("fly",), ("migrate", "--mode", "maybe"), ("migrate", "-p", "lists"), ("audit",), ("audit", "seal"),
        ("local", "explode"), ("status", "--yaml"),
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m orchestra_lib" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-p", "list", "5"), "list is a parameter of none of these notebooks; they have approved_plan, batch_size,"),
        (("--only", "05"), "there is no phase '05'; there are 03"),
        (("--from", "04"), "there is no phase '04'"),
        (("--until", "99"), "there is no phase '99'"),
    ],
)
def test_a_wrong_parameter_or_phase_ends_with_2_in_one_line(
    home: Path, said, arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = said("migrate", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert not (home / "runs").exists()


# --- before the first run ---------------------------------------------------------------------------------------------


def test_before_the_first_run_every_command_says_so(said) -> None:
    assert said("runs") == (0, "", "")
    code, out, err = said("status")
    assert (code, err) == (0, "")
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [
        *([path.stem, "never run"] for path in migrate.runbooks()),
        ["local", "target         down"],
    ]
    code, out, _ = said("status", "--json")
    assert code == 0
    told = json.loads(out)
    assert set(told) == {"phases", "resources", "local", "not_counted"}
    assert (told["phases"], told["resources"], told["local"]["databases"]) == ({}, [], {})
    code, out, _ = said("audit", "verify", "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "entries": 0, "findings": []})


# --- after a run ------------------------------------------------------------------------------------------------------


def test_a_sealed_run_is_listed(said, refused_run: record.Record) -> None:
    code, out, _ = said("runs")
    assert code == 0
    (line,) = out.splitlines()
    assert line.split()[1:5] == ["03_memory", "refused", "FAIL", refused_run.operator]
    assert said("audit", "verify")[:2] == (0, "1 entries, every file as it was sealed\n")


def test_the_last_run_of_a_phase_is_that_of_the_environment_that_was_asked_for(
    said, finished_run: Callable[..., record.Record], refused_run: record.Record
) -> None:
    found = finished_run("03_memory")
    code, out, _ = said("status", "--json")
    assert code == 0
    last = json.loads(out)["phases"]["03_memory"]
    assert (last["run_id"], last["outcome"], last["exit_code"]) == (found.run_id, "completed", 0)
    assert "03_memory            completed, REHEARSED, " in said("status")[1]
    assert json.loads(said("status", "--environment", "production", "--json")[1])["phases"] == {}
    assert "03_memory            never run\n" in said("status", "--environment", "production")[1]


def test_a_phase_that_was_rolled_back_is_not_shown_as_done(said, finished_run: Callable[..., record.Record]) -> None:
    for name, parameters in (("03_memory", {}), ("99_rollback", {"phase": "03"})):
        finished_run(name, **parameters)
        is_undone = name == "99_rollback"
        told, machine_told = said("status")[1], json.loads(said("status", "--json")[1])
        assert ("    does not count: undone by run " in told) is is_undone
        assert ("03_memory" in machine_told["not_counted"]) is is_undone


@pytest.mark.parametrize("damage", ["altered", "removed"])
def test_a_record_that_is_not_as_it_was_sealed_is_named_and_ends_with_1(
    home: Path, said, refused_run: record.Record, damage: str
) -> None:
    (path,) = (home / "runs").rglob("*.record.json")
    if damage == "altered":
        path.write_text(path.read_text().replace('"exit_code": 2', '"exit_code": 0'))
    else:
        path.unlink()
    code, out, err = said("audit", "verify", "--json")
    told = json.loads(out)
    assert (code, err, told["ok"], told["entries"]) == (1, "", False, 1)
    (finding,) = told["findings"]
    assert (finding["what"], finding["path"]) == (damage, str(path.relative_to(home)))
    assert (finding["run_id"], finding["is_note"]) == (refused_run.run_id, False)
    code, out, _ = said("audit", "verify")
    assert code == 1
    assert str(path.relative_to(home)) in out
    assert out.splitlines()[-1] == "1 entries, NOT as sealed"


def test_an_altered_ledger_is_named_and_ends_with_1(home: Path, said, refused_run: record.Record) -> None:
    ledger = home / "runs" / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"exit_code":2', '"exit_code":0'))
    code, out, _ = said("audit", "verify", "--json")
    assert code == 1
    assert {finding["what"] for finding in json.loads(out)["findings"] if "ledger" in finding["path"]} >= {"altered"}


def test_an_interrupt_ends_with_130_and_one_word(said, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.audit, "entries", interrupted)
    assert said("runs") == (130, "", "interrupted\n")


def test_an_empty_ledger_is_not_called_sound(said) -> None:
    assert said("audit", "verify") == (
        0,
        "no run has been sealed yet: there is nothing to hold against the ledger\n",
        "",
    )


@pytest.mark.parametrize("other", ["--from", "--until"])
def test_one_phase_and_a_stretch_of_phases_are_not_asked_for_together(said, other: str) -> None:
    code, out, err = said("migrate", "--only", "03", other, "03")
    assert (code, out) == (2, "")
    assert err == "--only 03 stands alone: leave out --from and --until\n"


# --- with real kernels ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_migrate_runs_the_notebook_and_every_other_command_knows_it(home: Path, said) -> None:
    code, out, err = said("migrate", "--only", "03", "-p", "lists", "50")
    assert (code, err) == (0, ""), out
    assert "REHEARSED" in out
    assert "resume" not in out
    (path,) = (home / "runs").rglob("*.record.json")
    assert record.load(path).parameters["lists"] == 50
    assert said("audit", "verify")[0] == 0
    assert json.loads(said("status", "--json")[1])["phases"]["03_memory"]["verdict"] == "REHEARSED"
    executed = path.with_name("03_memory.ipynb")
    assert str(executed.relative_to(home)) in said("runs")[1]

    executed.write_text(executed.read_text() + "\n")
    code, out, _ = said("audit", "verify", "--json")
    assert code == 1
    (finding,) = json.loads(out)["findings"]
    assert (finding["what"], finding["path"]) == ("altered", str(executed.relative_to(home)))


@pytest.mark.slow
def test_mode_plan_stops_after_the_plan_and_ends_with_0(home: Path, said) -> None:
    opened = OPEN.replace("lists=lists", "lists=lists, mode=mode")
    plan = (
        "from orchestra_lib.plan import Change, Plan, Verb\n"
        'plan = run.plan(Plan((Change(Verb.CREATE, "table", "memories"),)))\nrun.approve(plan)\n'
        "from pathlib import Path; Path('applied').touch()"
    )
    path = home / "notebooks" / "03_memory.ipynb"
    small_runbooks.write(path, f"{PARAMETERS}\nmode = None", opened, plan, CLOSE)
    code, out, _ = said("migrate", "--mode", "plan")
    assert code == 0, out
    assert "PLANNED" in out
    assert "resume" not in out
    assert not (home / "notebooks" / "applied").exists()


@pytest.mark.slow
def test_as_a_program_it_ends_with_the_same_codes(home: Path) -> None:
    def ended(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "orchestra_lib", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    assert ended("runs")[0] == 0
    assert ended("migrate", "-p", "list", "5")[0] == 2
    code, _ = ended("migrate", "--environment", "nowhere")
    assert code == 2
