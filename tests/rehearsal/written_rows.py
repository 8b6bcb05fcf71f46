"""Builders for tests of the writer and its judge: a store, and a ledger with the rows that it speaks of."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import psycopg

from orchestra_lib.memory.schema import COLUMNS, create_table
from orchestra_lib.rehearsal.ledger import Event, Ledger
from orchestra_lib.rehearsal.written import Lives, Mix

SEED = 7
LIVES = Lives(SEED, Mix())


def make_store(conninfo: str) -> None:
    """An empty table of memories."""
    with psycopg.connect(conninfo) as connection:
        connection.execute(create_table())


def put(conninfo: str, key: int, step: int, table: str = "memories", lives: Lives = LIVES) -> None:
    """The row of a key at a step, as the writer would have left it."""
    values = lives.values(lives.at(key, step)).values()
    fields = [struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value for value in values]
    head = b"PGCOPY\n\xff\r\n\0" + bytes(8) + struct.pack(">h", len(COLUMNS))
    with psycopg.connect(conninfo) as connection:
        connection.execute(f"DELETE FROM {table} WHERE id = %s", [lives.id(key)])
        with connection.cursor().copy(f"COPY {table} ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)") as copy:
            copy.write(head + b"".join(fields) + b"\xff\xff")


def note(path: Path, acknowledged: Mapping[int, int], in_doubt: Mapping[int, int] | None = None) -> None:
    """A ledger in which these keys were acknowledged up to these steps, and these steps are in doubt."""
    with Ledger(path, SEED, LIVES.mix) as ledger:
        for key, last in acknowledged.items():
            for step in range(1, last + 1):
                ledger.note(Event.INTENT, key, step, detail=[0.0, LIVES.verb(LIVES.at(key, step - 1))])
                ledger.note(Event.ACKNOWLEDGED, key, step, detail=0)
        for key, step in (in_doubt or {}).items():
            ledger.note(Event.INTENT, key, step, detail=[0.0, LIVES.verb(LIVES.at(key, step - 1))])


def step_where(key: int, present: bool, after: int = 0) -> int:
    """The first step of a key beyond ``after`` at which its row is there, or is not."""
    return next(state.step for state in LIVES.states(key) if state.step > after and state.present is present)
