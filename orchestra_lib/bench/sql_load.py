"""Load on a database: one prepared statement, results in binary, other parameters with every request.

The server's own time comes with each answer: the statement tells how long it has been running when its last row comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from orchestra_lib.bench.prepared import Parameters, PreparedStatement
from orchestra_lib.bench.samples import Outcome, Worker
from orchestra_lib.database import Address, connect
from orchestra_lib.errors import TargetUnreachable

UNREACHABLE = "TargetUnreachable"
"""The failure of a request whose session was lost and could not be opened again."""
_WARM_UPS = 6
"""The server plans a prepared statement anew five times before it settles on one plan."""


@dataclass(frozen=True)
class SqlRequests:
    """A ``make_worker`` for ``run_load``: request n runs the statement with parameters n, modulo how many there are.

    ``settings`` are set in each session. An answer with fewer than ``wanted_rows`` rows is short. With
    ``server_time`` the statement is wrapped by ``timed``. Failures have the names of psycopg's error classes; a session
    that was lost is opened again for the next request.
    """

    address: Address
    statement: sql.Composable
    parameters: Sequence[Parameters]
    settings: Mapping[str, str] = field(default_factory=dict)
    wanted_rows: int = 0
    time_limit_ms: float | None = None
    server_time: bool = True

    @contextmanager
    def __call__(self) -> Iterator[Worker]:
        """Open a session and prepare the statement in it. Raises TargetUnreachable, and what the server refuses."""
        session = _Session(self)
        try:
            session.warm_up()
            yield session.ask
        finally:
            session.close()


def timed(statement: sql.Composable) -> sql.Composed:
    """The statement with one more column, the last: the milliseconds that the server has worked on it by then.

    Planning is not in it: a prepared statement is planned before it is executed, once its plan is settled not at all.
    """
    # statement_timestamp() is when the server got the message to execute, clock_timestamp() when it makes this row.
    return sql.SQL(
        "SELECT timed.*, extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 * 1e3 FROM ({}) AS timed"
    ).format(statement)


class _Session:
    """A session with a prepared statement, opened again when it was lost."""

    def __init__(self, requests: SqlRequests) -> None:
        self._requests = requests
        self._statement = timed(requests.statement) if requests.server_time else requests.statement
        self._connection = self._open()

    def _open(self) -> psycopg.Connection:
        connection = connect(self._requests.address, application_name="orchestra-load")
        settings = dict(self._requests.settings)
        if self._requests.time_limit_ms is not None:
            settings["statement_timeout"] = f"{self._requests.time_limit_ms:.0f}ms"
        if any(name.split(".")[0] in ("ivfflat", "hnsw") for name in settings):
            connection.execute("LOAD 'vector'")  # before, the server takes any text for the extension's settings
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        self._prepared = PreparedStatement(connection, self._statement)
        return connection

    def warm_up(self) -> None:
        """Run the statement until its plan is settled."""
        for number in range(_WARM_UPS):
            self._rows(number)

    def ask(self, number: int) -> Outcome:
        """Run request ``number``."""
        try:
            if self._connection.closed:
                self._connection = self._open()
            rows = self._rows(number)
        except TargetUnreachable:
            return Outcome(UNREACHABLE)
        except psycopg.Error as error:
            return Outcome(type(error).__name__)
        server_ms = rows[-1][-1] if rows and self._requests.server_time else None
        return Outcome(None, len(rows) < self._requests.wanted_rows, server_ms)

    def _rows(self, number: int) -> list[tuple[Any, ...]]:
        parameters = self._requests.parameters[number % len(self._requests.parameters)]
        return self._prepared(parameters)

    def close(self) -> None:
        """End the session."""
        self._connection.close()
