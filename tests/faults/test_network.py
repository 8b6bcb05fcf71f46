"""The faulty network itself: each condition does what it says, and healing brings back what can be brought back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from network import Flow, Network

from orchestra_lib.local.databases import LocalState


@pytest.fixture
def network(servers: LocalState) -> Iterator[Network]:
    conninfo = servers.databases["source"].conninfo
    directory = conninfo.partition("host=")[2].split()[0]
    with Network(f"{directory}/.s.PGSQL.5432") as network:
        network.direct = conninfo
        yield network


def connected(network: Network) -> psycopg.Connection:
    return psycopg.connect(network.conninfo(network.direct), autocommit=True, connect_timeout=2)


def answers(connection: psycopg.Connection) -> bool:
    return connection.execute("SELECT 1").fetchone() == (1,)


def test_what_is_sent_arrives_unchanged(network: Network) -> None:
    text = "Zürich ☂" * 300_000
    with connected(network) as connection:
        assert connection.execute("SELECT %s", [text]).fetchone() == (text,)
    deadline = time.monotonic() + 5
    while network.connections and time.monotonic() < deadline:
        time.sleep(0.01)
    assert network.connections == 0


def test_a_cut_ends_every_connection_and_new_ones_are_accepted(network: Network) -> None:
    with connected(network) as one, connected(network) as other:
        network.cut()
        for connection in (one, other):
            with pytest.raises(psycopg.OperationalError):
                answers(connection)
    with connected(network) as connection:
        assert answers(connection)


def test_what_is_held_arrives_later(network: Network) -> None:
    with connected(network) as connection:
        network.change(flow=Flow.HOLD)
        threading.Timer(0.3, network.heal).start()
        started = time.monotonic()
        assert answers(connection)
        assert time.monotonic() - started >= 0.25


def test_one_direction_can_be_held_alone(network: Network, servers: LocalState) -> None:
    with connected(network) as connection, psycopg.connect(network.direct, autocommit=True) as direct:
        network.to_client = type(network.to_client)(flow=Flow.HOLD)
        connection.pgconn.send_query(b"CREATE TABLE arrived ()")
        connection.pgconn.flush()
        deadline = time.monotonic() + 5
        while direct.execute("SELECT to_regclass('arrived')").fetchone() == (None,):
            assert time.monotonic() < deadline
        direct.execute("DROP TABLE arrived")
        time.sleep(0.05)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        network.heal()
        while connection.pgconn.is_busy():  # to block in libpq would keep the network's thread from running
            connection.pgconn.consume_input()
            time.sleep(0.01)
        while connection.pgconn.get_result():
            pass


def test_a_connection_that_lost_bytes_is_silent_and_ends_when_healed(network: Network) -> None:
    with connected(network) as connection:
        network.change(flow=Flow.SWALLOW)
        threading.Timer(0.3, network.heal).start()
        started = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            answers(connection)
        assert time.monotonic() - started >= 0.25


def test_a_refusing_network_accepts_nobody_until_it_is_healed(network: Network) -> None:
    network.refusing = True
    with pytest.raises(psycopg.OperationalError):
        connected(network)
    network.heal()
    with connected(network) as connection:
        assert answers(connection)


def test_latency_delays_each_way_and_not_the_number_of_bytes(network: Network) -> None:
    with connected(network) as connection:
        network.change(latency_seconds=0.1)
        started = time.monotonic()
        assert answers(connection)
        assert 0.2 <= time.monotonic() - started < 1
        started = time.monotonic()
        connection.execute("SELECT repeat('x', 4000000)").fetchone()
        assert time.monotonic() - started < 2
        network.heal()


def test_bandwidth_limits_how_fast_bytes_arrive(network: Network) -> None:
    with connected(network) as connection:
        network.change(bytes_per_second=1_000_000)
        started = time.monotonic()
        connection.execute("SELECT repeat('x', 500000)").fetchone()
        assert 0.4 <= time.monotonic() - started < 3
        network.heal()
