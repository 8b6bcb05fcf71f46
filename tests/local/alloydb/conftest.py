"""A control plane and its AlloyDB data plane: two real processes, one pair for the session, one project."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alloydb_planes import OPERATOR_PASSWORD, Planes, furnish
from google.oauth2.credentials import Credentials

from orchestra_lib.cloud import database
from orchestra_lib.local.alloydb import program
from orchestra_lib.local.control import process


@pytest.fixture(scope="session")
def planes() -> Iterator[Planes]:
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


Connect = Callable[..., psycopg.Connection]


@pytest.fixture
def connect(planes: Planes) -> Iterator[Connect]:
    """Connects to an instance through the official connector; every session is closed at the end."""
    plane = planes.start()
    open_sessions = []
    with database.connector(
        Credentials(planes.token), endpoint=plane.endpoint, ca_file=Path(plane.ca_file)
    ) as connector:

        def connected(instance: str, user: str = "postgres", password: str | None = OPERATOR_PASSWORD, **more: Any):
            through = more.pop("through", connector)
            session = database.connect_instance(instance, user, "postgres", through=through, password=password)
            open_sessions.append(session)
            return session

        yield connected
        for session in open_sessions:
            session.close()
