"""The plain papermill command tells the truth: exit code, record, cells and ledger say the same of every ending."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
import small_runbooks
from small_runbooks import CLOSE, GOOD, OPEN, PARAMETERS

from orchestra_lib import record
from orchestra_lib.record import Outcome

pytestmark = pytest.mark.slow

SLEEP = 'from pathlib import Path\nPath("asleep").touch()\nimport time; time.sleep(120)'


@dataclass(frozen=True)
class Ending:
    """One way for a run to end, and what all witnesses then have to say."""

    name: str
    cell: str
    exit_code: int
    outcome: str
    verdict: str | None
    status: str  # of the cell that ended the run
    error: str | None
    arguments: tuple[str, ...] = ()
    signal: signal.Signals | None = None
    closes: bool = True


ENDINGS = (
    Ending("completed", GOOD, 0, "completed", "REHEARSED", "completed", None),
    Ending("cell raises", "1 / 0", 1, "failed", "FAIL", "failed", "ZeroDivisionError"),
    Ending("gate closed", "run.verify()", 1, "failed", "FAIL", "failed", "GateFailed"),
    Ending("kernel killed", "import os; os.kill(os.getpid(), 9)", 1, "failed", "FAIL", "failed", "DeadKernelError"),
    Ending("out of time", SLEEP, 1, "failed", "FAIL", "failed", "CellTimeoutError", ("--execution-timeout", "6")),
    Ending("sys.exit(0)", "import sys; sys.exit(0)", 1, "failed", "FAIL", "failed", "SystemExit"),
    Ending("SIGTERM", SLEEP, 130, "interrupted", "INTERRUPTED", "interrupted", "SIGTERM", signal=signal.SIGTERM),
    Ending("Ctrl-C", SLEEP, 130, "interrupted", "INTERRUPTED", "interrupted", "SIGINT", signal=signal.SIGINT),
    Ending("hang-up", SLEEP, 130, "interrupted", "INTERRUPTED", "interrupted", "SIGHUP", signal=signal.SIGHUP),
    Ending("never closed", GOOD, 130, "interrupted", "INTERRUPTED", "completed", "NoEndMarker", closes=False),
    Ending(
        "target unreachable",
        'from orchestra_lib.errors import TargetUnreachable\nraise TargetUnreachable("the source is gone")',
        3, "failed", "FAIL", "failed", "TargetUnreachable",
    ),
    Ending(
        "interrupted in the kernel", "raise KeyboardInterrupt", 130, "interrupted", "INTERRUPTED", "failed",
        "KeyboardInterrupt",
    ),
    Ending("refused", GOOD, 2, "refused", "FAIL", "not_run", "ParameterError", ("-p", "lists", "banana")),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name)
def test_every_ending_is_told_the_same_by_all_witnesses(tmp_path: Path, ending: Ending) -> None:
    cells = [PARAMETERS, OPEN, ending.cell, CLOSE if ending.closes else "pass"]
    source, output = small_runbooks.write(tmp_path / "in.ipynb", *cells), tmp_path / "out.ipynb"
    process = small_runbooks.start(tmp_path, source, output, *(ending.arguments or ("-p", "lists", "50")))
    if ending.signal:
        _wait_for(tmp_path / "asleep", process)
        process.send_signal(ending.signal)
    told = small_runbooks.told(tmp_path, process, output)

    assert told.exit_code == ending.exit_code, told.output
    assert told.record.exit_code == ending.exit_code
    assert (told.record.outcome, told.record.verdict) == (ending.outcome, ending.verdict)
    assert (told.record.failure.error if told.record.failure else None) == ending.error
    assert told.record.ended is not None
    assert told.record.end_marker == (ending.outcome == "completed")
    place = told.statuses[-2]  # the cell before the one that closes
    assert place == ending.status
    if ending.closes and ending.outcome != "completed":
        assert told.statuses[-1] == "not_run"
    (entry,) = told.ledger
    assert (entry["outcome"], entry["verdict"], entry["exit_code"]) == (
        ending.outcome, ending.verdict, ending.exit_code,
    )  # fmt: skip
    assert entry["record_sha256"] == record.sha256_of(record.record_path(output))
    assert entry["notebook_sha256"] == record.sha256_of(output)
    assert "Traceback" not in told.output
    assert "without encryption" not in output.read_text()
    assert not list((tmp_path / "state" / "open").glob("*.json"))


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the cell never started"
        time.sleep(0.1)


@pytest.mark.slow
def test_papermill_killed_outright_is_found_by_the_next_run(tmp_path: Path) -> None:
    source = small_runbooks.write(tmp_path / "in.ipynb", PARAMETERS, OPEN, SLEEP, CLOSE)
    killed = small_runbooks.start(tmp_path, source, tmp_path / "killed.ipynb")
    _wait_for(tmp_path / "asleep", killed)
    killed.kill()
    killed.communicate()
    next_run = small_runbooks.write(tmp_path / "ok.ipynb", PARAMETERS, OPEN, GOOD, CLOSE)
    deadline = time.monotonic() + 30  # the orphaned kernel notices that its parent is gone, and frees the lock
    while True:
        again = small_runbooks.start(tmp_path, next_run, tmp_path / "again.ipynb", ORCHESTRA_OVERWRITE="1")
        told = small_runbooks.told(tmp_path, again, tmp_path / "again.ipynb")
        if told.exit_code == 0 or time.monotonic() > deadline:
            break
    assert told.exit_code == 0, told.output
    found = record.load(tmp_path / "killed.record.json")
    assert (found.outcome, found.exit_code) == (Outcome.INTERRUPTED, 137)
    assert any(entry["record_sha256"] == record.sha256_of(tmp_path / "killed.record.json") for entry in told.ledger)


@pytest.mark.slow
def test_an_output_that_exists_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    source, output = small_runbooks.write(tmp_path / "in.ipynb", PARAMETERS, OPEN, GOOD, CLOSE), tmp_path / "out.ipynb"
    first = small_runbooks.told(tmp_path, small_runbooks.start(tmp_path, source, output), output)
    before = output.read_bytes()
    refused = small_runbooks.told(tmp_path, small_runbooks.start(tmp_path, source, output), output)
    assert refused.exit_code == 2
    assert "exists" in refused.output
    assert output.read_bytes() == before
    assert len(refused.ledger) == 1
    told = small_runbooks.told(
        tmp_path, small_runbooks.start(tmp_path, source, output, ORCHESTRA_OVERWRITE="1"), output
    )
    assert told.exit_code == 0
    assert told.ledger[1]["supersedes"] == [first.record.run_id]


@pytest.mark.slow
def test_of_two_runs_at_once_with_one_output_the_second_is_refused(tmp_path: Path) -> None:
    source = small_runbooks.write(tmp_path / "in.ipynb", PARAMETERS, OPEN, SLEEP, CLOSE)
    output = tmp_path / "out.ipynb"
    first = small_runbooks.start(tmp_path, source, output)
    _wait_for(tmp_path / "asleep", first)
    second = small_runbooks.start(tmp_path, source, output, ORCHESTRA_OVERWRITE="1")
    words = second.communicate(timeout=60)[0]
    assert second.returncode == 2
    assert "being written by another run" in words
    other = small_runbooks.start(tmp_path, source, tmp_path / "other.ipynb")
    held = small_runbooks.told(tmp_path, other, tmp_path / "other.ipynb")
    assert held.exit_code == 1
    assert "already being run by" in held.output
    first.send_signal(signal.SIGTERM)
    assert small_runbooks.told(tmp_path, first, output).exit_code == 130


@pytest.mark.slow
def test_an_expected_error_is_no_failure_and_stays_in_the_notebook(tmp_path: Path) -> None:
    source = small_runbooks.write(
        tmp_path / "in.ipynb", PARAMETERS, OPEN, "1 / 0", GOOD, CLOSE, tags={2: ["raises-exception"]}
    )
    output = tmp_path / "out.ipynb"
    told = small_runbooks.told(tmp_path, small_runbooks.start(tmp_path, source, output), output)
    assert told.exit_code == 0, told.output
    assert "ZeroDivisionError" in output.read_text()
    assert told.ledger[0]["notebook_sha256"] == record.sha256_of(output)


@pytest.mark.slow
def test_a_run_that_stops_after_its_plan_exits_with_0(tmp_path: Path) -> None:
    plan = (
        "from orchestra_lib.plan import Change, Plan, Verb\n"
        'plan = run.plan(Plan((Change(Verb.CREATE, "table", "memories"),)))\nrun.approve(plan)'
    )
    opened = OPEN.replace("lists=lists", 'lists=lists, mode="plan"')
    source = small_runbooks.write(tmp_path / "in.ipynb", PARAMETERS, opened, plan, CLOSE)
    output = tmp_path / "out.ipynb"
    told = small_runbooks.told(tmp_path, small_runbooks.start(tmp_path, source, output), output)
    assert (told.exit_code, told.record.outcome, told.record.verdict) == (0, "planned", "PLANNED"), told.output
    assert told.statuses[-1] == "not_run"


@pytest.mark.slow
def test_a_notebook_that_is_no_runbook_runs_as_papermill_always_ran_it(tmp_path: Path) -> None:
    source = small_runbooks.write(tmp_path / "in.ipynb", "x = 1", "print(x)", runbook=None)
    process = small_runbooks.start(tmp_path, source, tmp_path / "out.ipynb", "-p", "x", "5")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not (tmp_path / "out.record.json").exists()


@pytest.mark.parametrize("output", ["-", "gs://bucket/out.ipynb", "missing/out.ipynb"])
def test_an_output_that_cannot_be_a_record_is_refused(tmp_path: Path, output: str) -> None:
    source = small_runbooks.write(tmp_path / "in.ipynb", PARAMETERS, OPEN, CLOSE)
    done = subprocess.run(
        [str(small_runbooks.PAPERMILL), source.name, output, "--no-progress-bar"],
        cwd=tmp_path, env=small_runbooks.environment(tmp_path), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


# --- canaries ---------------------------------------------------------------------------------------------------------

CANARY = "correct-horse'battery"
CHANNELS = {
    "stdout": "print(secret)",
    "stderr": "import sys; print(secret, file=sys.stderr)",
    "display": 'from IPython.display import HTML, display; display(HTML(f"<b>{secret}</b>"))',
    "result": "secret",
    "subprocess": "import subprocess; subprocess.run(['echo', secret])",
    "file descriptor": "import os; os.write(1, secret.encode())",
    "record": 'run.note(secret); run.add(yes_or_no(secret, Source.MEASURED, True))\nwith run.step(secret): pass',
    "traceback": 'def connect(dsn):\n    raise ConnectionError(f"no answer from {dsn}")\nconnect(secret)',
}  # fmt: skip


@pytest.mark.slow
def test_no_secret_reaches_the_notebook_the_record_the_log_or_html(tmp_path: Path) -> None:
    """Planted as a parameter and as an environment variable, then shown on every channel there is."""
    dsn = f"postgresql://ada:{CANARY}@db/orchestra"
    reveal = 'import os\nsecret = os.environ["DEPLOY_TOKEN"]'
    source = small_runbooks.write(
        tmp_path / "in.ipynb", PARAMETERS, OPEN, reveal, *CHANNELS.values(), CLOSE,
    )  # fmt: skip
    output = tmp_path / "out.ipynb"
    process = small_runbooks.start(
        tmp_path, source, output, "-p", "source_dsn", dsn, "--log-output", DEPLOY_TOKEN=f"token-{CANARY}"
    )
    told = small_runbooks.told(tmp_path, process, output)
    assert told.record.failure is not None
    assert told.record.failure.error == "ConnectionError", told.output
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", str(output)], check=True, capture_output=True, timeout=120
    )
    seen = {
        "notebook": output.read_text(),
        "record": record.record_path(output).read_text(),
        "html": output.with_suffix(".html").read_text(),
        "log": told.output,
        "ledger": (tmp_path / "runs" / "ledger.jsonl").read_text(),
        "message": str(told.record.failure.message),
    }
    assert [name for name, text in seen.items() if "correct-horse" in text] == []
    shown = nbformat.read(output, as_version=4).cells
    assert sum("***" in json.dumps(cell) for cell in shown) >= len(CHANNELS) - 1
