"""How much memory the build of an index needs, before it is tried.

For IVFFlat pgvector treats the setting as a hard limit: the formula is the sum of the allocations in pgvector's k-means
(src/ivfkmeans.c, 0.8.5). For HNSW it is where the build becomes many times as slow.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib.errors import ParameterError
from orchestra_lib.vectors.forms import Form, Method, Storage

_MIB = 1 << 20
_MINIMUM_SAMPLES = 10_000
_SAMPLES_PER_LIST = 50
_MAX_TUPLES_PER_BLOCK = 291  # of an 8 kB page; pgvector caps its sample buffer with it
_HNSW_ELEMENT = 160  # bytes; measured: the graph that fits into a setting, less the vector and the neighbours
_HNSW_OTHER_MIB = 3  # pgvector keeps so much of the setting back from the graph
_HNSW_LEVELS_VARY = 1.02  # levels are drawn at random
_PARALLEL_AND_SORT_MIB = 16  # room for what is not in the formula: slots, the tuplesort of assigned rows


@dataclass(frozen=True)
class BuildMemory:
    """``required_mib`` is what maintenance_work_mem must allow; ``resident_mib`` what the build really touches.

    Both are 0 where ``is_known`` is False: AlloyDB does not say what ScaNN needs.
    """

    required_mib: int
    resident_mib: int
    is_known: bool = True

    @property
    def setting_mib(self) -> int:
        """The maintenance_work_mem to set for the build, in MiB; never below PostgreSQL's default of 64."""
        return max(64, self.required_mib + _PARALLEL_AND_SORT_MIB)


def build_memory(form: Form, rows: int, dimension: int, heap_blocks: int) -> BuildMemory:
    """Memory of a build of any form that PostgreSQL has, at so many rows and blocks of the table.

    Raises ParameterError for a form that is not built, or lacks its numbers.
    """
    if form.method is Method.IVFFLAT and form.lists is not None:
        return ivfflat_build_memory(form.lists, rows, dimension, heap_blocks, form.storage)
    if form.method is Method.HNSW and form.m is not None:
        return hnsw_build_memory(form.m, rows, dimension, form.storage)
    if form.method is Method.SCANN:
        return BuildMemory(0, 0, is_known=False)
    raise ParameterError(f"what {form.label} needs to be built is not known")


def ivfflat_build_memory(
    lists: int, rows: int, dimension: int, heap_blocks: int, storage: Storage = Storage.VECTOR
) -> BuildMemory:
    """Memory of an IVFFlat build of ``rows`` vectors.

    The buffer is sized for max(50 × lists, 10,000) samples, or 291 for each heap block if that is less; distances
    only for the rows that there are.
    """
    buffer = max(1, min(max(_SAMPLES_PER_LIST * lists, _MINIMUM_SAMPLES), heap_blocks * _MAX_TUPLES_PER_BLOCK))
    samples = min(buffer, rows)
    item = item_bytes(dimension, storage)
    centres = 2 * lists * item + 4 * lists * dimension + 4 * lists * lists + 12 * lists
    distances = 4 * samples * lists + 8 * samples
    required = buffer * item + centres + distances
    return BuildMemory(_ceil_mib(required), _ceil_mib(samples * item + centres + distances))


def hnsw_build_memory(m: int, rows: int, dimension: int, storage: Storage = Storage.VECTOR) -> BuildMemory:
    """Memory of an HNSW build of ``rows`` vectors: that of the whole graph.

    With less than that pgvector goes on row by row in the pages of the index, which takes many times as long, so this
    is treated as a requirement. A row has an element with its lock, its vector, and on each of its levels an array of
    neighbours (src/hnsw.h, 0.8.5); a row reaches the next level with a chance of one in m.
    """
    levels = 1 / (m - 1)
    row = _HNSW_ELEMENT + item_bytes(dimension, storage) + _hnsw_neighbours(2 * m) + levels * _hnsw_neighbours(m)
    graph = rows * row
    return BuildMemory(_ceil_mib(graph * _HNSW_LEVELS_VARY) + _HNSW_OTHER_MIB, _ceil_mib(graph))


def item_bytes(dimension: int, storage: Storage) -> int:
    """Bytes of one stored vector in memory, aligned as the server aligns it."""
    size = {Storage.VECTOR: 8 + 4 * dimension, Storage.HALFVEC: 8 + 2 * dimension, Storage.BIT: 8 + -(-dimension // 8)}
    return -(-size[storage] // 8) * 8


def _hnsw_neighbours(count: int) -> int:
    return 8 + 8 + 16 * count  # the pointer to the array, its head, and a pointer and a distance for each


def _ceil_mib(size_bytes: float) -> int:
    return int(size_bytes // _MIB) + 1
