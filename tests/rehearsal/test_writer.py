"""The writer on real servers: what it writes, what it notes, how it follows a route, and what it does when in doubt."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from stores import Pair
from written_rows import make_store

from orchestra_lib.errors import DataError, ParameterError, TargetUnreachable
from orchestra_lib.rehearsal.judge import Violation, judge
from orchestra_lib.rehearsal.ledger import Event, Ledger, entries, standing
from orchestra_lib.rehearsal.writer import Load, Report, file_route, report, write, writer_process
from orchestra_lib.rehearsal.written import Lives, Mix, Verb

LOAD = Load(per_second=400, sessions=3, seed=11)


@pytest.fixture
def writer_role(pair: Pair) -> Iterator[str]:
    """A role that may write to either store, and no more; its name."""
    role = pair.source.rpartition("dbname=")[2] + "_writer"
    for conninfo in (pair.source, pair.target):
        make_store(conninfo)
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {role} LOGIN")
            connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON memories TO {role}")
    yield role
    for conninfo in (pair.source, pair.target):
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


def wait_until(holds: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.01)


def acknowledged(ledger: Path) -> int:
    return standing(ledger).writes if ledger.exists() and ledger.stat().st_size else 0


class Running:
    """A writer in a thread, ended by the ``with`` block."""

    def __init__(self, load: Load, route: Callable[[], str], ledger: Path) -> None:
        self._stop, self._pool = threading.Event(), ThreadPoolExecutor(1)
        self._future = self._pool.submit(write, load, route, ledger, self._stop)
        wait_until(lambda: self._future.done() or acknowledged(ledger) > 20)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def stop(self) -> Report:
        self._stop.set()
        return self._future.result()


def test_what_it_writes_is_what_the_judge_wants(pair: Pair, tmp_path: Path) -> None:
    make_store(pair.source)
    told = write(LOAD, lambda: pair.source, tmp_path / "ledger", threading.Event(), seconds=2)
    assert judge(tmp_path / "ledger", pair.source, "memories").holds
    assert told.by_verb.keys() == set(Verb)
    assert told.acknowledged == standing(tmp_path / "ledger").writes == sum(told.by_verb.values())
    assert (told.refused, told.lost, told.in_doubt, told.wrong, told.pauses) == (0, 0, 0, (), ())
    assert told.skipped + told.acknowledged == pytest.approx(800, rel=0.1)
    assert 0 < told.p50_ms <= told.p95_ms <= told.p99_ms
    with psycopg.connect(pair.source) as connection:
        (rows, again) = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE version < (metadata->>'step')::int) FROM memories"
        ).fetchone()
    assert rows > 100
    assert again > 0  # some were inserted again with version 1


def test_a_write_stands_in_the_ledger_before_it_is_sent(pair: Pair, tmp_path: Path) -> None:
    make_store(pair.source)
    ledger = tmp_path / "ledger"
    with psycopg.connect(pair.source) as lock:
        lock.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(write, LOAD, lambda: pair.source, ledger, stop)
            # Preparing a statement waits for the lock too, so no session gets as far as a write.
            time.sleep(0.3)
            assert not [entry for entry in entries(ledger) if entry.event is Event.INTENT]
            lock.rollback()
            wait_until(lambda: acknowledged(ledger) > 20)
            lock.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            wait_until(lambda: len(standing(ledger).in_doubt) == LOAD.sessions)
            lock.rollback()
            stop.set()
            assert future.result().in_doubt == 0
    events = Counter(entry.event for entry in entries(ledger))
    assert events[Event.INTENT] == events[Event.ACKNOWLEDGED]


@pytest.mark.slow
def test_killed_it_leaves_a_ledger_that_holds_and_the_next_one_goes_on_with_it(pair: Pair, tmp_path: Path) -> None:
    make_store(pair.source)
    (tmp_path / "route").write_text(pair.source)
    ledger = tmp_path / "ledger"
    for more in (1, 2):
        with writer_process(LOAD, tmp_path / "route", ledger) as writer:
            wait_until(lambda more=more: acknowledged(ledger) > 150 * more, seconds=20)
            writer.kill()
        # What it had sent may still be under way in its server processes, which notice its end a moment later.
        with psycopg.connect(pair.source) as connection:
            wait_until(lambda c=connection: not c.execute(
                "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'orchestra writer%'"
            ).fetchall())  # fmt: skip
            connection.rollback()
        verdict = judge(ledger, pair.source, "memories")
        assert verdict.holds, str(verdict)
        assert verdict.in_doubt <= LOAD.sessions
    told = write(LOAD, lambda: pair.source, ledger, threading.Event(), seconds=0.5)
    assert told.acknowledged > 300
    assert told.in_doubt == 0
    assert judge(ledger, pair.source, "memories").holds


_STARTER = """
import json, os, signal, sys
from pathlib import Path
from orchestra_lib.rehearsal.writer import Load, writer_process

with writer_process(Load(per_second=100), Path(sys.argv[1]), Path(sys.argv[2])) as writer:
    print(writer.pid, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_ends_in_order_when_the_program_that_started_it_is_killed(pair: Pair, tmp_path: Path) -> None:
    make_store(pair.source)
    route, ledger = tmp_path / "route", tmp_path / "ledger"
    route.write_text(pair.source)
    command = [sys.executable, "-c", _STARTER, str(route), str(ledger)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdin is not None
        writer = psutil.Process(int(starter.stdout.readline()))
        wait_until(lambda: acknowledged(ledger) > 10, seconds=20)
        starter.stdin.write("\n")
        starter.stdin.close()
        assert starter.wait(20) == -signal.SIGKILL
    psutil.wait_procs([writer], timeout=20)
    assert not writer.is_running()
    assert standing(ledger).in_doubt == {}, "it was not killed with it, it has ended in order"


def test_it_follows_the_route_when_it_is_refused_and_reports_the_pause(
    pair: Pair, tmp_path: Path, writer_role: str
) -> None:
    route, ledger = tmp_path / "route", tmp_path / "ledger"
    places = [make_conninfo(conninfo, user=writer_role) for conninfo in (pair.source, pair.target)]
    route.write_text(places[0])
    with Running(LOAD, file_route(route), ledger) as running, psycopg.connect(pair.source, autocommit=True) as source:
        source.execute(f"REVOKE INSERT, UPDATE, DELETE ON memories FROM {writer_role}")
        wait_until(lambda: any(entry.event is Event.REFUSED for entry in entries(ledger)))
        before = acknowledged(ledger)
        time.sleep(0.4)
        assert acknowledged(ledger) - before <= LOAD.sessions
        rows = source.cursor().copy("COPY memories TO STDOUT (FORMAT binary)")
        with (
            psycopg.connect(pair.target) as target,
            rows as reader,
            target.cursor().copy("COPY memories FROM STDIN (FORMAT binary)") as writing,
        ):
            for block in reader:
                writing.write(block)
        route.write_text(places[1])
        there = acknowledged(ledger)
        wait_until(lambda: acknowledged(ledger) > there + 100)
        told = running.stop()
    (pause,) = told.pauses
    assert pause.seconds >= 0.4
    assert pause.sessions == LOAD.sessions
    assert pause.before != pause.after
    assert pause.reasons.keys() == {"42501"}
    assert told.refused > 0
    assert judge(ledger, pair.target, "memories").holds
    assert not judge(ledger, pair.source, "memories").holds


def test_a_role_that_may_not_log_in_any_more_is_waited_for(pair: Pair, tmp_path: Path, writer_role: str) -> None:
    ledger = tmp_path / "ledger"
    conninfo = make_conninfo(pair.source, user=writer_role)
    with Running(LOAD, lambda: conninfo, ledger) as running, psycopg.connect(pair.source, autocommit=True) as source:
        source.execute(f"ALTER ROLE {writer_role} NOLOGIN")
        source.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{writer_role}'")
        time.sleep(0.3)
        before = acknowledged(ledger)
        source.execute(f"ALTER ROLE {writer_role} LOGIN")
        wait_until(lambda: acknowledged(ledger) > before + 50)
        told = running.stop()
    assert told.lost > 0
    assert told.pauses
    assert judge(ledger, pair.source, "memories").holds


def test_a_write_in_doubt_is_looked_up_before_the_key_is_used_again(pair: Pair, tmp_path: Path) -> None:
    make_store(pair.source)
    ledger = tmp_path / "ledger"
    with Running(LOAD, lambda: pair.source, ledger) as running, psycopg.connect(pair.source, autocommit=True) as other:
        for _ in range(10):
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'orchestra writer%'"
            )
            time.sleep(0.05)
        told = running.stop()
    events = Counter(entry.event for entry in entries(ledger))
    assert events[Event.LOST] >= 10
    assert events[Event.FOUND] + events[Event.MISSING] + told.in_doubt == events[Event.LOST]
    verdict = judge(ledger, pair.source, "memories")
    assert verdict.holds, str(verdict)


def test_a_row_that_vanishes_behind_its_back_is_named_and_left_to_the_judge(pair: Pair, tmp_path: Path) -> None:
    make_store(pair.source)
    ledger = tmp_path / "ledger"
    with Running(LOAD, lambda: pair.source, ledger) as running, psycopg.connect(pair.source, autocommit=True) as other:
        lives = Lives(LOAD.seed, LOAD.mix)
        other.execute("DELETE FROM memories")
        wait_until(lambda: bool(standing(ledger).wrong))
        told = running.stop()
    assert told.wrong[0].startswith("written:11:")
    assert "is at step None, wanted " in told.wrong[0]
    verdict = judge(ledger, pair.source, "memories")
    assert {kind for kind, count in verdict.counts.items() if count} == {Violation.LOST}
    assert verdict.counts[Violation.LOST] >= len(told.wrong)
    lost = {found.id for found in verdict.findings}
    assert lost & {lives.id(key) for key in standing(ledger).wrong}


def test_a_table_that_is_not_there_ends_it(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'cannot write to memories: relation "memories" does not exist \(42P01\)'):
        write(LOAD, lambda: pair.source, tmp_path / "ledger", threading.Event(), seconds=5)


def test_writes_whose_time_has_long_passed_are_skipped_and_counted(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestra_lib.rehearsal.caller._PATIENCE_SECONDS", 0.2)
    make_store(pair.source)
    ledger = tmp_path / "ledger"
    with Running(LOAD, lambda: pair.source, ledger) as running, psycopg.connect(pair.source) as lock:
        lock.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
        time.sleep(1.0)
        lock.rollback()
        there = acknowledged(ledger)
        wait_until(lambda: acknowledged(ledger) > there + 100)
        told = running.stop()
    assert LOAD.per_second * 0.5 < told.skipped < LOAD.per_second * 2
    assert told.p99_ms > 150  # those that waited count from their intended start


def test_a_ledger_survives_a_torn_line_and_belongs_to_one_seed_and_mix(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger(path, 1, Mix()) as ledger:
        ledger.note(Event.INTENT, 4, 1, detail=[0.0, "insert"])
    with path.open("a") as file:
        file.write('["acknowledged",4,1')
    assert standing(path).in_doubt == {4: 1}
    with Ledger(path, 1, Mix()) as ledger:
        ledger.note(Event.ACKNOWLEDGED, 4, 1, detail=0)
    assert standing(path).acknowledged == {4: 1}
    with pytest.raises(DataError, match="name another file"):
        Ledger(path, 2, Mix())
    with pytest.raises(DataError, match="name another file"):
        Ledger(path, 1, Mix(restarts=0.5))


def test_a_line_of_a_ledger_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    Ledger(path, 1, Mix()).__exit__()
    with path.open("a") as file:
        file.write('["made up",4,1,0,0.0,0.0,null]\n')
    with pytest.raises(DataError, match=r"line 2 of .* is none of a ledger"):
        standing(path)


def test_a_mix_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"these add up to 1\.1"):
        Mix(insert=0.35)
    with pytest.raises(ParameterError, match="lie between 0 and 1"):
        Mix(insert=0.45, delete=-0.1)


def test_a_route_whose_file_is_missing_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(TargetUnreachable, match=r"route .* cannot be read"):
        file_route(tmp_path / "none")()
    told = write(LOAD, file_route(tmp_path / "none"), tmp_path / "ledger", threading.Event(), seconds=0.2)
    assert told.acknowledged == 0


def test_the_process_prints_its_report_and_ends_in_order(pair: Pair, tmp_path: Path) -> None:
    make_store(pair.source)
    (tmp_path / "route").write_text(pair.source)
    with writer_process(LOAD, tmp_path / "route", tmp_path / "ledger") as writer:
        wait_until(lambda: acknowledged(tmp_path / "ledger") > 50, seconds=20)
        told = writer.stop()
    assert told.in_doubt == 0
    assert json.loads(told.as_json())["per_second"] == told.per_second
    assert report(tmp_path / "ledger") == told
    assert judge(tmp_path / "ledger", pair.source, "memories").holds


@pytest.mark.parametrize(("share", "restarts"), [(0.0, 0), (1.0, 1)])
def test_versions_of_rows_that_are_inserted_again_go_on_or_start_again(share: float, restarts: int) -> None:
    lives = Lives(1, Mix(restarts=share))
    again = 0
    for key in range(20):
        for before, after in zip(lives.states(key), range(60), strict=False):
            following = lives.after(before)
            assert following.step == after + 1
            if following.present:
                assert following.version == before.version + 1 or following.version == 1
            again += before.step > 0 and not before.present and following.version == 1
    assert bool(again) == bool(restarts)
