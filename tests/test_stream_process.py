"""The stream as a process of its own: found again, asked, stopped, killed, and what it says of its end."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import memory_stores
import psutil
import psycopg
import pytest
from stores import Pair, fill

from orchestra_lib import cli, record, settings, stream_process
from orchestra_lib.database import connect
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.memory.initial_copy import initial_copy
from orchestra_lib.memory.schema import create_table
from orchestra_lib.memory.slot import drop_slot, mark
from orchestra_lib.move import Move

pytestmark = pytest.mark.slow

ENVIRONMENT = "local"


@pytest.fixture
def moved(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    """A store of which the copy is there and the stream was never started, in a home of its own."""
    (tmp_path / "parameters").mkdir()
    shutil.copy(settings.root() / "parameters" / "production.yaml", tmp_path / "parameters")
    memory_stores.write_parameters(tmp_path / "parameters", pair)
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    fill(pair.source, 30)
    on(pair.target, create_table().as_string())
    move = Move(settings.load(ENVIRONMENT, "03_memory", {}), pair.source, pair.target)
    initial_copy(move.copy_spec(), lambda _done, _total: None)
    yield pair
    memory_stores.clear(pair)


def on(conninfo: str, *statements: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def start() -> stream_process.Report:
    return stream_process.start(ENVIRONMENT, {})


def brought(pair: Pair) -> int:
    """Wait until everything is on the target; its rows."""
    with connect(pair.source) as source:
        assert stream_process.wait_for(ENVIRONMENT, mark(source), 30)
    with connect(pair.target) as target:
        row = target.execute("SELECT count(*) FROM memories").fetchone()
    assert row is not None
    return int(row[0])


Told = Callable[..., tuple[int, str]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Carries out `stream`; returns its exit code and what it printed, errors included."""

    def command(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.main(["stream", *arguments, "--environment", ENVIRONMENT])
        return code, "".join(capsys.readouterr())

    return command


def ended() -> stream_process.Report:
    """What the process said once it was gone."""
    found = stream_process.report(ENVIRONMENT)
    assert found is not None
    psutil.wait_procs([psutil.Process(found.pid)] if psutil.pid_exists(found.pid) else [], timeout=20)
    found = stream_process.report(ENVIRONMENT)
    assert found is not None
    assert not found.is_running
    return found


def test_it_is_started_found_again_asked_and_stopped(moved: Pair, told: Told) -> None:
    assert stream_process.report(ENVIRONMENT) is None
    assert told("status") == (0, "no stream of local has ever run here\n")
    report = stream_process.start(ENVIRONMENT, {"source_dsn": moved.source, "batch_size": 100})
    assert report.status.state == "streaming"
    assert start().pid == report.pid
    assert moved.source not in " ".join(psutil.Process(report.pid).cmdline()), "a connection string is secret"
    assert os.getsid(report.pid) == report.pid, "a Ctrl-C in our terminal is not for it"
    assert told() == (2, f"the stream of local runs already, as process {report.pid}\n")
    assert report.is_running
    assert not replace(report, born=report.born - 1).is_running, "another process may get the number of a dead one"

    on(moved.source, "DELETE FROM memories WHERE id < 'id-00000010'")
    assert brought(moved) == 20
    assert told("status")[1].startswith(f"process {report.pid}\nstreaming at ")
    assert stream_process.stop(ENVIRONMENT)
    assert not stream_process.stop(ENVIRONMENT)
    assert told("stop") == (0, "no stream runs\n")
    last = ended()
    assert (last.ended, last.clean, last.status.state) == ("asked to stop", True, "stopped")
    assert told("status")[1].startswith("ended: asked to stop\n")
    with pytest.raises(TargetUnreachable, match="the stream does not run: asked to stop"):
        stream_process.wait_for(ENVIRONMENT, last.status.applied_lsn + 1, 5)


def test_killed_it_is_not_believed_any_more_and_the_next_one_brings_what_came_meanwhile(
    moved: Pair, told: Told
) -> None:
    first = start()
    on(moved.source, "UPDATE memories SET version = 7 WHERE id < 'id-00000010'")
    brought(moved)
    os.kill(first.pid, signal.SIGKILL)
    left = ended()
    assert (left.ended, left.status.state) == ("", "streaming"), "it had no time to say anything"
    assert stream_process.running(ENVIRONMENT) is None
    with pytest.raises(TargetUnreachable, match="the stream does not run: it was killed"):
        stream_process.wait_for(ENVIRONMENT, left.status.applied_lsn + 1, 5)
    assert told("status")[1].startswith("ended: killed\n")
    on(moved.source, "DELETE FROM memories WHERE id < 'id-00000005'")
    assert start().pid != first.pid
    assert brought(moved) == 25
    with connect(moved.target) as target:
        assert target.execute("SELECT count(*) FROM memories WHERE version = 7").fetchone() == (5,)


def test_rows_in_quarantine_are_repaired_by_a_command_while_it_is_stopped(moved: Pair, told: Told) -> None:
    on(moved.target, "ALTER TABLE memories ADD CONSTRAINT short CHECK (content <> 'a longer one') NOT VALID")
    start()
    on(moved.source, "UPDATE memories SET content = 'a longer one', version = 9 WHERE id = 'id-00000003'")
    assert brought(moved) == 30
    code, said = told("resolve")
    assert code != 0
    assert "is in other hands" in said
    assert stream_process.stop(ENVIRONMENT)
    code, said = told("resolve")
    assert code == 1
    assert said.startswith("0 rows written, 0 deleted, 0 were alike already\nstill refused: id-00000003: ")
    on(moved.target, "ALTER TABLE memories DROP CONSTRAINT short")
    assert told("resolve") == (0, "1 rows written, 0 deleted, 0 were alike already\n")
    with connect(moved.target) as target:
        assert target.execute("SELECT id FROM memories WHERE version = 9").fetchall() == [("id-00000003",)]


def test_what_ends_it_is_said_to_whoever_waits_and_whoever_starts_it_again(moved: Pair, told: Told) -> None:
    start()
    on(moved.source, "ALTER TABLE memories ADD COLUMN mood text", "UPDATE memories SET mood = 'glad'")
    with connect(moved.source) as source:
        lsn = mark(source)
    with pytest.raises(TargetUnreachable, match=r"the stream does not run: .*mood"):
        stream_process.wait_for(ENVIRONMENT, lsn, 30)
    last = ended()
    assert "mood" in last.ended
    assert not last.clean
    assert told("status")[1].startswith(f"ended: {last.ended}\n")
    assert not stream_process.stop(ENVIRONMENT)
    with connect(moved.source) as source:
        drop_slot(source, memory_stores.name_of(moved))
    with pytest.raises(TargetUnreachable, match=r"the stream ended at its start: .*slot .* copy"):
        start()
