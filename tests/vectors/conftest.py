"""A database that the tests of one module share, for what is slow to make and left as it was found."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from orchestra_lib.local import databases


@pytest.fixture(scope="module")
def lasting_database(servers: databases.LocalState, request: pytest.FixtureRequest) -> Iterator[str]:
    conninfo, name = servers.databases["target"].conninfo, request.module.__name__
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(conninfo, dbname=name, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    yield f"{conninfo} dbname={name}"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
