"""What an index would need before it is built, and how that changes as the table grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestra_lib.vectors.cost import CostModel
from orchestra_lib.vectors.ivf import VirtualIndex
from orchestra_lib.vectors.pages import Storage

MOST_LISTS = 32_768
"""pgvector's own limit."""


@dataclass(frozen=True)
class Outlook:
    """An index at some number of rows: pages a query reads on average, MiB on disk and for the build, expected p95."""

    rows: int
    lists: int
    probes: int
    centroid_pages: int
    list_pages: float
    index_mib: float
    build_memory_mib: int
    p95_ms: float


def feasible_lists(
    rows: int,
    dimension: int,
    storage: Storage,
    memory_limit_mib: int | None,
    inserts_per_second: float | None,
    asked: Sequence[int] = (),
) -> tuple[int, ...]:
    """Numbers of lists worth a look, ascending: about six, each 1.6 to 2 times the one before, and those asked for.

    They range from half the square root of the rows to 16 times it; never more than half the rows, what the memory
    allows a build, or what leaves time for the inserts. Those asked for are in whatever they cost.
    Raises GateFailed when the memory allows no index at all.
    """
    raise NotImplementedError


def further_lists(tried: Sequence[int], best: int, most: int) -> tuple[int, ...]:
    """Where to look next, given the best of those tried: between its neighbours, or beyond it when it is the last."""
    raise NotImplementedError


def most_lists_for_memory(rows: int, dimension: int, storage: Storage, memory_limit_mib: int) -> int:
    """The most lists whose build fits into so much maintenance_work_mem; 0 when none does."""
    raise NotImplementedError


def outlook(index: VirtualIndex, model: CostModel, probes: int, rows: int) -> Outlook:
    """The index when its table has so many rows, at unchanged lists and probes."""
    raise NotImplementedError
