"""Real servers for the tests, each pair made once a session and only if a test wants it.

Two PostgreSQL with an empty database of its own for each test; a control plane with the local AlloyDB's data plane.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import hypothesis
import psycopg
import pytest
from alloydb_planes import Planes, furnish
from stores import Pair

from orchestra_lib.local import databases
from orchestra_lib.local.alloydb import program
from orchestra_lib.local.control import process

_numbers = count(1)

# An example that takes long says that the machine is busy: two workers share it with the servers of their tests.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


_LONGEST_FIRST = (
    "test_notebooks.py",
    "test_workstations_runbook.py",
    "test_papermill_engine.py",
    "test_memory_phase.py",
    "test_memory_resume.py",
    "test_migrate.py",
)
"""Files that take a minute or more: begun last, one of two workers would wait for the other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def servers() -> Iterator[databases.LocalState]:
    # Not under pytest's tmp_path: the server's user must be able to enter every folder above its data.
    directory = Path(tempfile.mkdtemp(prefix="orchestra-tests-"))
    directory.chmod(0o755)
    try:
        yield databases.up(directory, names=("source", "target"))
    finally:
        databases.down(directory)
        shutil.rmtree(directory)


@pytest.fixture
def pair(servers: databases.LocalState) -> Iterator[Pair]:
    name = f"test_{next(_numbers)}"
    conninfos = {role: database.conninfo for role, database in servers.databases.items()}
    for conninfo in conninfos.values():
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        with psycopg.connect(conninfo, dbname=name, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
    yield Pair(**{role: f"{conninfo} dbname={name}" for role, conninfo in conninfos.items()})
    for conninfo in conninfos.values():
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def planes() -> Iterator[Planes]:
    """The local AlloyDB: two real processes, one project."""
    # Not under pytest's tmp_path: the server's user must be able to enter every folder above its data.
    state = Path(tempfile.mkdtemp(prefix="orchestra-alloydb-"))
    state.chmod(0o755)
    directory = process.directory(state)
    directory.mkdir(parents=True)
    operator, token = furnish(directory)
    try:
        control = process.up(state, latency="0")
        found = Planes(directory, control.url, Path(control.token_file), state / "authority", operator, token)
        found.start()
        yield found
    finally:
        program.down(directory)
        process.down(state)
        shutil.rmtree(state)
