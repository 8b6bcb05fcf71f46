"""This machine: room on its disk, memory, and the packages that the pins name."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.paths import runs_directory, state_directory
from orchestra_lib.preflight.check import Check
from orchestra_lib.settings import Settings
from orchestra_lib.vectors.memory import ivfflat_build_memory

AREA = "this machine"
_MIB = 1 << 20
# What the local servers' data, their write-ahead logs and the rehearsal's corpus take; elsewhere only records are kept.
_DISK_MIB = {"local": 1_024, "gcp": 256}
# A kernel with numpy, a plan of a hundred resources and sixteen connections; locally PostgreSQL twice beside it.
_MEMORY_MIB = {"local": 1_024, "gcp": 512}
_REHEARSAL_ROWS = 10_000
_ROWS_A_BLOCK = 1  # a vector of 1536 dimensions fills most of a block of 8 kB


def machine_checks(settings: Settings) -> Iterator[Check]:
    """What this machine has to offer for the environment's runbooks."""
    kind = settings.environment.kind
    for what, directory in (("state", state_directory()), ("records", runs_directory())):
        free = shutil.disk_usage(_existing(directory)).free // _MIB
        yield _at_least(
            f"disk of this machine free for the {what}", free, _DISK_MIB[kind], f"free some in {directory}, or move it"
        )
    needed = _MEMORY_MIB[kind] + (_index_mib(settings) if kind == "local" else 0)
    available = int(psutil.virtual_memory().available // _MIB)
    yield _at_least(
        "memory of this machine available",
        available,
        needed,
        "close what else runs, or build an index with fewer lists",
    )


def _index_mib(settings: Settings) -> int:
    memory = settings.memory
    rows = memory.corpus.rows or _REHEARSAL_ROWS
    lists = memory.index.lists or math.isqrt(rows)  # an index that is chosen is one that fits
    return ivfflat_build_memory(lists, rows, memory.dimension, rows // _ROWS_A_BLOCK).resident_mib


def _at_least(claim: str, value: int, least: int, remedy: str) -> Check:
    note = "" if value >= least else remedy
    return Check(AREA, Evidence(claim, Source.MEASURED, value, "MiB", Bound(">=", least), note=note))


def _existing(directory: Path) -> Path:
    """The directory, or the nearest above it that is there: what is made in it takes its room."""
    return next(path for path in (directory, *directory.parents) if path.exists())
