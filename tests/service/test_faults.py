"""The store is killed, frozen, slow; there is too much to do; the process is told to end. Nothing is made up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from service.serving import DIMENSION, Api, ids, is_problem, memory, prepared, process, serve, wait_for
from stores import Pair

from orchestra_lib.errors import ParameterError
from orchestra_lib.local import databases
from orchestra_lib.service.sessions import Spent


@pytest.fixture(scope="module")
def own_server() -> Iterator[tuple[Path, str]]:
    """A PostgreSQL that may be killed, with a prepared store."""
    directory = Path(tempfile.mkdtemp(prefix="orchestra-api-"))
    directory.chmod(0o755)
    dsn = databases.up(directory, names=("store",)).databases["store"].conninfo
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    prepared(dsn, DIMENSION)
    yield directory, dsn
    databases.reset(directory)


def pid_of(directory: Path) -> int:
    return databases.status(directory, names=("store",)).databases["store"].pid


def kill_all(server: psutil.Process) -> None:
    """End the server and everything that it has started, without a chance to finish anything."""
    for one in [server, *server.children()]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs([server], timeout=5)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_database_that_is_killed_is_503_until_it_is_back_and_nothing_is_lost(own_server, tmp_path):
    directory, dsn = own_server
    changes = {"pool_timeout_seconds": 0.3, "breaker_failures": 3, "breaker_recovery_seconds": 0.3}
    with serve(dsn, tmp_path, **changes) as api:
        stored = api.store()
        server = psutil.Process(pid_of(directory))
        kill_all(server)
        answers = [api.as_user().get("/v1/memories") for _ in range(6)]
        for answer in answers:
            assert is_problem(answer, 503, "store-unavailable"), "an error, never an empty list"
            assert int(answer.headers["retry-after"]) >= 1
        assert "left alone" in answers[-1].text, "the breaker has opened"
        assert is_problem(api.as_user(None).get("/readyz"), 503, "not-ready")
        assert api.as_user(None).get("/healthz").status_code == 200
        assert 'orchestra_api_breaker{state="closed"} 0.0' in api.as_user(None).get("/metrics").text
        databases.up(directory, names=("store",))
        wait_for(api, "/readyz", 200)
        assert ids(api.as_user().get("/v1/memories").json()["memories"]) == [stored]
        assert 'orchestra_api_breaker{state="closed"} 1.0' in api.as_user(None).get("/metrics").text


def test_a_restart_between_two_requests_is_not_noticed_by_whoever_reads(own_server, tmp_path):
    directory, dsn = own_server
    with serve(dsn, tmp_path) as api:
        api.store()
        with ThreadPoolExecutor(4) as pool:  # several sessions, all of which are lost
            list(pool.map(lambda _: api.as_user().get("/v1/memories"), range(8)))
        databases.down(directory)
        databases.up(directory, names=("store",))
        assert [api.as_user().get("/v1/memories").status_code for _ in range(8)] == [200] * 8


@contextmanager
def stopped(directory: Path) -> Iterator[None]:
    """Every process of the server stands still."""
    server = psutil.Process(pid_of(directory))
    everything = [server, *server.children()]
    for one in everything:
        one.suspend()
    try:
        yield
    finally:
        for one in everything:
            one.resume()


def test_a_database_that_stands_still_is_told_in_time(own_server, tmp_path):
    directory, dsn = own_server
    changes = {"pool_timeout_seconds": 0.2, "statement_timeout_seconds": 0.3, "breaker_recovery_seconds": 0.2}
    with serve(dsn, tmp_path, **changes) as api:
        api.store()
        with stopped(directory):
            started = time.monotonic()
            answer = api.as_user().get("/v1/memories")
            assert time.monotonic() - started < 2.5
            assert is_problem(answer, 503, "store-timeout")
        wait_for(api, "/readyz", 200)
        assert len(api.as_user().get("/v1/memories").json()["memories"]) >= 1


def test_a_statement_that_takes_too_long_is_ended_and_told(api: Api, tmp_path):
    with (
        serve(api.dsn, tmp_path, statement_timeout_seconds=0.2) as impatient,
        psycopg.connect(api.dsn) as holding,
    ):
        holding.execute("LOCK TABLE memories")
        assert is_problem(impatient.as_user().get("/v1/memories"), 503, "store-timeout")
        holding.rollback()
        assert impatient.as_user().get("/v1/memories").status_code == 200


def test_what_is_begun_in_a_session_that_the_server_ends_is_done_in_another(api: Api):
    api.store()
    pids = []

    async def work(session):
        pids.append(session.info.backend_pid)
        if len(pids) == 1:
            await (await session.execute("SELECT 1")).fetchone()
            ending.execute("SELECT pg_terminate_backend(%s, 1000)", pids)
        return await (await session.execute("SELECT count(*) FROM memories")).fetchone()

    with psycopg.connect(api.dsn, autocommit=True) as ending:
        asked = api.app.state.sessions.run("ada", work, Spent(), repeatable=True)
        assert asyncio.run_coroutine_threadsafe(asked, api.loop).result(10) == (1,)
    assert len({*pids}) == 2


def test_what_is_too_much_for_the_server_says_nothing_against_it_and_is_not_tried_again(api: Api):
    sessions, tried = api.app.state.sessions, []

    async def work(session):
        tried.append(session)
        words = "SELECT to_tsvector('simple', string_agg(n::text, ' ')) FROM generate_series(1, 200000) n"
        return await (await session.execute(words)).fetchone()

    for _ in range(6):
        asked = sessions.run("ada", work, Spent(), repeatable=True)
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            asyncio.run_coroutine_threadsafe(asked, api.loop).result(10)
    assert len(tried) == 6
    assert sessions.breaker.state == "closed"


def test_writers_that_are_shut_out_for_a_cutover_are_told_to_come_again(api: Api):
    api.store()
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON memories FROM orchestra_memory_api")
        for _ in range(8):
            answer = api.as_user().post("/v1/memories", json=memory())
            assert is_problem(answer, 503, "store-unavailable")
        assert api.as_user().get("/v1/memories").status_code == 200, "reading goes on: the breaker has not opened"
        connection.execute("GRANT INSERT ON memories TO orchestra_memory_api")
    api.store()


def test_more_than_it_can_do_is_shed_at_once_and_the_rest_is_answered(pair: Pair, tmp_path):
    prepared(pair.target, DIMENSION)
    with serve(pair.target, tmp_path, max_in_flight=4, pool_max=2) as api, psycopg.connect(pair.target) as holding:
        api.as_user()
        wait_for(api, "/readyz", 200)
        holding.execute("LOCK TABLE memories")
        with ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(api.as_user().get, "/v1/memories") for _ in range(20)]
            deadline = time.monotonic() + 5
            while sum(one.done() for one in asked) < 16 and time.monotonic() < deadline:
                time.sleep(0.01)
            shed = [one.result() for one in asked if one.done()]
            assert len(shed) == 16
            for answer in shed:
                assert is_problem(answer, 503, "busy")
                assert answer.headers["retry-after"] == "1"
            assert api.as_user(None).get("/healthz").status_code == 200
            holding.rollback()
            assert sorted(one.result().status_code for one in asked) == [200] * 4 + [503] * 16
        assert "orchestra_api_shed_requests_total 16.0" in api.as_user(None).get("/metrics").text


def test_on_sigterm_what_was_begun_is_finished_and_every_session_ends(pair: Pair, tmp_path):
    prepared(pair.target, DIMENSION)
    with process(pair.target, tmp_path, free_port()) as (running, api), psycopg.connect(pair.target) as holding:
        wait_for(api, "/readyz", 200)
        holding.execute("LOCK TABLE memories")
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(api.as_user().post("/v1/memories", json=memory())))
        asking.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        with psycopg.connect(pair.target, autocommit=True) as looking:
            while looking.execute(waiting).fetchone() == (0,):
                time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        while not refuses(api):
            time.sleep(0.01)
        holding.rollback()
        asking.join(10)
        assert answers[0].status_code == 201, "it had been taken before the signal"
        assert running.wait(10) == -signal.SIGTERM, "once everything is finished it ends as it was told"
    with psycopg.connect(pair.target) as connection:
        ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orchestra-memory-api' AND datname = current_database()"  # noqa: E501
        assert connection.execute(ours).fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM memories").fetchone() == (1,)


def refuses(api: Api) -> bool:
    """Whether nobody listens any more."""
    try:
        httpx.get(f"{api.url}/healthz", trust_env=False)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False  # taken by the kernel's queue just before the listener went with it
    return False


def test_a_service_with_a_wrong_setting_does_not_start(tmp_path):
    environment = {**os.environ, "ORCHESTRA_API_DSN": "dbname=secret password=hidden1", "ORCHESTRA_API_POL_MAX": "3"}
    ended = subprocess.run(
        [sys.executable, "-m", "orchestra_lib.service"], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == ParameterError.exit_code
    assert "ORCHESTRA_API_POL_MAX: there is no such setting" in ended.stderr
    assert "hidden1" not in ended.stderr
