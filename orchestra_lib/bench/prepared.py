"""A statement that is measured: prepared once, asked again and again, parameters and rows in binary, nothing else.

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

import psycopg
from psycopg import sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.generators import execute
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

Parameters = Sequence[Any] | Mapping[str, Any]
# Everything that psycopg takes for a placeholder; it does not look whether it stands in a literal either.
_PLACEHOLDER = re.compile(rb"%(?:(?P<percent>%)|(?:\((?P<name>[^)]+)\))?(?P<format>[sbt]))")
_numbers = count(1)


class Prepared:
    """One statement in one session, which has to be in autocommit; its placeholders are those of psycopg.

    Values of another type than before are prepared for once more, as the server wants it.
    """

    def __init__(self, connection: psycopg.Connection, statement: sql.Composable) -> None:
        if not connection.autocommit:
            raise ValueError("the session has to be in autocommit: nothing here begins or ends a transaction")
        self._connection = connection
        self._transformer = Transformer(connection)
        self._keys: list[str | int] = []
        self._formats: list[PyFormat] = []
        self._text = _PLACEHOLDER.sub(self._numbered, statement.as_bytes(connection))
        self._names: dict[tuple[int, ...], bytes] = {}

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
        given: Any = parameters  # a sequence by positions, a mapping by names
        values: Any = self._transformer.dump_sequence([given[key] for key in self._keys], self._formats)
        types = self._transformer.types or ()
        name = self._names.get(types) or self._prepare(types)
        self._connection.pgconn.send_query_prepared(name, values, self._transformer.formats, Format.BINARY)
        answer = self._answer(ExecStatus.TUPLES_OK)
        self._transformer.set_pgresult(answer)
        return self._transformer.load_rows(0, answer.ntuples, tuple)

    def _prepare(self, types: tuple[int, ...]) -> bytes:
        name = b"measured_%d" % next(_numbers)
        self._connection.pgconn.send_prepare(name, self._text, types)
        self._answer(ExecStatus.COMMAND_OK)
        self._names[types] = name
        return name

    def _answer(self, wanted: ExecStatus) -> PGresult:
        connection = self._connection
        # Not libpq's own wait: it keeps the interpreter lock, and a connector's tunnel is a thread of this process.
        answer: PGresult = connection.wait(execute(connection.pgconn))[0]
        if answer.status != wanted:
            raise error_from_result(answer, connection.info.encoding)
        return answer
