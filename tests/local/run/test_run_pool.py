"""The instances of a revision: real processes, as many as its requests need, within its limits."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import pytest

from orchestra_lib.local.run import instance as instances
from orchestra_lib.local.run import pool as pools
from orchestra_lib.local.run.control_client import PENDING, Revision
from orchestra_lib.local.run.instance import Command, Instance, StartFailed
from orchestra_lib.local.run.pool import NoInstance, Pool
from orchestra_lib.local.run.probes import Probe

LISTENS = """
import os, signal, socket, sys
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    listener.accept()[0].close()
"""
CONNECTS = Probe(None, {}, 0, 10, 10, 1)


def revision(*, most=3, concurrency=2):
    return Revision(
        service="projects/p/locations/l/services/s",
        name="s-1",
        uid="u",
        state=PENDING,
        containers=({"ports": []},),
        digest="",
        service_account="",
        least=0,
        most=most,
        concurrency=concurrency,
        timeout_seconds=9,
        volumes=False,
    )


@pytest.fixture
def new_pool(tmp_path):
    """Builds pools; ``script`` is what an instance runs."""

    def built(script=LISTENS, arguments=(), idle_seconds=900, **limits):
        command = Command(
            (sys.executable, "-S", "-c", script, *arguments), dict(os.environ), tmp_path, tmp_path / "log"
        )

        async def launch(ended):
            started = await Instance.start(command, ended)
            await started.become_ready(CONNECTS)
            return started

        return Pool(revision(**limits), launch, idle_seconds)

    return built


def run(scenario, pool):
    """A scenario with a pool, which is closed at its end."""

    async def whole():
        try:
            await scenario(pool)
        finally:
            await pool.close()

    asyncio.run(whole())


async def until(happened):
    async with asyncio.timeout(10):
        while not happened():
            await asyncio.sleep(0.01)


def test_requests_start_as_many_instances_as_they_need_and_no_more(new_pool):
    async def scenario(pool):
        taken = await asyncio.gather(*(pool.acquire() for _ in range(5)))
        assert sorted(one.in_flight for one in pool.instances) == [1, 2, 2]
        assert (pool.counts.started, pool.counts.cold_starts) == (3, 3)
        for one in taken:
            pool.release(one)
        again = await pool.acquire()
        assert pool.counts.started == 3
        pool.release(again)

    run(scenario, new_pool())


def test_who_waits_gets_room_in_the_order_of_coming(new_pool):
    async def scenario(pool):
        order = []

        async def request(number):
            taken = await pool.acquire()
            order.append(number)
            assert taken.in_flight <= 2
            await asyncio.sleep(0.01)
            pool.release(taken)

        await asyncio.gather(*(request(number) for number in range(12)))
        assert order == list(range(12))

    run(scenario, new_pool(most=1))


def test_a_request_that_finds_no_room_in_time_is_429_and_one_that_left_takes_none(new_pool, monkeypatch):
    monkeypatch.setattr(pools, "_QUEUE_SECONDS", 0.2)
    monkeypatch.setattr(pools, "_QUEUE_STARTUPS", 0)

    async def scenario(pool):
        await pool.ensure_one()
        taken = await pool.acquire()
        left = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0.01)
        left.cancel()
        with pytest.raises(NoInstance, match="no available instance") as caught:
            await pool.acquire()
        assert caught.value.status == 429
        pool.release(taken)
        pool.release(await pool.acquire())
        assert (pool.counts.rejected, pool.instances[0].in_flight) == (1, 0)

    run(scenario, new_pool(most=1, concurrency=1))


def test_the_minimum_is_kept_and_what_is_idle_above_it_ends(new_pool):
    async def scenario(pool):
        pool.least = 1
        pool.tend()
        await until(lambda: len(pool.instances) == 1)
        taken = await asyncio.gather(*(pool.acquire() for _ in range(4)))
        for one in taken:
            pool.release(one)
        assert len(pool.instances) == 2
        await asyncio.sleep(0.06)
        pool.tend()
        assert len(pool.instances) == 1
        assert pool.counts.cold_starts == 1

    run(scenario, new_pool(idle_seconds=0.05))


def test_an_instance_that_is_lost_is_replaced(new_pool):
    async def scenario(pool):
        pool.least = 1
        pool.tend()
        await until(lambda: pool.instances)
        lost = pool.instances[0]
        os.kill(lost.pid, signal.SIGKILL)
        await until(lambda: pool.instances and pool.instances[0] is not lost)
        assert (pool.counts.lost, pool.counts.started) == (1, 2)

    run(scenario, new_pool())


def test_an_instance_that_does_not_start_fails_who_waits_and_is_not_started_at_once_again(new_pool):
    async def scenario(pool):
        with pytest.raises(NoInstance, match=r"exit\(4\)") as caught:
            await pool.acquire()
        assert caught.value.status == 503
        begun = time.monotonic()
        with pytest.raises(NoInstance, match=r"exit\(4\)"):
            await pool.acquire()
        assert time.monotonic() - begun < 0.1
        with pytest.raises(StartFailed):
            await pool.ensure_one()  # who deploys is told of a start of its own

    run(scenario, new_pool("raise SystemExit(4)"))


def test_an_instance_that_does_not_stop_is_killed(new_pool, monkeypatch):
    monkeypatch.setattr(instances, "_GRACE_SECONDS", 0.2)

    async def scenario(pool):
        await pool.ensure_one()
        process = pool.instances[0]
        begun = time.monotonic()
        pool.scale_in(0)
        await asyncio.shield(process.gone)
        assert time.monotonic() - begun >= 0.2

    run(scenario, new_pool(arguments=["deaf"]))
