"""The official connector on the local AlloyDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alloydb_planes import OPERATOR_PASSWORD, Planes
from google.oauth2.credentials import Credentials

from orchestra_lib.cloud import database

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
