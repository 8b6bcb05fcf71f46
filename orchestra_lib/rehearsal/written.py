"""The rows that the rehearsal's writer writes: each follows from a seed, the number of its key and a step of its life.

A key begins absent; every write to it is one step: an insert where it is absent, else a change of its metadata, its
content or its vector, or a delete. Which one is drawn from seed, key and step, so whoever knows those three knows every
byte of the row, and a judge needs no copy of what was written.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import lru_cache

import numpy as np
import psycopg
from psycopg import sql

from orchestra_lib.errors import ParameterError
from orchestra_lib.memory.checksum import binary_columns
from orchestra_lib.memory.schema import COLUMN_TYPES, COLUMNS, DIMENSION

KEY_SPACE = "written:"
"""How every id begins that a writer writes: nobody else may write there."""

_EPOCH_MICROSECONDS = 26 * 365 * 86_400 * 1_000_000  # some day in 2025, counted from 2000 as a timestamptz is
_LONG_CONTENT_SHARE = 0.25
_LONG_CONTENT_BYTES = 1_800  # in hexadecimal digits twice that: more than PostgreSQL leaves in the row itself
_SHORT_CONTENT_BYTES = 90


class Verb(StrEnum):
    """What a step does to the row."""

    INSERT = "insert"
    METADATA = "metadata"
    CONTENT = "content"
    VECTOR = "vector"
    DELETE = "delete"


@dataclass(frozen=True)
class Mix:
    """Shares of the writes; ``insert`` of keys that never were, ``reinsert`` of deleted ones. They add up to 1.

    ``hot`` is the share of the writes to existing keys that goes to a few of them. ``restarts`` is the share of keys
    whose version is 1 again when they are inserted again, as the column's default has it; that of the others goes on.
    """

    insert: float = 0.25
    reinsert: float = 0.05
    metadata: float = 0.35
    content: float = 0.15
    vector: float = 0.10
    delete: float = 0.10
    hot: float = 0.3
    restarts: float = 0.25

    def __post_init__(self) -> None:
        shares = {field.name: getattr(self, field.name) for field in fields(self)}
        wrong = {name: share for name, share in shares.items() if not 0 <= share <= 1}
        total = sum(share for name, share in shares.items() if name not in ("hot", "restarts"))
        if wrong or abs(total - 1) > 1e-9 or not self.metadata + self.content + self.vector + self.delete:
            raise ParameterError(
                f"the shares of a mix lie between 0 and 1, those of the writes add up to 1, and some are changes of "
                f"rows that exist; these add up to {total:g}: {shares}"
            )


@dataclass(frozen=True, slots=True)
class State:
    """A key after ``step`` writes. ``version`` is the row's; the other steps say when it got what it holds."""

    key: int
    step: int = 0
    present: bool = False
    version: int = 0
    inserted: int = 0
    content: int = 0
    vector: int = 0


class Lives:
    """The lives of all keys under one seed and one mix."""

    def __init__(self, seed: int, mix: Mix) -> None:
        self.seed, self.mix = seed, mix
        weights = (mix.metadata, mix.content, mix.vector, mix.delete)
        self._bounds = [bound / sum(weights) for bound in itertools.accumulate(weights)]

    def id(self, key: int) -> str:
        """The row's id."""
        return f"{KEY_SPACE}{self.seed}:{key:08}"

    def key(self, id_: str) -> int | None:
        """The key of an id, None if it is not one of these."""
        number = id_.rpartition(":")[2]
        return int(number) if number.isdecimal() and self.id(int(number)) == id_ else None

    def condition(self) -> sql.Composed:
        """The SQL condition on ``id`` that every row under this seed satisfies, and no other row."""
        low = f"{KEY_SPACE}{self.seed}:"
        return sql.SQL('id >= {} COLLATE "C" AND id < {} COLLATE "C"').format(low, low[:-1] + chr(ord(":") + 1))

    def verb(self, state: State) -> Verb:
        """What the next step does."""
        if not state.present:
            return Verb.INSERT
        drawn = bisect_right(self._bounds, self._share("verb", state.key, state.step + 1))
        return _CHANGES[min(drawn, len(_CHANGES) - 1)]

    def after(self, state: State) -> State:
        """The key after its next step."""
        step = state.step + 1
        match self.verb(state):
            case Verb.INSERT:
                again = self._share("restart", state.key, 0) < self.mix.restarts
                return State(state.key, step, True, 1 if again else state.version + 1, step, step, step)
            case Verb.DELETE:
                return replace(state, step=step, present=False)
            case Verb.CONTENT:
                return replace(state, step=step, version=state.version + 1, content=step)
            case Verb.VECTOR:
                return replace(state, step=step, version=state.version + 1, vector=step)
            case _:
                return replace(state, step=step, version=state.version + 1)

    def states(self, key: int) -> Iterator[State]:
        """The key after 0, 1, 2 … writes, without end."""
        state = State(key)
        while True:
            yield state
            state = self.after(state)

    def at(self, key: int, step: int) -> State:
        """The key after that many writes."""
        return next(itertools.islice(self.states(key), step, None))

    def values(self, state: State) -> Mapping[str, bytes | None]:
        """Column -> the row's value in PostgreSQL's binary form; of a key that is absent there is none."""
        key, step = state.key, state.step
        moment = _EPOCH_MICROSECONDS + key * 1_000_000
        about = {"key": key, "step": step, "nested": {"π": [1, 2.5, None]}}
        expires = struct.pack(">q", moment + 10**12) if key % 3 else None
        values = {
            "id": self.id(key).encode(),
            "agent_id": f"agent{key % 7}".encode(),
            "user_id": f"user{key % 5}".encode(),
            "session_id": f"session{key % 11}".encode(),
            "persona": b"Cherry",
            "item_type": b"note",
            "content": self._content(key, state.content).encode(),
            "metadata": b"\x01" + json.dumps(about, ensure_ascii=False).encode(),
            "embedding": self._vector(key, state.vector),
            "embedding_model": b"rehearsal/written",
            "version": struct.pack(">q", state.version),
            "created_at": struct.pack(">q", moment + state.inserted),
            "updated_at": struct.pack(">q", moment + step),
            "expires_at": expires,
        }
        return {column: values[column] for column in COLUMNS}

    def digest(self, state: State) -> bytes:
        """What :func:`digest_select` gives for the row: SHA-256 of its record in binary form, 32 bytes."""
        image = [struct.pack(">i", len(COLUMNS))]
        for column, value in self.values(state).items():
            size = -1 if value is None else len(value)
            image += (struct.pack(">Ii", _type_oid(column), size), value or b"")
        return hashlib.sha256(b"".join(image)).digest()

    def _share(self, what: str, key: int, step: int) -> float:
        """A number in [0, 1) drawn from its arguments and the seed."""
        drawn = hashlib.blake2b(f"{self.seed} {what} {key} {step}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn) / 2**64

    def _content(self, key: int, step: int) -> str:
        long = self._share("length", key, step) < _LONG_CONTENT_SHARE
        drawn = hashlib.shake_128(f"{self.seed} content {key} {step}".encode())
        return f"Zürich ☂ {key}/{step}\n{drawn.hexdigest(_LONG_CONTENT_BYTES if long else _SHORT_CONTENT_BYTES)}"

    def _vector(self, key: int, step: int) -> bytes:
        drawn = hashlib.shake_128(f"{self.seed} vector {key} {step}".encode()).digest(2 * DIMENSION)
        whole = np.frombuffer(drawn, ">i2").astype(np.int64)
        # The sum of squares is exact, root and quotient are rounded as IEEE 754 says: the same bytes on every machine.
        unit = whole / np.sqrt(np.float64(whole @ whole))
        values: bytes = unit.astype(">f4").tobytes()
        return struct.pack(">HH", DIMENSION, 0) + values


def digest_select(table: sql.Composable, lives: Lives) -> sql.Composed:
    """The SELECT over a table that yields id, the step that the row says it is at (text) and its digest (bytea)."""
    # OFFSET 0 keeps the subquery as it is: without it the vector would be turned into bytes twice.
    return sql.SQL(
        "SELECT id, metadata->>'step', sha256(record_send(rows)) "
        "FROM (SELECT {columns} FROM {table} WHERE {condition} OFFSET 0) AS rows"
    ).format(columns=binary_columns(), table=table, condition=lives.condition())


@lru_cache
def _type_oid(column: str) -> int:
    name = COLUMN_TYPES[column]
    return psycopg.adapters.types["bytea" if name == "vector" else name].oid


_CHANGES = (Verb.METADATA, Verb.CONTENT, Verb.VECTOR, Verb.DELETE)
