"""The ledger against tampering, crashes and concurrent writers, on real files."""

from __future__ import annotations

import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestra_lib import audit, ledger, record
from orchestra_lib.errors import RecordError
from orchestra_lib.evidence import Source, Verdict, canonical_json, yes_or_no
from orchestra_lib.lock import process_start
from orchestra_lib.record import Outcome, Record

pytestmark = pytest.mark.slow

# Opening a record asks git; once is enough.
TEMPLATE = record.open_record("03_memory", None, None, "template")


@contextmanager
def project() -> Iterator[Path]:
    """A project directory of its own; the library looks there while inside."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name).resolve()
        variables = {
            "ORCHESTRA_HOME": name,
            "ORCHESTRA_STATE_DIR": f"{name}/state",
            "ORCHESTRA_RUNS_DIR": f"{name}/runs",
        }
        with mock.patch.dict(os.environ, variables):
            yield home


@pytest.fixture
def home() -> Iterator[Path]:
    with project() as path:
        yield path


@dataclass(frozen=True)
class Run:
    record: Path
    notebook: Path

    def seal(self) -> audit.Entry:
        return audit.seal(self.record, self.notebook)


def make_run(
    home: Path, run_id: str, *, place: str | None = None, notebook: bool = True, outcome: Outcome = Outcome.COMPLETED
) -> Run:
    """A run's files as they lie on disk when it is settled (or, with outcome running, while it runs)."""
    folder = home / "runs" / (place or run_id)
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "03_memory.ipynb"
    settled = outcome is not Outcome.RUNNING
    now = datetime.now(UTC)
    run = TEMPLATE.model_copy(
        update={
            "run_id": run_id,
            "output_notebook": str(output),
            "environment": "local",
            "rehearsal": True,
            "evidence": [yes_or_no("rows are equal", Source.MEASURED, True).as_json()] if settled else [],
            "end_marker": settled,
            "outcome": outcome,
            "verdict": Verdict.REHEARSED if settled else None,
            "exit_code": 0 if settled else None,
            "ended": now if settled else None,
            "notes": [],
            "steps": [],
        }
    )
    path = record.record_path(output)
    path.write_text(run.model_dump_json())
    if notebook:
        output.write_text(json.dumps({"cells": [], "metadata": {"run": run_id}}))
    return Run(path, output)


def seal_runs(home: Path, number: int) -> list[Run]:
    runs = [make_run(home, f"run-{index}") for index in range(1, number + 1)]
    for run in runs:
        run.seal()
    return runs


def ledger_file() -> Path:
    return Path(os.environ["ORCHESTRA_RUNS_DIR"]) / "ledger.jsonl"


def errors() -> list[audit.Finding]:
    return [finding for finding in audit.verify().findings if not finding.is_note]


# --- sealing --------------------------------------------------------------------------------------------------------


def test_an_entry_states_the_run_and_the_digests_of_its_files(home: Path) -> None:
    run = make_run(home, "run-1")
    entry = run.seal()
    assert entry.sequence == 1
    assert entry.previous_sha256 == ledger.GENESIS
    assert entry.record == "runs/run-1/03_memory.record.json"
    assert entry.record_sha256 == record.sha256_of(run.record)
    assert entry.notebook_sha256 == record.sha256_of(home / "runs/run-1/03_memory.ipynb")
    assert (entry.outcome, entry.verdict, entry.exit_code) == (Outcome.COMPLETED, Verdict.REHEARSED, 0)
    assert audit.entries() == [entry]
    assert audit.verify() == audit.Verification(1, ())


def test_each_entry_names_the_digest_of_the_one_before(home: Path) -> None:
    seal_runs(home, 3)
    first, second, third = audit.entries()
    assert (second.previous_sha256, third.previous_sha256) == (first.entry_sha256, second.entry_sha256)


def test_files_outside_the_project_are_named_absolutely(home: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, "elsewhere")
    assert run.seal().record == str(run.record)
    assert audit.verify().ok
    run.record.unlink()
    assert [(finding.path, finding.what) for finding in errors()] == [(str(run.record), "removed")]


def test_a_run_without_a_notebook_says_why(home: Path) -> None:
    run = make_run(home, "run-1", notebook=False)
    entry = audit.seal(run.record, None, no_notebook="refused at the start")
    assert (entry.notebook, entry.notebook_sha256, entry.notebook_missing) == (None, None, "refused at the start")


def test_a_notebook_that_appears_after_the_sealing_is_found(home: Path) -> None:
    run = make_run(home, "run-1", notebook=False)
    assert run.seal().notebook_sha256 is None
    assert audit.verify().ok
    run.notebook.write_text("{}")
    assert [(Path(finding.path).name, finding.what) for finding in errors()] == [("03_memory.ipynb", "inserted")]


def test_sealing_the_same_files_again_adds_nothing(home: Path) -> None:
    run = make_run(home, "run-1")
    assert run.seal() == run.seal()
    assert len(audit.entries()) == 1


def test_a_running_record_is_not_sealed(home: Path) -> None:
    with pytest.raises(RecordError, match="still running"):
        make_run(home, "run-1", outcome=Outcome.RUNNING).seal()
    assert audit.entries() == []


def test_a_full_disk_leaves_the_ledger_as_it_was(home: Path) -> None:
    seal_runs(home, 1)
    before = ledger_file().read_bytes()
    run = make_run(home, "run-2")
    with (
        mock.patch("orchestra_lib.ledger.os.write", lambda descriptor, content: os.pwrite(descriptor, content[:9], 0)),
        pytest.raises(RecordError, match="free space"),
    ):
        run.seal()
    assert ledger_file().read_bytes() == before
    run.seal()
    assert audit.verify().ok


def test_a_replaced_run_is_said_and_is_no_error(home: Path) -> None:
    make_run(home, "run-1", place="same").seal()
    assert make_run(home, "run-2", place="same").seal().supersedes == ("run-1",)
    assert make_run(home, "run-3", place="same").seal().supersedes == ("run-2",)
    result = audit.verify()
    assert result.ok
    assert {(finding.what, finding.run_id) for finding in result.findings} == {
        ("superseded", "run-1"),
        ("superseded", "run-2"),
    }


def test_two_processes_sealing_at_once_both_get_in(home: Path) -> None:
    for worker in "ab":
        for index in range(20):
            make_run(home, f"{worker}-{index}")
    code = (
        "import sys; from pathlib import Path; from orchestra_lib import audit\n"
        "for index in range(20):\n"
        "    folder = Path(sys.argv[1]) / 'runs' / f'{sys.argv[2]}-{index}'\n"
        "    audit.seal(folder / '03_memory.record.json', folder / '03_memory.ipynb')\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(home), worker]) for worker in "ab"]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert audit.verify() == audit.Verification(40, ())
    order = [entry.run_id[0] for entry in audit.entries()]
    assert sorted(order) == ["a"] * 20 + ["b"] * 20


# --- tampering, one act at a time -----------------------------------------------------------------------------------

# (place, has notebook): a few places only, so that runs replace each other's files.
CHAINS = st.lists(st.tuples(st.sampled_from(["p", "q", "r", "s", "t"]), st.booleans()), min_size=2, max_size=6)
SLOW_FILES = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def build(home: Path, chain: list[tuple[str, bool]]) -> None:
    for number, (place, with_notebook) in enumerate(chain, 1):
        (home / "runs" / place / "03_memory.ipynb").unlink(missing_ok=True)
        make_run(home, f"run-{number}", place=place, notebook=with_notebook).seal()
    assert audit.verify().ok


def altered(content: bytes, data: st.DataObject) -> bytes:
    """The content with one byte changed, added or taken away."""
    place = data.draw(st.integers(0, len(content) - 1))
    new = bytes([data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))])
    return data.draw(
        st.sampled_from([content[:place] + new + content[place + 1 :], content[:place] + content[place + 1 :]])
    )


@SLOW_FILES
@given(CHAINS, st.data())
def test_any_altered_or_removed_file_is_the_first_finding(chain: list[tuple[str, bool]], data: st.DataObject) -> None:
    with project() as home:
        build(home, chain)
        file = data.draw(st.sampled_from(sorted((home / "runs").rglob("03_memory.*"))))
        if data.draw(st.booleans()):
            file.unlink()
            what = "removed"
        else:
            file.write_bytes(altered(file.read_bytes(), data))
            what = "altered"
        result = audit.verify()
        assert not result.ok
        assert (result.findings[0].path, result.findings[0].what) == (str(file.relative_to(home)), what)
        assert len(errors()) == 1


@SLOW_FILES
@given(CHAINS, st.data())
def test_any_changed_line_is_the_first_finding(chain: list[tuple[str, bool]], data: st.DataObject) -> None:
    with project() as home:
        build(home, chain)
        lines = ledger_file().read_bytes().splitlines(keepends=True)
        at = data.draw(st.integers(0, len(lines) - 1), "line")
        act = data.draw(st.sampled_from(["alter", "remove", "copy", "junk", "forge", "swap", "cut tail"]), "act")
        expected: tuple[str, int] | None = None
        if act == "alter":
            lines[at] = altered(lines[at], data)
        elif act == "remove":
            del lines[at]
            expected = ("removed", at + 1)
        elif act == "copy":
            lines.insert(data.draw(st.integers(0, len(lines)), "to"), lines[at])
            expected = ("inserted", at + 1)
        elif act == "junk":
            lines.insert(at, data.draw(st.sampled_from([b"\n", b"{}\n", b"[1]\n", b"\xff\x00\n", b"note\n"])))
        elif act == "forge":
            content = json.loads(lines[at]) | {"operator": "mallory"}
            forged = canonical_json(content | {"entry_sha256": ledger.digest_of(content)}).encode() + b"\n"
            lines[at : at + data.draw(st.integers(0, 1), "replaced")] = [forged]
        elif act == "swap":
            other = data.draw(st.integers(0, len(lines) - 1).filter(lambda number: number != at), "other")
            lines[at], lines[other] = lines[other], lines[at]
            expected = ("reordered", max(at, other) + 1)
        else:
            whole = b"".join(lines)
            lines = [whole[: -data.draw(st.integers(1, len(whole)), "cut")]]
        ledger_file().write_bytes(b"".join(lines))
        first = audit.verify().findings[0]
        assert not audit.verify().ok
        assert first.path == str(ledger_file())
        if expected:
            assert (first.what, first.sequence) == expected


@SLOW_FILES
@given(CHAINS, st.data())
def test_a_changed_ledger_never_heals(chain: list[tuple[str, bool]], data: st.DataObject) -> None:
    with project() as home:
        build(home, chain)
        lines = ledger_file().read_bytes().splitlines(keepends=True)
        act = data.draw(st.sampled_from(["remove", "alter", "cut tail", "add", "head removed", "head altered"]), "act")
        at = data.draw(st.integers(0, len(lines) - 1), "line")
        head = ledger.head_path(ledger_file())
        if act == "remove":
            del lines[at]
        elif act == "alter":
            lines[at] = altered(lines[at], data)
        elif act == "cut tail":
            whole = b"".join(lines)
            lines = [whole[: -data.draw(st.integers(1, len(whole)), "cut")]]
        elif act == "add":
            lines.append(b'{"sequence": 7')
        elif act == "head removed":
            head.unlink()
        else:
            head.write_bytes(altered(head.read_bytes(), data))
        ledger_file().write_bytes(b"".join(lines))
        assert not audit.verify().ok
        for number in range(2):
            make_run(home, f"later-{number}").seal()
            assert not audit.verify().ok
        assert [entry.run_id for entry in audit.entries()][-2:] == ["later-0", "later-1"]


@SLOW_FILES
@given(CHAINS, st.data())
def test_a_changed_head_is_the_first_finding(chain: list[tuple[str, bool]], data: st.DataObject) -> None:
    with project() as home:
        build(home, chain)
        head = ledger.head_path(ledger_file())
        if data.draw(st.booleans()):
            head.unlink()
        else:
            head.write_bytes(altered(head.read_bytes(), data))
        assert [finding.path for finding in errors()] == [str(head)]


def test_a_record_without_an_entry_is_found(home: Path) -> None:
    seal_runs(home, 2)
    stray = make_run(home, "stray")
    assert [(finding.path, finding.what) for finding in errors()] == [(str(stray.record), "unsealed")]
    stray.record.write_text("not a record")
    assert [(finding.path, finding.what) for finding in errors()] == [(str(stray.record), "unsealed")]


def test_records_of_removed_last_entries_are_found_even_when_the_head_was_cut_too(home: Path) -> None:
    runs = seal_runs(home, 3)
    lines = ledger_file().read_bytes().splitlines(keepends=True)
    second = audit.entries()[1]
    ledger_file().write_bytes(b"".join(lines[:2]))
    position = ledger.Position(second.sequence, second.entry_sha256)
    ledger.head_path(ledger_file()).write_bytes(ledger._head_bytes(ledger.Head(position)))
    assert [(finding.path, finding.what) for finding in errors()] == [(str(runs[2].record), "unsealed")]


def test_a_chain_rewritten_to_its_end_does_not_match_the_head(home: Path) -> None:
    seal_runs(home, 3)
    previous, forged = ledger.GENESIS, []
    for line in ledger_file().read_text().splitlines():
        content = json.loads(line) | {"operator": "mallory", "previous_sha256": previous}
        previous = content["entry_sha256"] = ledger.digest_of(content)
        forged.append(canonical_json(content) + "\n")
    ledger_file().write_text("".join(forged))
    assert [(finding.path, finding.what) for finding in errors()] == [(str(ledger_file()), "altered")]


def test_a_removed_ledger_is_found(home: Path) -> None:
    seal_runs(home, 2)
    ledger_file().unlink()
    first = audit.verify().findings[0]
    assert (first.path, first.what) == (str(ledger_file()), "removed")


def test_nothing_yet_is_no_error(home: Path) -> None:
    assert audit.verify() == audit.Verification(0, ())
    assert audit.entries() == []


# --- crashes --------------------------------------------------------------------------------------------------------


def crash_during_append(run: Run, bytes_written: int) -> None:
    """Seal a run in a process that dies after so many bytes of its line."""
    code = (
        "import os, sys; from pathlib import Path; from orchestra_lib import audit, ledger\n"
        "def torn(descriptor, content):\n"
        "    os.write(descriptor, content[:int(sys.argv[3])])\n"
        "    os._exit(9)\n"
        "ledger._write_whole = torn\n"
        "audit.seal(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(run.record), str(run.notebook), str(bytes_written)]
    assert subprocess.run(command, check=False).returncode == 9


def test_a_torn_last_line_is_found_then_kept_and_named_by_the_next_entry(home: Path) -> None:
    seal_runs(home, 2)
    third = make_run(home, "run-3")
    crash_during_append(third, 100)
    torn = ledger_file().read_bytes().splitlines(keepends=True)[-1]
    first = audit.verify().findings[0]
    assert (first.path, first.what) == (str(ledger_file()), "torn")
    assert "crash" in first.message

    entry = third.seal()
    assert (entry.sequence, entry.repair is not None and entry.repair.by_crash) == (3, True)
    result = audit.verify()
    assert result.ok
    assert [finding.what for finding in result.findings] == ["repaired"]
    assert torn in ledger_file().read_bytes()

    ledger_file().write_bytes(ledger_file().read_bytes().replace(torn, torn[:-1] + b"?"))
    assert "that entry 3 found damaged are not there" in errors()[0].message


@pytest.mark.parametrize("bytes_written", [0, 1, 10_000])
def test_a_crash_before_or_after_the_line_needs_no_repair_or_little(home: Path, bytes_written: int) -> None:
    seal_runs(home, 1)
    second = make_run(home, "run-2")
    crash_during_append(second, bytes_written)
    second.seal()
    make_run(home, "run-3").seal()
    assert [entry.run_id for entry in audit.entries()] == ["run-1", "run-2", "run-3"]
    assert audit.verify().ok


def test_crash_after_crash_keeps_every_byte(home: Path) -> None:
    seal_runs(home, 1)
    second = make_run(home, "run-2")
    for size in (50, 70, 90):
        crash_during_append(second, size)
    before = ledger_file().read_bytes()
    second.seal()
    assert ledger_file().read_bytes().startswith(before)
    assert audit.verify().ok


def test_kill_9_at_any_moment_leaves_a_ledger_that_goes_on(home: Path) -> None:
    code = (
        "import itertools, os, sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from test_audit import make_run, audit, Outcome; from orchestra_lib.lock import process_start\n"
        "print('go', flush=True)\n"
        "for index in itertools.count():\n"
        "    name = f'{os.getpid()}-{index}'\n"
        "    run = make_run(Path(sys.argv[1]), name)\n"
        "    audit.announce(run.record, name, os.getpid(), process_start())\n"
        "    run.seal()\n"
    )
    chance = random.Random(7)
    command = [sys.executable, "-c", code, str(home), str(Path(__file__).parent)]
    for _ in range(3):
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(chance.uniform(0.05, 0.25))
        child.send_signal(signal.SIGKILL)
        child.wait()
        audit.sweep()
    wrong = [finding for finding in errors() if Path(finding.path) == ledger_file()]
    assert wrong == []
    assert len(audit.entries()) > 3
    # At most the run whose record was being written when its process died, before it was announced.
    assert len(errors()) <= 3


# --- runs that nobody sealed ----------------------------------------------------------------------------------------


def dead_process() -> tuple[int, float]:
    process = subprocess.Popen(["sleep", "30"])
    started = process_start(process.pid) or 0.0
    process.kill()
    process.wait()
    return process.pid, started


def test_sweep_settles_and_seals_a_killed_run(home: Path) -> None:
    run = make_run(home, "killed", outcome=Outcome.RUNNING)
    audit.announce(run.record, "killed", *dead_process())
    found = errors()
    assert [(finding.path, finding.what) for finding in found] == [(str(run.record), "interrupted")]
    assert "interrupted, not sealed" in found[0].message

    assert len(audit.sweep()) == 1
    settled = record.load(run.record)
    assert (settled.outcome, settled.verdict, settled.exit_code) == (Outcome.INTERRUPTED, Verdict.INTERRUPTED, 137)
    assert settled.ended is not None
    assert any(note.startswith("found at ") for note in settled.notes)
    entry = audit.entries()[-1]
    assert (entry.run_id, entry.outcome, entry.exit_code) == ("killed", Outcome.INTERRUPTED, 137)
    assert entry.notebook_sha256 is not None
    assert audit.open_runs() == []
    assert audit.sweep() == ()
    assert audit.verify().ok


def test_sweep_leaves_a_living_run_alone(home: Path) -> None:
    run = make_run(home, "alive", outcome=Outcome.RUNNING)
    audit.announce(run.record, "alive", os.getpid(), process_start() or 0.0)
    before = run.record.read_bytes()
    assert audit.sweep() == ()
    assert run.record.read_bytes() == before
    result = audit.verify()
    assert result.ok
    assert [finding.what for finding in result.findings] == ["running"]


def test_sweep_is_not_fooled_by_a_pid_that_is_used_again(home: Path) -> None:
    run = make_run(home, "old", outcome=Outcome.RUNNING)
    audit.announce(run.record, "old", os.getpid(), (process_start() or 0.0) - 3600)
    assert len(audit.sweep()) == 1
    assert record.load(run.record).outcome is Outcome.INTERRUPTED


def test_sweep_leaves_runs_of_other_hosts_to_them(home: Path) -> None:
    run = make_run(home, "far", outcome=Outcome.RUNNING)
    with mock.patch.object(platform, "node", return_value="another-host"):
        audit.announce(run.record, "far", *dead_process())
    assert audit.sweep() == ()
    assert len(audit.open_runs()) == 1


def test_sweep_keeps_the_outcome_of_a_settled_run(home: Path) -> None:
    run = make_run(home, "settled")
    before = run.record.read_bytes()
    audit.announce(run.record, "settled", *dead_process())
    audit.sweep()
    assert run.record.read_bytes() == before
    assert audit.entries()[-1].outcome is Outcome.COMPLETED


def test_a_run_killed_after_its_notebook_ended_is_interrupted_and_says_what_it_had_reached(home: Path) -> None:
    run = make_run(home, "late")
    closed = record.load(run.record).model_copy(update={"ended": None})
    record.save(closed, run.record)
    audit.announce(run.record, "late", *dead_process())
    audit.sweep()
    settled = record.load(run.record)
    assert (settled.outcome, settled.exit_code) == (Outcome.INTERRUPTED, 137)
    assert "reached completed" in settled.notes[-1]


def test_a_lost_record_of_an_open_run_is_said_and_stays_a_finding(home: Path) -> None:
    run = make_run(home, "gone", outcome=Outcome.RUNNING)
    audit.announce(run.record, "gone", *dead_process())
    run.record.unlink()
    assert "cannot be sealed" in audit.sweep()[0]
    assert [finding.what for finding in errors()] == ["removed"]


def test_a_run_in_progress_over_a_sealed_one_is_a_note(home: Path) -> None:
    make_run(home, "run-1", place="same").seal()
    run = make_run(home, "run-2", place="same", outcome=Outcome.RUNNING)
    audit.announce(run.record, "run-2", os.getpid(), process_start() or 0.0)
    assert audit.verify().ok
    assert {finding.what for finding in audit.verify().findings} == {"superseded", "running"}


def test_a_running_record_whose_process_is_gone_is_found_without_a_pointer(home: Path) -> None:
    run = make_run(home, "orphan", outcome=Outcome.RUNNING)
    pid, _ = dead_process()
    record.save(record.load(run.record).model_copy(update={"pid": pid}), run.record)
    assert [finding.what for finding in errors()] == ["interrupted"]
    # The pid is in use again, by a process that started after the record was opened.
    early = Record.model_validate(
        record.load(run.record).model_dump() | {"pid": os.getpid(), "started": datetime.now(UTC) - timedelta(days=1)}
    )
    record.save(early, run.record)
    assert [finding.what for finding in errors()] == ["interrupted"]
