"""Load from processes: what it offers, what it counts, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loaders import Misbehaving, Sleeping

from orchestra_lib.bench.load import Load, run_load
from orchestra_lib.bench.samples import NOT_SENT, Outcome, Sample, load_run
from orchestra_lib.errors import DataError, ParameterError

LOADERS = Path(__file__).parent / "loaders.py"


def test_every_request_is_sent_when_it_is_due_and_counted_once():
    load = Load(300, 0.5, seed=4, workers=2)
    run = run_load(load, Sleeping(failing=frozenset({5, 17})))
    assert np.array_equal(run.intended, load.arrivals())
    assert run.failures == {"Refused": 2}
    assert run.short_answers == sum(number % 10 == 1 for number in range(run.requests))
    assert (run.sent >= run.intended).all()
    assert np.isinf(run.latency_ms).nonzero()[0].tolist() == [5, 17]
    assert run.offered_per_second == pytest.approx(run.requests / 0.5)
    assert run.achieved_per_second == pytest.approx((run.requests - 2) / max(0.5, run.done.max()))
    assert np.median(run.generator_lag_ms) < 20, "a free worker sends on time"


def test_more_than_can_be_served_waits_and_the_wait_counts():
    # Two workers that take 10 ms serve 200 a second; 400 are offered, and nobody slows down for them.
    run = run_load(Load(400, 0.5, seed=4, workers=2), Sleeping(0.01))
    assert run.offered_per_second > 1.5 * run.achieved_per_second
    assert run.achieved_per_second <= 200
    assert np.median(run.service_ms) < 40, "each of them is served quickly"
    last_tenth = run.latency_ms[-run.requests // 10 :]
    assert last_tenth.min() > 300, "and yet the last ones have waited for those before them"
    assert run.failures == {}


def test_what_cannot_be_sent_within_its_time_limit_is_given_up_and_never_answered():
    run = run_load(Load(400, 0.5, seed=4, workers=2, time_limit_ms=50), Sleeping(0.01))
    assert run.failures[NOT_SENT] > run.requests / 4
    assert run.p95.value == np.inf
    assert np.nanmax(run.schedule_lag_ms) <= 50
    assert run.within_limit == np.mean(run.latency_ms <= 50) < 0.8


def test_intended_starts_can_be_given():
    due = np.array([0.0, 0.0, 0.1, 0.2])
    run = run_load(Load(1, 0.2, seed=0, workers=2), Sleeping(), intended=due)
    assert np.array_equal(run.intended, due)
    with pytest.raises(ValueError, match="ascend"):
        run_load(Load(1, 1, seed=0, workers=1), Sleeping(), intended=due[::-1])


@pytest.mark.parametrize(
    ("how", "raised", "words"),
    [
        ("dies", DataError, "died with exit code -9"),
        ("dies at once", DataError, r"did not start \(exit code -9\)"),
        ("is wrong", KeyError, "is wrong"),
        ("does not start", ConnectionRefusedError, "nobody is there"),
    ],
)
def test_a_worker_that_is_wrong_ends_the_run_and_the_others(how, raised, words):
    others = _load_workers(psutil.Process())  # what tests before this one have left
    with pytest.raises(raised, match=words):
        run_load(Load(50, 30, seed=1, workers=2), Misbehaving(how))
    assert set(_load_workers(psutil.Process())) <= set(others)


def test_a_worker_that_cannot_be_handed_over_is_refused():
    with pytest.raises(ParameterError, match="cannot be handed to another process"):
        run_load(Load(50, 1, seed=1, workers=1), lambda: threading.Lock())


@pytest.mark.slow
def test_processes_end_with_their_run_whether_it_is_interrupted_or_killed():
    # The first run is interrupted in the middle of requests that take a minute, the second one killed.
    process = subprocess.Popen([sys.executable, LOADERS, "60", "0.01"], stdout=subprocess.PIPE, text=True)
    try:
        interrupted = _started(process)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert not [worker for worker in interrupted if worker.is_running()]
        killed = _started(process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    _, alive = psutil.wait_procs(killed, timeout=10)
    assert not alive


def _started(process: subprocess.Popen) -> list[psutil.Process]:
    """The workers of a run in a process of its own, once they are at work."""
    assert process.stdout.readline() == "started\n"
    deadline = time.monotonic() + 30
    while len(workers := _load_workers(psutil.Process(process.pid))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # both are in the middle of a request, or waiting for one
    return workers


def _load_workers(process: psutil.Process) -> list[psutil.Process]:
    """The workers: children of the process from which they are forked."""
    return [
        worker
        for server in process.children()
        for worker in server.children()
        if worker.status() != psutil.STATUS_ZOMBIE
    ]


@given(
    st.lists(
        st.tuples(st.floats(0, 10), st.floats(0, 1), st.floats(0, 1), st.sampled_from([None, "Refused"])),
        min_size=1,
        max_size=30,
    )
)
def test_a_latency_counts_from_the_intended_start_and_a_failure_is_never_an_answer(requests):
    requests.sort(key=lambda request: request[0])
    due = np.array([request[0] for request in requests])
    samples = [
        Sample(number, at, at + lag, at + lag + took, Outcome(failure))
        for number, (at, lag, took, failure) in enumerate(requests)
    ]
    run = load_run(due, 10.0, 500.0, reversed(samples))
    failed = np.array([failure is not None for *_, failure in requests])
    expected = np.array([(lag + took) * 1e3 for _, lag, took, _ in requests])
    assert np.isinf(run.latency_ms[failed]).all()
    assert np.allclose(run.latency_ms[~failed], expected[~failed], atol=1e-6)
    assert run.within_limit == np.mean(run.latency_ms <= 500)
    assert run.achieved_per_second <= (~failed).sum() / 10.0
    assert (run.p50.value <= run.p95.value) or np.isinf(run.p95.value)
    assert run.histogram.unanswered == failed.sum()


def test_a_part_of_a_run_is_a_run():
    run = run_load(Load(1, 0.1, seed=0, workers=1), Sleeping(), intended=np.linspace(0, 0.1, 11))
    later = run.part(run.intended >= 0.05)
    assert later.requests == 6
    assert np.array_equal(later.latency_ms, run.latency_ms[-6:])
