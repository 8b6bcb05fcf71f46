"""A memory phase that is killed goes on where it was: the next run finds out, says so, and nothing written is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import killed_phase
import memory_stores
import psycopg
import pytest
from stores import Pair, fill

from orchestra_lib import record, runbook, settings, stream_process
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Verdict
from orchestra_lib.lock import PhaseLock
from orchestra_lib.phases.finalization_release import FinalizationReturn
from orchestra_lib.phases.memory import MemoryPhase
from orchestra_lib.phases.memory_release import SourceRelease
from orchestra_lib.phases.memory_return import WritersReturn
from orchestra_lib.rehearsal.judge import judge
from orchestra_lib.rehearsal.writer import Load, WriterProcess, writer_process
from orchestra_lib.runbook import Runbook

pytestmark = pytest.mark.slow

ROWS = 300


class Application:
    """The application beside the phase: it writes all the time, to the side that it is told, and keeps its ledger."""

    def __init__(self, pair: Pair, folder: Path) -> None:
        self._pair, self._role = pair, memory_stores.make_writer(pair)
        self.route, self.ledger = folder / "route", folder / "ledger"
        self.point_at("source")

    def point_at(self, side: str) -> None:
        fresh = self.route.with_suffix(".new")
        fresh.write_text(f"{getattr(self._pair, side)} user={self._role}")
        fresh.rename(self.route)

    def acknowledged(self) -> int:
        return self.ledger.read_bytes().count(b'"acknowledged"') if self.ledger.exists() else 0

    def writes(self, writer: WriterProcess, writes: int = 20, seconds: float = 30) -> None:
        """Return once so many more writes have been acknowledged."""
        before, deadline = self.acknowledged(), time.monotonic() + seconds
        while self.acknowledged() < before + writes:
            assert writer.running, "the writer has ended"
            assert time.monotonic() < deadline, "the writer does not write"
            time.sleep(0.02)


@pytest.fixture
def home(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose environment copies slowly enough to be killed: one session, sixteen ranges."""
    (tmp_path / "parameters").mkdir()
    shutil.copy(settings.root() / "parameters" / "production.yaml", tmp_path / "parameters")
    memory_stores.write_parameters(tmp_path / "parameters", pair, copy={"workers": 1}, load={"seconds": 0.2})
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    fill(pair.source, ROWS)
    yield tmp_path
    for run in tuple(runbook._open_here.values()):
        lock: PhaseLock | None = run._replaced()
        if lock is not None:
            lock.release()
    memory_stores.clear(pair)


@pytest.fixture
def application(pair: Pair, home: Path) -> Application:
    return Application(pair, home)


@pytest.fixture
def writer(application: Application) -> Iterator[WriterProcess]:
    load = Load(per_second=100, sessions=2, seed=7)
    with writer_process(load, application.route, application.ledger) as found:
        application.writes(found)
        yield found


def killed(moment: str) -> None:
    """A run that is killed at that moment."""
    command = [sys.executable, killed_phase.__file__, moment]
    folder = str(Path(killed_phase.__file__).parent)
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def opened() -> MemoryPhase:
    return MemoryPhase(Runbook.open("03_memory", environment="local"))


def goes_on(phase: MemoryPhase) -> dict[str, object]:
    """Everything that is left to do until the stream has caught up, each claim green; the values by their claims."""
    phase.inventory()
    phase._run.preflight(phase.checks())
    phase.copy()
    phase.verify()
    phase.stream.start()
    phase.stream.catch_up()
    phase.stream.compare()
    red = [str(row) for row in phase._run.evidence if row.verdict not in (Verdict.PASS, Verdict.NOTED)]
    assert red == []
    return {row.claim: row.value for row in phase._run.evidence}


def judged(phase: MemoryPhase, pair: Pair, application: Application, writer: WriterProcess) -> None:
    """Hold both stores against the ledger, once everything has arrived."""
    writer.stop()
    phase.stream.drain()
    for name in ("source", "target"):
        verdict = judge(application.ledger, getattr(pair, name), "memories")
        assert verdict.holds, f"{name}: {verdict}"


def told(phase: MemoryPhase) -> str:
    """What the record says of the earlier run."""
    return "\n".join(phase._run.record.notes)


def test_a_copy_that_was_cut_off_goes_on_with_the_key_ranges_that_are_missing(
    pair: Pair, application: Application, writer: WriterProcess
) -> None:
    killed("in the copy")
    with psycopg.connect(pair.target) as target:
        row = target.execute("SELECT count(*) FROM memories").fetchone()
    assert row is not None
    assert 0 < row[0] < ROWS
    phase = opened()
    found = goes_on(phase)
    assert found["the copy was"] == "gone on with"
    there = f"{killed_phase.RANGES_BEFORE} of 16 key ranges are there, from slot "
    assert f"an earlier run was cut off in its copy: {there}" in told(phase)
    judged(phase, pair, application, writer)


def test_a_stream_that_was_being_waited_for_is_found_running(
    pair: Pair, application: Application, writer: WriterProcess
) -> None:
    killed("in the catch-up")
    running = stream_process.running("local")
    assert running is not None, "it outlives the kernel that started it"
    phase = opened()
    found = goes_on(phase)
    assert found["the copy was"] == "found complete"
    assert found["process of the stream"] == running.pid
    judged(phase, pair, application, writer)


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("writers shut out", "an earlier run was cut off: the cutover from the source to the target was undone: "),
        ("endpoint switched", "an earlier run was cut off: the cutover from the source to the target was completed\n"
         "an earlier run has left the writers on the target: they have been brought back"),
    ],
)  # fmt: skip
def test_a_cutover_that_was_cut_off_is_undone_before_its_switch_and_completed_after_it(
    pair: Pair, application: Application, writer: WriterProcess, moment: str, words: str
) -> None:
    killed(moment)
    phase = opened()
    assert words in told(phase)
    assert phase.cutover.live == "source"
    application.writes(writer)
    phase.stream.go_on()
    judged(phase, pair, application, writer)


def test_what_was_written_on_the_target_before_the_return_is_brought_back_by_the_next_run(
    pair: Pair, application: Application, writer: WriterProcess
) -> None:
    killed("before the return")
    application.point_at("target")
    application.writes(writer, 50)
    phase = opened()
    assert "an earlier run has left the writers on the target: they have been brought back" in told(phase)
    application.point_at("source")
    goes_on(phase)
    phase.cutover.there()
    application.point_at("target")
    application.writes(writer)
    phase.cutover.back()
    application.point_at("source")
    application.writes(writer)
    judged(phase, pair, application, writer)


def test_a_rollback_that_cannot_bring_the_writers_home_refuses_and_counts_what_would_be_lost(
    home: Path, pair: Pair, application: Application, writer: WriterProcess
) -> None:
    killed("before the return")
    stream_process.stop("local")  # what is written from now on is on the target alone
    application.point_at("target")
    application.writes(writer, 100)
    parameters = partial(memory_stores.write_parameters, home / "parameters", pair)
    parameters(copy={"workers": 1}, load={"seconds": 0.2}, writers={"source": None})
    run = Runbook.open("99_rollback", environment="local")
    for asked in (WritersReturn(run), FinalizationReturn(run)):
        lost = asked.check()
        assert lost.verdict is Verdict.FAIL
        assert lost.note.startswith("memory.writers.source names nobody who could write on the source again: what was")
        inserted, deleted, changed = map(int, re.findall(r"\d+", lost.note))
        assert min(inserted, changed) > 0
        assert inserted + changed + deleted > 30, "a key is written more than once"
        with pytest.raises(GateFailed, match=r"the writers stay on the target, .*: what they wrote there would be"):
            asked.apply()
    with pytest.raises(GateFailed, match="what it wrote since the cutover would be lost"):
        SourceRelease(run.settings).apply()
    application.writes(writer)  # nothing was shut
    parameters(copy={"workers": 1}, load={"seconds": 0.2})
    phase = opened()
    application.point_at("source")
    phase.stream.go_on()
    judged(phase, pair, application, writer)
