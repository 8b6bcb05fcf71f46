"""A transfer between the databases of a pair, for tests: its spec, its store, its state."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
from stores import Pair, fill

from orchestra_lib.memory.schema import create_table
from orchestra_lib.memory.slot import drop_slot
from orchestra_lib.scale.spec import TransferSpec

RANGE_BYTES = 600_000


def spec_of(pair: Pair, folder: Path, **changes) -> TransferSpec:
    """A transfer under names of its own, because slots belong to whole servers."""
    for role in ("source", "target"):
        (folder / role).write_text(getattr(pair, role))
    name = "scale_" + pair.source.rpartition("dbname=")[2]
    spec = TransferSpec(
        f"file:{folder}/source", f"file:{folder}/target", name, name, name, range_bytes=RANGE_BYTES, workers=2
    )
    return replace(spec, **changes)


def prepare(pair: Pair, rows: int) -> None:
    """Fill the source, and make the target's table."""
    fill(pair.source, rows)
    execute(pair.target, create_table())


def clear(pair: Pair, spec: TransferSpec) -> None:
    """Give back what belongs to the server and not to the database."""
    with psycopg.connect(pair.source, autocommit=True) as connection:
        drop_slot(connection, spec.slot)


def execute(conninfo: str, statement, *values) -> list[tuple]:
    """One statement; its rows."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def workers_of_beam() -> list[psutil.Process]:
    """The worker processes of the pipelines that this process runs: forks of their launchers."""
    found = list[psutil.Process]()
    for launcher in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "orchestra_lib.scale" in launcher.cmdline():
                found += launcher.children()
    return found
