"""The local databases: found again, outliving their starter, refusing with reasons."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import psycopg
import pytest

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import databases

pytestmark = pytest.mark.slow

PAIR = ("source", "target")


@pytest.fixture
def state():
    directory = Path(tempfile.mkdtemp(prefix="orchestra-local-"))
    directory.chmod(0o755)
    yield directory
    databases.down(directory)
    shutil.rmtree(directory)


def in_another_process(state, then="") -> int:
    program = (
        "from pathlib import Path; from orchestra_lib.local import databases as d; "
        f"d.up(Path({str(state)!r}), {PAIR}); {then}"
    )
    return subprocess.run([sys.executable, "-c", program], check=False).returncode


def test_they_outlive_the_process_that_started_them_even_when_it_is_killed(state):
    assert in_another_process(state, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)") == -signal.SIGKILL
    running = databases.status(state, PAIR).databases
    assert set(running) == {"source", "target"}
    assert databases.up(state, PAIR).databases == running, "found again, same process"
    for database in running.values():
        with psycopg.connect(database.conninfo) as connection:
            assert connection.execute("SHOW wal_buffers").fetchone() == ("64MB",)
            assert connection.execute("SHOW wal_level").fetchone() == ("logical",)
            assert connection.execute("SHOW max_slot_wal_keep_size").fetchone() == ("2GB",)
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    assert databases.down(state) == ("source", "target")
    assert databases.status(state, PAIR).databases == {}
    assert not any(is_serving(database.pid) for database in running.values())


def is_serving(pid) -> bool:
    try:
        psutil.Process(pid).wait(timeout=5)
    except psutil.NoSuchProcess:
        return False
    except psutil.TimeoutExpired:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_killed_server_comes_back_with_its_rows(state):
    conninfo = databases.up(state).databases["source"].conninfo
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    killed = databases.status(state).databases["source"].pid
    os.kill(killed, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(killed)] if psutil.pid_exists(killed) else [], timeout=5)
    conninfo = databases.up(state).databases["source"].conninfo
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (42,)


def test_reset_removes_the_data(state):
    databases.up(state)
    databases.reset(state)
    assert not (state / "local").exists()
    assert databases.down(state) == ()


def test_no_room_is_said_with_both_numbers(state, monkeypatch):
    monkeypatch.setattr(databases, "FREE_BYTES_NEEDED", 1 << 60)
    with pytest.raises(TargetUnreachable, match=r"need 1,099,511,627,776 MiB of disk .* MiB are free"):
        databases.up(state)


def test_a_directory_that_cannot_be_made_is_said(state):
    (state / "file").write_text("")
    with pytest.raises(TargetUnreachable, match="cannot be made"):
        databases.up(state / "file")


def test_a_socket_that_is_taken_is_said(state):
    databases.up(state)
    databases.down(state)
    # The lock file of a socket belongs to the process that it names, if that is alive and the same user's.
    holder = subprocess.Popen(["sleep", "60"], user="pgserver" if os.geteuid() == 0 else None)
    lock = state / "local" / "source" / ".s.PGSQL.5432.lock"
    lock.write_text(f"{holder.pid}\n{state}\n0\n5432\n{lock.parent}\n")
    try:
        with pytest.raises(TargetUnreachable, match=r"source database does not start: .*lock file"):
            databases.up(state)
    finally:
        holder.kill()
        holder.wait()
        lock.unlink()
