"""How often a request waits for the database, seen on a network where each wait takes a tenth of a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from faults.network import Conditions, Network
from service.serving import Api, memory, serve

ONE_WAY_SECONDS = 0.05
ROUND_TRIP_SECONDS = 2 * ONE_WAY_SECONDS


@pytest.fixture
def far(api: Api, tmp_path) -> Iterator[httpx.Client]:
    """A client of a service that is far from its database, with every session opened and every statement prepared."""
    socket = dict(part.split("=", 1) for part in api.dsn.split())
    path = f"{socket['host']}/.s.PGSQL.{socket.get('port', '5432')}"
    with Network(path) as network, serve(network.conninfo(api.dsn), tmp_path, pool_min=1, pool_max=1) as service:
        client = service.as_user()
        for _ in range(8):  # psycopg prepares a statement when it comes for the sixth time
            for ask in ASKED.values():
                assert ask(client).is_success
        network.to_server = network.to_client = Conditions(latency_seconds=ONE_WAY_SECONDS)
        yield client


ASKED: dict[str, Callable[[httpx.Client], httpx.Response]] = {
    "search": lambda client: client.post("/v1/search", json={"embedding": [0.1, 0.2, 0.3]}),
    "list": lambda client: client.get("/v1/memories"),
    "history": lambda client: client.get("/v1/sessions/session/history"),
    "store": lambda client: client.post("/v1/memories", json=memory()),
}
WAITS = {"search": 1, "list": 1, "history": 1, "store": 2}
"""A write hears that it was done before it is committed."""


def test_a_read_is_one_way_to_the_database_and_back(far: httpx.Client):
    for name, ask in ASKED.items():
        took = []
        for _ in range(3):
            began = time.perf_counter()
            assert ask(far).is_success
            took.append((time.perf_counter() - began) / ROUND_TRIP_SECONDS)
        assert WAITS[name] <= min(took) < WAITS[name] + 0.9, f"{name}: {took}"
