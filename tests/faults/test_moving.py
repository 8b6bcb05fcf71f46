"""Faults while a store is written to and moved, each once and briefly; tests/faults/moving.py is the long form."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import Arena, arena
from store_faults import BY_NAME, inject

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place() -> Iterator[Arena]:
    directory = Path(tempfile.mkdtemp(prefix="orchestra-faults-"))
    with arena(directory, rows=2_800, per_second=200) as made:
        yield made
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    "name",
    [
        "two movers at once",
        "mover killed",
        "mover killed while it copies",
        "source killed",
        "target killed",
        "connections to the source cut",
        "connections to the target half-open",
        "what is sent to the source lost, then cut",
        "what the target answers lost, then cut",
        "target read-only",
        "target's disk full",
        "target's table locked",
        "row that the target refuses",
        "large transaction with savepoints",
        "keys that change, rows that come and go",
        "mover superseded while it sleeps",
        "slot dropped",
        "column added to the source",
    ],
)
def test_every_acknowledged_write_and_nothing_else_is_on_the_target_after(place: Arena, name: str) -> None:
    fault = BY_NAME[name]
    inject(place, (fault,), random.Random(name))
    settled = place.settle(fault.endings)
    assert settled.problems == []
    assert settled.verdict.writes > 100
