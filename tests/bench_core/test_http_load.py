"""Load on a real HTTP server, over HTTP/1.1 and over HTTP/2 in cleartext."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import asynccontextmanager, contextmanager

import numpy as np
import pytest
import uvicorn
from http2_server import Http2

from orchestra_lib.bench.http_load import CONNECTION_LOST, NO_CONNECTION, TIME_OUT, HttpRequests
from orchestra_lib.bench.load import Load, run_load_async
from orchestra_lib.bench.samples import NOT_SENT, Outcome

MIXED = [
    {"method": "GET", "url": "/"},
    {"method": "GET", "url": "/status/503"},
    {"method": "POST", "url": "/", "json": {"k": 10}},
    {"method": "GET", "url": "/slow"},
]


async def application(scope, receive, send):
    """Answers with its own time, with a status that the path names, or not within anybody's patience."""
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    status = int(scope["path"].rpartition("/")[2] or 200)
    headers = [(b"server-timing", b"db;dur=1.5, total;dur=2.25")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"rows": []}'})


@contextmanager
def served():
    """The application on a free port, in a thread; yields its address."""
    server = uvicorn.Server(
        uvicorn.Config(application, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_failures_are_told_apart_and_the_servers_own_time_is_read():
    with served() as url:
        requests = HttpRequests(
            url, MIXED, timeout_seconds=0.25, is_short=lambda answer: json.loads(answer.body)["rows"] == []
        )
        run = asyncio.run(run_load_async(Load(100, 0.5, seed=1, workers=40), requests))
    kind = np.arange(run.requests) % 4
    assert run.failures == {"HTTP 503": (kind == 1).sum(), TIME_OUT: (kind == 3).sum()}
    assert run.answered.sum() == run.short_answers == ((kind == 0) | (kind == 2)).sum()
    assert (run.server_ms[kind != 3] == 2.25).all()
    assert np.isnan(run.server_ms[kind == 3]).all()
    assert np.median(run.schedule_lag_ms) < 50, "slow requests do not hold the others up while workers are free"


def test_http2_carries_requests_beside_each_other_on_one_connection():
    async def both():
        connections = []

        def accepted():
            connections.append(Http2())
            return connections[-1]

        server = await asyncio.get_running_loop().create_server(accepted, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            requests = HttpRequests(f"http://127.0.0.1:{port}", MIXED[:1], http2=True)
            return await run_load_async(Load(200, 0.5, seed=1, workers=20), requests), len(connections)

    run, connections = asyncio.run(both())
    assert run.failures == {}
    assert connections == 1
    assert (run.server_ms == 0.5).all()


class HangsUp(asyncio.Protocol):
    """Answers the first request of a connection and closes it when the second one comes."""

    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    served = 0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, _data):
        self.served += 1
        if self.served == 1:
            self.transport.write(self.ANSWER)
        else:
            self.transport.close()


def test_a_connection_that_is_lost_is_a_failure_though_the_client_would_ask_again_by_itself():
    async def both():
        server = await asyncio.get_running_loop().create_server(HangsUp, "127.0.0.1", 0)
        async with server:
            requests = HttpRequests(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", MIXED[:1])
            return await run_load_async(Load(100, 0.5, seed=1, workers=1), requests)

    run = asyncio.run(both())
    assert run.failures == {CONNECTION_LOST: run.failures[CONNECTION_LOST]}
    assert 0 < run.answered.sum() < run.requests


def test_nobody_there_is_a_failure_of_each_request():
    run = asyncio.run(run_load_async(Load(50, 0.2, seed=1, workers=5), HttpRequests("http://127.0.0.1:9", MIXED[:1])))
    assert run.failures == {NO_CONNECTION: run.requests}
    assert run.achieved_per_second == 0
    assert run.p50.value == np.inf


class Stalling:
    """From the 20th request on, everything that comes within half a second is answered at the end of it."""

    def __init__(self) -> None:
        self.until = 0.0
        self.cancelled = 0

    @asynccontextmanager
    async def __call__(self):
        async def ask(number: int) -> Outcome:
            if number == 20:
                self.until = time.monotonic() + 0.5
            try:
                await asyncio.sleep(max(0.0, self.until - time.monotonic()))
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return Outcome()

        yield ask


def test_a_stall_is_felt_by_every_request_that_is_due_meanwhile():
    run = asyncio.run(run_load_async(Load(200, 1.0, seed=2, workers=3), Stalling()))
    start, end = run.sent[20], run.done[20]
    stalled = (run.intended > start) & (run.intended < end)
    assert stalled.sum() > 70
    assert (run.latency_ms[stalled] >= (end - run.intended[stalled]) * 1e3 - 5).all()
    assert (run.service_ms > 250).sum() <= 3, "a closed loop would have told of three"


def test_what_cannot_be_sent_within_its_time_limit_is_given_up():
    run = asyncio.run(run_load_async(Load(200, 1.0, seed=2, workers=3, time_limit_ms=100), Stalling()))
    assert run.failures[NOT_SENT] > 40
    assert np.nanmax(run.schedule_lag_ms) <= 100


def test_requests_are_sent_on_time_though_an_event_loops_timers_are_late():
    async def run_idle():
        return await run_load_async(Load(200, 0.5, seed=3, workers=10), Immediate())

    run = asyncio.run(run_idle())
    assert np.quantile(run.generator_lag_ms, 0.25) < 1.0


class Immediate:
    """Answers at once."""

    @asynccontextmanager
    async def __call__(self):
        async def ask(number: int) -> Outcome:
            return Outcome()

        yield ask


def test_a_run_that_is_cancelled_takes_its_requests_along():
    stalling = Stalling()

    async def cancelled():
        task = asyncio.create_task(run_load_async(Load(200, 60.0, seed=2, workers=3), stalling))
        while not stalling.until:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert stalling.cancelled == 3
    assert not [thread for thread in threading.enumerate() if thread.name == "load-clock"]


def test_what_is_no_failure_of_a_request_ends_the_run():
    class Wrong:
        @asynccontextmanager
        async def __call__(self):
            async def ask(number: int) -> Outcome:
                raise KeyError("a mistake in the test's own worker")

            yield ask

    with pytest.raises(KeyError, match="a mistake"):
        asyncio.run(run_load_async(Load(200, 60.0, seed=2, workers=3), Wrong()))
