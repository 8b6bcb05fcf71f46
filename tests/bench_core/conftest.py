"""A server that these tests may restart, and that logs every statement in both of PostgreSQL's structured formats."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from orchestra_lib.local import postgres

_SETTINGS = {
    **postgres.SETTINGS,
    "logging_collector": "on",
    "log_destination": "csvlog,jsonlog",
    "log_directory": "logged",
    "log_filename": "queries.log",
    "log_min_duration_statement": "0",
}


@dataclass
class OwnServer:
    """A server of its own: where it is, its data, and a way to restart it."""

    data: Path
    conninfo: str

    def restart(self) -> None:
        """Stop it in order and start it again."""
        postgres.stop(self.data, "the tests' own server")
        self.conninfo = postgres.start(self.data, "the tests' own server", _SETTINGS).conninfo()


@pytest.fixture(scope="session")
def own_server() -> Iterator[OwnServer]:
    directory = Path(tempfile.mkdtemp(prefix="orchestra-bench-tests-"))
    directory.chmod(0o755)
    server = OwnServer(directory / "own", "")
    try:
        server.restart()
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        yield server
    finally:
        postgres.stop(server.data, "the tests' own server")
        shutil.rmtree(directory)
