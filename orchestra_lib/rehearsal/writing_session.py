"""One session of the rehearsal's writer: prepared statements with values in binary form, and an answer in time or none.

It speaks libpq's asynchronous interface itself: a caller must not wait for ever where packets vanish, and a thousand
writes a second leave little time for converting values that are bytes already.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence

import psycopg
from psycopg import pq, sql
from psycopg.pq.abc import PGresult

from orchestra_lib.database import Address, connect
from orchestra_lib.memory.schema import COLUMNS
from orchestra_lib.rehearsal.written import Lives, State, Verb

_ANSWER_SECONDS = 10.0
_FAILED = frozenset({pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE})
_CHANGED = {
    Verb.METADATA: ("metadata", "version", "updated_at"),
    Verb.CONTENT: ("content", "metadata", "version", "updated_at"),
    Verb.VECTOR: ("embedding", "metadata", "version", "updated_at"),
}
_LOOK = "look"


class Refused(Exception):
    """The server answered with an error: nothing was written. ``sqlstate`` says which."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{message} ({sqlstate})")
        self.sqlstate = sqlstate


class ConnectionLost(Exception):
    """The connection ended, or stayed silent for too long, before the answer."""


class WritingSession:
    """An open session, writes and look-ups prepared."""

    def __init__(self, address: Address, table: str, lives: Lives, application_name: str) -> None:
        """Open it. Raises TargetUnreachable, Refused when the table cannot be used, ConnectionLost."""
        self._lives = lives
        self._connection = connect(address, role="written", application_name=application_name)
        self._wire = self._connection.pgconn
        info = self._connection.info
        self.place = f"{info.dbname} at {info.host}:{info.port}"
        """Where it writes, as far as it may be shown."""
        try:
            for name, statement in _statements(sql.Identifier(*table.split("."))).items():
                self._wire.send_prepare(name.encode(), statement.as_bytes(self._connection))
                self._answer()
        except (Refused, ConnectionLost, psycopg.Error) as error:
            self.close()
            if isinstance(error, psycopg.Error):
                raise ConnectionLost(str(error).strip()) from error
            raise

    def close(self) -> None:
        """End the session without a word: the server finds out by itself."""
        self._connection.close()

    def write(self, verb: Verb, before: State, after: State) -> bool:
        """Do one step of a key; returns whether there was the row that it is for. Raises Refused, ConnectionLost."""
        id_, version = self._lives.id(before.key).encode(), before.version.to_bytes(8)
        if verb is Verb.DELETE:
            values: Sequence[bytes | None] = (id_, version)
        elif verb is Verb.INSERT:
            values = tuple(self._lives.values(after).values())
        else:
            written = self._lives.values(after)
            values = (id_, version, *(written[column] for column in _CHANGED[verb]))
        return self._execute(verb, values).command_tuples == 1

    def step_of(self, key: int) -> str | None:
        """The step that the key's row says it is at; None if there is no row. Raises Refused, ConnectionLost."""
        result = self._execute(_LOOK, (self._lives.id(key).encode(),))
        return bytes(result.get_value(0, 0) or b"").decode() if result.ntuples else None

    def end_others(self, prefix: str) -> None:
        """End our sessions whose name begins so, but this one, and see them gone. Raises Refused, ConnectionLost.

        A lost session's server process may still have a write to finish: nobody must look before it has.
        """
        self._wire.send_query_params(
            b"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            b"WHERE starts_with(application_name, $1) AND pid <> pg_backend_pid() AND usename = current_user",
            [prefix.encode()],
        )
        self._answer()

    def _execute(self, name: str, values: Sequence[bytes | None]) -> PGresult:
        try:
            self._wire.send_query_prepared(name.encode(), values, [pq.Format.BINARY] * len(values), pq.Format.TEXT)
        except psycopg.Error as error:
            raise ConnectionLost(str(error).strip()) from error
        return self._answer()

    def _answer(self) -> PGresult:
        """The result of what was sent. Raises Refused, ConnectionLost."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        answer: PGresult | None = None
        try:
            self._flush(deadline)
            while True:
                while self._wire.is_busy():
                    self._wait(select.POLLIN, deadline)
                    self._wire.consume_input()
                result = self._wire.get_result()
                if result is None:
                    break
                answer = result
        except psycopg.Error as error:
            raise ConnectionLost(str(error).strip()) from error
        if self._wire.status != pq.ConnStatus.OK or answer is None:
            raise ConnectionLost(self._wire.error_message.decode(errors="replace").strip() or "no answer")
        if answer.status in _FAILED:
            state, message = map(answer.error_field, (pq.DiagnosticField.SQLSTATE, pq.DiagnosticField.MESSAGE_PRIMARY))
            raise Refused((state or b"").decode(), (message or b"").decode(errors="replace"))
        return answer

    def _flush(self, deadline: float) -> None:
        while self._wire.flush():
            if self._wait(select.POLLIN | select.POLLOUT, deadline) & select.POLLIN:
                self._wire.consume_input()

    def _wait(self, events: int, deadline: float) -> int:
        poll = select.poll()
        poll.register(self._wire.socket, events)
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1_000)
        if not ready:
            raise ConnectionLost(f"no answer within {_ANSWER_SECONDS:g} s")
        return ready[0][1]


def _statements(table: sql.Identifier) -> dict[str, sql.Composed]:
    """Name -> statement. Changes name the version that they are for, so a late one finds nothing to change."""
    columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    values = sql.SQL(", ").join(sql.SQL(f"${number}") for number in range(1, len(COLUMNS) + 1))
    statements = {
        Verb.INSERT: sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(table, columns, values),
        Verb.DELETE: sql.SQL("DELETE FROM {} WHERE id = $1 AND version = $2").format(table),
        _LOOK: sql.SQL("SELECT metadata->>'step' FROM {} WHERE id = $1").format(table),
    }
    for verb, changed in _CHANGED.items():
        changes = sql.SQL(", ").join(
            sql.SQL("{} = {}").format(sql.Identifier(column), sql.SQL(f"${number}"))
            for number, column in enumerate(changed, start=3)
        )
        statements[verb] = sql.SQL("UPDATE {} SET {} WHERE id = $1 AND version = $2").format(table, changes)
    return statements
