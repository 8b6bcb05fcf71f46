"""The writer's ledger: every write, noted before it is sent and again when its outcome is known.

A file of JSON lines that is only appended to, each line in one call of the operating system: it survives a kill -9 of
the writer and can be read while it is written. A write without an outcome is in doubt: it happened or it did not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from orchestra_lib.errors import DataError
from orchestra_lib.rehearsal.written import Lives, Mix


class Event(StrEnum):
    """What a line says. Its ``detail`` stands in brackets."""

    INTENT = "intent"  # a write is about to be sent ([planned start in monotonic seconds, verb])
    ACKNOWLEDGED = "acknowledged"  # the commit was answered (number of the place)
    REFUSED = "refused"  # the server answered with an error: the write did not happen (SQLSTATE)
    LOST = "lost"  # the connection was lost before the answer: in doubt (what was seen)
    FOUND = "found"  # the row was looked up: the write had happened (number of the place)
    MISSING = "missing"  # the row was looked up: the write had not happened (number of the place)
    WRONG = "wrong"  # the row is not as it was acknowledged: the writer leaves this key alone (what was found)
    SKIPPED = "skipped"  # writes that were not sent because their time had passed long ago (how many)
    PLACE = "place"  # a place gets its number, which stands in ``key`` (its label)


class Entry(NamedTuple):
    """One line. ``step`` is what the key is at after the write; times in seconds, ``wall`` since 1970."""

    event: Event
    key: int
    step: int
    session: int
    monotonic: float
    wall: float
    detail: Any


@dataclass(frozen=True)
class Standing:
    """What a ledger comes to, by key: the last step known to have happened, and one that is in doubt."""

    acknowledged: dict[int, int] = field(default_factory=dict)
    in_doubt: dict[int, int] = field(default_factory=dict)
    wrong: frozenset[int] = frozenset()
    writes: int = 0

    def written(self) -> set[int]:
        """Every key that something was sent for."""
        return self.acknowledged.keys() | self.in_doubt.keys()


class Ledger:
    """A ledger open for writing, by any number of threads. Closes with the ``with`` block."""

    def __init__(self, path: Path, seed: int, mix: Mix) -> None:
        """Begin a ledger or go on with one. Raises DataError when it belongs to another seed or mix."""
        self.path = path
        wanted = json.dumps({"seed": seed, "mix": asdict(mix)})
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._drop_torn_line()
        if os.fstat(self._file).st_size == 0:
            os.write(self._file, f"{wanted}\n".encode())
        with path.open() as lines:
            found = lines.readline().strip()
        if found != wanted:
            os.close(self._file)
            raise DataError(f"{path} is the ledger of {found}, not of {wanted}; name another file")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def note(self, event: Event, key: int = -1, step: int = 0, session: int = 0, detail: object = None) -> None:
        """Append one line, with the times of now."""
        line = [event, key, step, session, round(time.monotonic(), 6), round(time.time(), 6), detail]
        os.write(self._file, (json.dumps(line, separators=(",", ":")) + "\n").encode())

    def _drop_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        tail = os.pread(self._file, 4096, max(0, size - 4096))
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(self._file, size - len(tail) + tail.rfind(b"\n") + 1)


def lives_of(path: Path) -> Lives:
    """The lives that a ledger's steps are steps of. Raises DataError when the file is no ledger."""
    try:
        with path.open() as lines:
            header = json.loads(lines.readline())
        return Lives(header["seed"], Mix(**header["mix"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no ledger of a writer: {error}") from error


def entries(path: Path) -> Iterator[Entry]:
    """The lines after the first, those that are complete. Raises DataError for one that cannot be read."""
    with path.open() as lines:
        lines.readline()
        for number, line in enumerate(lines, start=2):
            if not line.endswith("\n"):
                return  # it is being written, or its writer was killed
            try:
                event, *rest = json.loads(line)
                yield Entry(Event(event), *rest)
            except (ValueError, TypeError) as error:
                raise DataError(f"line {number} of {path} is none of a ledger: {line.strip()!r}") from error


def standing(path: Path) -> Standing:
    """What the ledger comes to by now."""
    acknowledged: dict[int, int] = {}
    in_doubt: dict[int, int] = {}
    wrong: set[int] = set()
    writes = 0
    for entry in entries(path):
        match entry.event:
            case Event.INTENT:
                in_doubt[entry.key] = entry.step
            case Event.ACKNOWLEDGED | Event.FOUND:
                acknowledged[entry.key] = entry.step
                in_doubt.pop(entry.key, None)
                writes += 1
            case Event.REFUSED | Event.MISSING:
                in_doubt.pop(entry.key, None)
            case Event.WRONG:
                wrong.add(entry.key)
    return Standing(acknowledged, in_doubt, frozenset(wrong), writes)
