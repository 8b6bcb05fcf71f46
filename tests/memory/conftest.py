"""A source whose log can be followed: a database of its own on a server that writes a logical log."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from orchestra_lib.local import postgres

_DATABASE = "followed"


@pytest.fixture(scope="session")
def logical_server() -> Iterator[str]:
    directory = Path(tempfile.mkdtemp(prefix="orchestra-logical-"))
    directory.chmod(0o755)
    settings = {**postgres.SETTINGS, "wal_level": "logical"}
    try:
        yield postgres.start(directory / "source", "the tests' source", settings).conninfo()
    finally:
        postgres.stop(directory / "source", "the tests' source")
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def followed_database(logical_server: str) -> str:
    """One for all tests: to make and drop one takes longer than most of them."""
    conninfo = f"{logical_server} dbname={_DATABASE}"
    with psycopg.connect(logical_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {_DATABASE}")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    return conninfo


@pytest.fixture
def followed(followed_database: str) -> Iterator[str]:
    """The connection string of a source without tables, publications and slots, and without them again afterwards."""
    yield followed_database
    with psycopg.connect(followed_database, autocommit=True) as connection:
        _drop_slots(connection)
        for kind, names in (
            ("PUBLICATION", "SELECT quote_ident(pubname) FROM pg_publication"),
            (
                "TABLE",
                "SELECT quote_ident(relname) FROM pg_class "
                "WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
            ),
        ):
            for (name,) in connection.execute(names).fetchall():
                connection.execute(f"DROP {kind} {name}")


def _drop_slots(connection: psycopg.Connection) -> None:
    """Drop the slots of the database, with those who read them."""
    deadline = time.monotonic() + 10
    while slots := connection.execute(
        "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s", [_DATABASE]
    ).fetchall():
        for slot, pid in slots:
            if pid is None:
                connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            else:
                connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        assert time.monotonic() < deadline, f"the slots {slots} are still there"
