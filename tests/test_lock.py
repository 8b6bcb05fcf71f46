"""The phase lock, with real processes: refusal, takeover after kill -9, two at once, reused pids, children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestra_lib.errors import LockHeld, ParameterError, RecordError
from orchestra_lib.lock import Holder, PhaseLock, is_alive, process_start

HOLD = """
import os, subprocess, sys, time
from orchestra_lib.errors import LockHeld
from orchestra_lib.lock import Holder, PhaseLock
time.sleep(max(0.0, float(sys.argv[3]) - time.time()))
try:
    sentence = PhaseLock("local", "03", Holder.of_this_process("ada", sys.argv[1], "papermill")).acquire()
except LockHeld as error:
    print("refused", error, flush=True)
    sys.exit(1)
if sys.argv[2] == "with_children":
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    forked = os.fork()
    if forked == 0:
        time.sleep(30)
        os._exit(0)
    print("held", child.pid, forked, flush=True)
else:
    print("held", sentence, flush=True)
time.sleep(30)
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def lock(run_id: str = "run-here", environment: str = "local", phase: str = "03") -> PhaseLock:
    return PhaseLock(environment, phase, Holder.of_this_process("grace", run_id, "JupyterLab"))


def start(run_id: str = "run-there", mode: str = "alone", at: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, run_id, mode, str(at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def write_sidecar(state: Path, **changes: object) -> None:
    (state / "locks").mkdir(parents=True, exist_ok=True)
    holder = vars(Holder.of_this_process("ada", "run-before", "papermill")) | changes
    (state / "locks" / "local.03.json").write_text(json.dumps(holder))


def test_second_process_is_refused_with_the_holder_named() -> None:
    other = start()
    try:
        assert first_line(other)[0] == "held"
        with pytest.raises(LockHeld) as refused:
            lock().acquire()
        said = str(refused.value)
        for part in ("ada", f"pid {other.pid}", "run-there", "since 20", "papermill", "phase 03 in local"):
            assert part in said
    finally:
        kill(other)


def test_a_lock_of_a_killed_process_is_taken_over_and_said() -> None:
    other = start()
    assert first_line(other)[0] == "held"
    kill(other)
    mine = lock()
    sentence = mine.acquire()
    assert sentence is not None
    assert "run-there" in sentence
    assert str(other.pid) in sentence
    mine.release()


def test_of_several_processes_at_once_exactly_one_gets_the_lock() -> None:
    at = time.time() + 1.0  # all have imported by then and try at the same moment
    others = [start(f"run-{number}", at=at) for number in range(5)]
    try:
        words = [first_line(other)[0] for other in others]
        assert sorted(words) == ["held", "refused", "refused", "refused", "refused"]
    finally:
        for other in others:
            kill(other)


def test_children_of_a_killed_holder_do_not_keep_the_lock() -> None:
    other = start(mode="with_children")
    _, *children = first_line(other)
    kill(other)
    try:
        assert all(process_start(int(child)) for child in children)
        mine = lock()
        assert mine.acquire() is not None
        mine.release()
    finally:
        for child in children:
            os.kill(int(child), signal.SIGKILL)


def test_a_released_lock_leaves_no_sidecar_and_no_takeover(state: Path) -> None:
    mine = lock()
    assert mine.acquire() is None
    assert (state / "locks" / "local.03.json").exists()
    mine.release()
    mine.release()
    assert not mine.is_held
    assert not (state / "locks" / "local.03.json").exists()
    again = lock("next")
    assert again.acquire() is None
    again.release()


def test_the_same_process_is_refused_a_second_time() -> None:
    mine = lock()
    mine.acquire()
    with pytest.raises(LockHeld, match="run-here"):
        lock("another").acquire()
    mine.release()


def test_other_phases_and_environments_are_free() -> None:
    locks = [lock(), lock(phase="04"), lock(environment="production")]
    assert [one.acquire() for one in locks] == [None, None, None]
    for one in locks:
        one.release()


def test_a_pid_that_is_used_again_does_not_count_as_the_holder(state: Path) -> None:
    parent = os.getppid()
    write_sidecar(state, pid=parent, process_started=(process_start(parent) or 0.0) - 3600)
    mine = lock()
    assert "run-before" in (mine.acquire() or "")
    mine.release()


def test_a_living_holder_is_believed_when_its_lock_file_was_removed(state: Path) -> None:
    parent = os.getppid()
    write_sidecar(state, pid=parent, process_started=process_start(parent))
    mine = lock()
    with pytest.raises(LockHeld, match="run-before"):
        mine.acquire()
    assert not mine.is_held


def test_handing_over_names_the_next_run(state: Path) -> None:
    mine = lock()
    with pytest.raises(RecordError):
        mine.hand_over(mine.holder)
    mine.acquire()
    mine.hand_over(Holder.of_this_process("grace", "run-next", "JupyterLab"))
    assert json.loads((state / "locks" / "local.03.json").read_text())["run_id"] == "run-next"
    mine.release()


@pytest.mark.parametrize("name", ["", "../etc", "a/b", "a.b"])
def test_a_name_that_cannot_name_a_file_is_refused(name: str) -> None:
    with pytest.raises(ParameterError):
        lock(environment=name)


def test_a_state_directory_that_is_a_file_is_said(state: Path) -> None:
    state.write_text("in the way")
    with pytest.raises(RecordError, match="ORCHESTRA_STATE_DIR"):
        lock().acquire()


def test_a_zombie_is_not_alive() -> None:
    process = subprocess.Popen(["sleep", "30"])
    started = process_start(process.pid) or 0.0
    assert is_alive(process.pid, started)
    assert not is_alive(process.pid, started + 10)
    process.kill()
    deadline = time.monotonic() + 5
    while is_alive(process.pid, started) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(process.pid, started)
    process.wait()
    assert process_start(process.pid) is None
