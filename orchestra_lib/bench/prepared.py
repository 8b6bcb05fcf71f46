"""A statement that is measured: prepared once in a session and asked again and again, rows in binary, nothing else.

A cursor of psycopg works out anew with every request which statement it is. On the machine of the server that costs 30
to 40 us of processor time a request, which the server then lacks, and in a latency it looks like the server's.
Parameters and rows go through psycopg's own adapters here, and it waits as psycopg does: an interrupt ends it, and the
interpreter is free for other threads. https://www.psycopg.org/psycopg3/docs/api/pq.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg import sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

Parameters = Sequence[Any] | Mapping[str, Any]
# Everything that psycopg takes for a placeholder; it does not look whether it stands in a literal either.
_PLACEHOLDER = re.compile(rb"%(?:(?P<percent>%)|(?:\((?P<name>[^)]+)\))?(?P<format>[sbt]))")
_numbers = count(1)
# What each session has prepared, by text and types: asked once more, a statement has the plan that it settled on.
_names: WeakKeyDictionary[psycopg.Connection, dict[tuple[bytes, tuple[int, ...]], bytes]] = WeakKeyDictionary()


class PreparedStatement:
    """One statement in one session, which has to be in autocommit; its placeholders are those of psycopg.

    It stays prepared for as long as the session lasts. Values of other types than before are prepared for once more, as
    the server wants it, and so is all after a DEALLOCATE, which psycopg sends when a transaction was rolled back.
    """

    def __init__(self, connection: psycopg.Connection, statement: sql.Composable) -> None:
        if not connection.autocommit:
            raise ValueError("the session has to be in autocommit: nothing here begins or ends a transaction")
        self._connection = connection
        self._transformer = Transformer(connection)
        self._keys: list[str | int] = []
        self._formats: list[PyFormat] = []
        self._text = _PLACEHOLDER.sub(self._numbered, statement.as_bytes(connection))
        self._names = _names.setdefault(connection, {})

    def _numbered(self, found: re.Match[bytes]) -> bytes:
        if found["percent"]:
            return b"%"
        key = found["name"].decode() if found["name"] else len(self._keys)
        if key not in self._keys:
            self._keys.append(key)
            self._formats.append(PyFormat(found["format"].decode()))
        return b"$%d" % (self._keys.index(key) + 1)

    def __call__(self, parameters: Parameters) -> list[tuple[Any, ...]]:
        """The rows with these parameters. Raises psycopg's errors, by what the server says."""
        values: Any = self._transformer.dump_sequence(self._ordered(parameters), self._formats)
        types = self._transformer.types or ()
        try:
            answer = self._asked(types, values)
        except InvalidSqlStatementName:
            self._names.clear()
            answer = self._asked(types, values)
        self._transformer.set_pgresult(answer)
        return self._transformer.load_rows(0, answer.ntuples, tuple)

    def _ordered(self, parameters: Parameters) -> list[Any]:
        given: Any = parameters
        if not isinstance(given, Mapping) and len(given) != len(self._keys):
            raise psycopg.ProgrammingError(f"the statement has {len(self._keys)} placeholders, not {len(given)}")
        try:
            return [given[key] for key in self._keys]
        except KeyError as error:
            raise psycopg.ProgrammingError(f"no value was given for the placeholder {error}") from error

    def _asked(self, types: tuple[int, ...], values: Any) -> PGresult:
        name = self._names.get((self._text, types)) or self._prepare(types)
        self._connection.pgconn.send_query_prepared(name, values, self._transformer.formats, Format.BINARY)
        return self._answer(ExecStatus.TUPLES_OK)

    def _prepare(self, types: tuple[int, ...]) -> bytes:
        name = b"measured_%d" % next(_numbers)
        self._connection.pgconn.send_prepare(name, self._text, types)
        self._answer(ExecStatus.COMMAND_OK)
        self._names[self._text, types] = name
        return name

    def _answer(self, wanted: ExecStatus) -> PGresult:
        connection = self._connection
        # Not libpq's own wait: it keeps the interpreter lock, and a connector's tunnel is a thread of this process.
        answer: PGresult = connection.wait(execute(connection.pgconn))[0]
        if answer.status == wanted:
            return answer
        if answer.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(answer, connection.info.encoding)
        raise psycopg.ProgrammingError("the statement gives no rows: there is nothing to measure")
