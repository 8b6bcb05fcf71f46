"""What an index would need before it is built, and how that changes as its table grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestra_lib.errors import GateFailed
from orchestra_lib.vectors.cost import CostModel
from orchestra_lib.vectors.forms import LARGEST_EFFORT, Method, Storage
from orchestra_lib.vectors.ivf import VirtualIndex
from orchestra_lib.vectors.memory import ivfflat_build_memory
from orchestra_lib.vectors.pages import PAGE_BYTES, centroid_pages, index_pages

MOST_LISTS = LARGEST_EFFORT[Method.IVFFLAT]  # pgvector allows as many lists as probes
_FEWEST_OVER_ROOT, _MOST_OVER_ROOT = 0.5, 16.0  # of the square root of the rows
_FEWEST_ROWS_PER_LIST = 2
_OPTIONS = 6
_LARGEST_RATIO = 2.0
_MS_PER_CENTROID_PAGE = 2.4e-4  # of an insert: 240 us for 1,000 pages, measured on 2 cores of an AMD EPYC
_MIB = 1 << 20


@dataclass(frozen=True)
class Outlook:
    """An index at some number of rows, at unchanged lists and probes.

    Pages are those that a query reads, ``list_pages`` on average; ``index_mib`` is its size on disk,
    ``build_memory_mib`` the maintenance_work_mem that a build needs; ``p95_ms`` is what is to be expected.
    """

    rows: int
    lists: int
    probes: int
    centroid_pages: int
    list_pages: float
    index_mib: float
    build_memory_mib: int
    p95_ms: float


def outlook(index: VirtualIndex, model: CostModel, probes: int, rows: int) -> Outlook:
    """The index when its table has so many rows, distributed as they are now: its recall is what it is now."""
    grown = index.at_rows(rows)
    pages = grown.pages(probes)
    return Outlook(
        rows,
        index.lists,
        probes,
        index.centroid_pages,
        float(pages.mean()) - index.centroid_pages,
        index_pages(grown.list_rows, index.dimension, index.storage) * PAGE_BYTES / _MIB,
        _build_memory_mib(index.lists, rows, index.dimension, index.storage),
        model.quantile_ms(grown, probes, 0.95),
    )


def feasible_lists(
    rows: int,
    dimension: int,
    storage: Storage,
    memory_limit_mib: int | None,
    inserts_per_second: float | None,
    asked: Sequence[int] = (),
    ms_per_centroid_page: float = _MS_PER_CENTROID_PAGE,
) -> tuple[int, ...]:
    """Numbers of lists worth a look, ascending: at most six, each about twice the one before or less, and those
    asked for.

    They begin at half the square root of the rows and end at 16 times it, or earlier: at two rows a list, at what the
    memory allows a build, at what leaves one session the time for its inserts, each of which reads every centroid.
    Those asked for are in, whatever they cost. Raises GateFailed when the memory allows no index at all.
    """
    bounds = [
        _MOST_OVER_ROOT * math.sqrt(rows),
        rows / _FEWEST_ROWS_PER_LIST,
        MOST_LISTS,
        _lists_for_inserts(inserts_per_second, dimension, storage, ms_per_centroid_page),
    ]
    if memory_limit_mib is not None:
        allowed = most_lists_for_memory(rows, dimension, storage, memory_limit_mib)
        if not allowed:
            raise GateFailed(
                f"an index with one list needs {_build_memory_mib(1, rows, dimension, storage):,} MiB of "
                f"maintenance_work_mem, {memory_limit_mib:,} are allowed; raise it"
            )
        bounds.append(allowed)
    most = max(1, int(min(bounds)))
    fewest = min(max(1, round(_FEWEST_OVER_ROOT * math.sqrt(rows))), most)
    return tuple(sorted({*_ladder(fewest, most), *asked}))


def most_lists_for_memory(rows: int, dimension: int, storage: Storage, memory_limit_mib: int) -> int:
    """The most lists whose build fits into so much maintenance_work_mem; 0 when none does."""
    below, above = 0, MOST_LISTS + 1
    while above - below > 1:
        middle = (below + above) // 2
        fits = _build_memory_mib(middle, rows, dimension, storage) <= memory_limit_mib
        below, above = (middle, above) if fits else (below, middle)
    return below


def _build_memory_mib(lists: int, rows: int, dimension: int, storage: Storage) -> int:
    # As for a table with a block a row: the most that it can be.
    return ivfflat_build_memory(lists, rows, dimension, max(1, rows), storage).required_mib


def _lists_for_inserts(
    inserts_per_second: float | None, dimension: int, storage: Storage, ms_per_centroid_page: float
) -> float:
    if inserts_per_second is None:
        return math.inf
    pages_per_list = centroid_pages(1_000, dimension, storage) / 1_000
    return 1_000 / (inserts_per_second * ms_per_centroid_page * pages_per_list)


def _ladder(fewest: int, most: int) -> list[int]:
    """Even steps from the fewest to the most, as few as keep each within twice the one before, at most six."""
    steps = max(1, min(_OPTIONS - 1, math.ceil(math.log(most / fewest, _LARGEST_RATIO)))) if most > fewest else 0
    ratio = (most / fewest) ** (1 / steps) if steps else 1.0
    return [round(fewest * ratio**step) for step in range(steps + 1)]
