"""Load on a real PostgreSQL: what a stall does to it, which failures it tells apart, and the server's own time."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest
from pgvector import Vector
from psycopg import sql
from stores import fill, unit_vectors

from orchestra_lib.bench.load import Load, run_load
from orchestra_lib.bench.sql_load import SqlRequests
from orchestra_lib.errors import TargetUnreachable

NEAREST = sql.SQL("SELECT id FROM memories ORDER BY embedding <=> %b LIMIT 10")
# One caller may hold all the others up, as a checkpoint, a lock or a vacuum does.
HOLD = """
CREATE FUNCTION hold(seconds float8) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    IF seconds > 0 THEN
        PERFORM pg_advisory_xact_lock(7);
        PERFORM pg_sleep(seconds);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(7);
    END IF;
    RETURN 1;
END $$
"""


def execute(conninfo: str, *statements: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_server_that_stands_still_for_a_second_is_felt_by_every_request_that_is_due_meanwhile(pair):
    execute(pair.target, HOLD)
    load = Load(100, 2.0, seed=2, workers=2)
    culprit = 50
    seconds = [[0.0]] * culprit + [[1.0]] + [[0.0]] * load.arrivals().size
    run = run_load(load, SqlRequests(pair.target, sql.SQL("SELECT hold(%s)"), seconds))
    start, end = run.sent[culprit], run.done[culprit]
    stalled = (run.intended > start) & (run.intended < end)
    assert end - start >= 1.0
    assert stalled.sum() == ((load.arrivals() > start) & (load.arrivals() < end)).sum() > 70, "none of them is left out"
    assert (run.latency_ms[stalled] >= (end - run.intended[stalled]) * 1e3 - 20).all(), "each waits for the end"
    assert run.p95.value > 500
    # What a closed loop would have told: the one that was under way, and the culprit.
    assert (run.service_ms > 500).sum() <= load.workers
    assert np.quantile(run.service_ms, 0.95) < 100
    assert run.failures == {}


def test_the_servers_own_time_comes_with_every_answer(pair):
    fill(pair.target, 300)
    queries = [[Vector(vector)] for vector in unit_vectors(20, seed=1)]
    run = run_load(Load(80, 0.5, seed=3, workers=2), SqlRequests(pair.target, NEAREST, queries, wanted_rows=10))
    assert run.failures == {}
    assert run.short_answers == 0
    assert ((run.server_ms > 0) & (run.server_ms < run.service_ms)).all()
    slept = run_load(
        Load(1, 0.2, seed=0, workers=1),
        SqlRequests(pair.target, sql.SQL("SELECT pg_sleep(%s)::text"), [[0.05]]),
        intended=np.array([0.0, 0.1]),
    )
    assert (slept.server_ms >= 50).all()
    assert (slept.client_ms < 50).all()


def test_failures_are_told_apart_and_a_lost_session_is_opened_again(pair):
    statement = sql.SQL(
        "SELECT CASE %(v)s WHEN 'slow' THEN pg_sleep(1)::text "
        "WHEN 'die' THEN pg_terminate_backend(pg_backend_pid())::text ELSE (1 / %(v)s::int)::text END"
    )
    # Six requests warm a session up; they are the first ones.
    values = ["1"] * 6 + ["0", "slow", "die", "1"] * 5
    requests = SqlRequests(pair.target, statement, [{"v": value} for value in values], time_limit_ms=100)
    run = run_load(Load(1, 0.1, seed=0, workers=2), requests, intended=np.zeros(len(values)))
    # The time limit is the session's, too; what was due at once is not given up as long as it can be sent.
    assert run.failures == {"AdminShutdown": 5, "DivisionByZero": 5, "QueryCanceled": 5}
    assert run.answered.sum() == len(values) - 15, "a session that was lost serves again"
    assert np.isinf(run.latency_ms[~run.answered]).all()


def test_an_answer_with_too_few_rows_is_short(pair):
    fill(pair.target, 4)
    queries = [[Vector(vector)] for vector in unit_vectors(2, seed=1)]
    requests = SqlRequests(pair.target, NEAREST, queries, wanted_rows=10)
    run = run_load(Load(1, 0.1, seed=0, workers=1), requests, intended=np.zeros(5))
    assert run.short_answers == run.requests == run.answered.sum() == 5


def test_settings_are_those_of_the_session(pair):
    requests = SqlRequests(
        pair.target,
        sql.SQL("SELECT 1 / (current_setting('ivfflat.probes')::int - %s)"),
        [[3]],
        {"ivfflat.probes": "7"},
    )
    assert run_load(Load(1, 0.1, seed=0, workers=1), requests, intended=np.zeros(2)).failures == {}


def test_what_cannot_work_is_said_before_the_load_starts(pair):
    load = Load(100, 60, seed=0, workers=2)
    with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
        run_load(load, SqlRequests(pair.target, sql.SQL("SELECT 1 FROM nowhere"), [[]]))
    with pytest.raises(TargetUnreachable, match="cannot be reached"):
        run_load(load, SqlRequests("host=/nowhere dbname=none", sql.SQL("SELECT 1"), [[]]))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="probes"):
        run_load(load, SqlRequests(pair.target, sql.SQL("SELECT 1"), [[]], {"ivfflat.probes": "0"}))
