"""A service over an empty store of small vectors, answering in a thread of the tests' process."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from service.serving import DIMENSION, Api, prepared, serve

from orchestra_lib.local import databases


@pytest.fixture(scope="session")
def _served(servers: databases.LocalState, tmp_path_factory) -> Iterator[Api]:
    conninfo = servers.databases["target"].conninfo
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("CREATE DATABASE service_tests")
    dsn = f"{conninfo} dbname=service_tests"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    prepared(dsn, DIMENSION)
    with serve(dsn, tmp_path_factory.mktemp("service"), tools=True) as api:
        yield api
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("DROP DATABASE service_tests WITH (FORCE)")


@pytest.fixture
def api(_served: Api) -> Api:
    """One service for all tests, and for each of them with nothing in it."""
    with psycopg.connect(_served.dsn, autocommit=True) as connection:
        connection.execute("TRUNCATE memories, orchestra_api.idempotency_keys")
    return _served
