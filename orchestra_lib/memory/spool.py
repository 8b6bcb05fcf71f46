"""One transaction that the source sends before it is committed: its changes on disk, as they came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from tempfile import TemporaryFile

from orchestra_lib.memory.pgoutput import Relation
from orchestra_lib.memory.stream_errors import StreamError

_LENGTH = Struct(">I")
_BUFFER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Described:
    """What a table looks like for the changes from the place ``at`` in the file on; ``number`` counts what is said."""

    relation: Relation
    number: int
    at: int


class Spool:
    """Changes in a file without a name: it goes with the process, however that ends."""

    def __init__(self, xid: int, directory: Path) -> None:
        self.xid = xid
        self.described: list[Described] = []
        self._size = 0
        self._first_changes: dict[int, int] = {}
        with self._room():
            self._file = TemporaryFile(dir=directory, buffering=_BUFFER_BYTES)  # noqa: SIM115 (closed by close)

    def close(self) -> None:
        """Remove it."""
        with suppress(OSError):  # what is still to be written may find no room, and nobody needs it
            self._file.close()

    def add(self, xid: int, payload: memoryview) -> None:
        """Keep a change of the transaction or one of its subtransactions. Raises StreamError when there is no room."""
        if xid != self.xid:
            self._first_changes.setdefault(xid, self._size)
        try:
            self._file.write(_LENGTH.pack(len(payload)))
            self._file.write(payload)
        except OSError as error:
            raise self._no_room(error) from error
        self._size += _LENGTH.size + len(payload)

    def describe(self, relation: Relation, number: int) -> None:
        """Keep what a table looks like from here on."""
        self.described.append(Described(relation, number, self._size))

    def roll_back(self, subxid: int) -> None:
        """Forget a subtransaction and those inside it: all that has come since its first change.

        What was said about tables stays: the source does not say it again.
        """
        start = self._first_changes.get(subxid)
        if start is None:
            return
        while self._first_changes and next(reversed(self._first_changes.values())) >= start:
            self._first_changes.popitem()
        self.described = [replace(one, at=min(one.at, start)) for one in self.described]
        with self._room():
            self._file.seek(start)
            self._file.truncate()
        self._size = start

    def read(self) -> Iterator[Described | memoryview]:
        """What a table looks like, and changes, in the order in which they came."""
        described = iter(self.described)
        following = next(described, None)
        with self._room():
            self._file.seek(0)
        at = 0
        while at < self._size:
            while following is not None and following.at <= at:
                yield following
                following = next(described, None)
            payload = self._read(_LENGTH.unpack(self._read(_LENGTH.size))[0])
            at += _LENGTH.size + len(payload)
            yield memoryview(payload)

    def _read(self, count: int) -> bytes:
        try:
            taken: bytes = self._file.read(count)
        except OSError as error:
            raise self._no_room(error) from error
        if len(taken) != count:
            raise StreamError(
                f"the file that transaction {self.xid} was kept in is shorter than what was written to it"
            )
        return taken

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._no_room(error) from error

    def _no_room(self, error: OSError) -> StreamError:
        return StreamError(
            f"transaction {self.xid} of the source is large and cannot be kept on disk until it is committed: "
            f"{error.strerror}; make room where temporary files lie, or split that transaction"
        )
