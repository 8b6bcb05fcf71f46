"""How much memory an IVFFlat build needs, before it is tried: pgvector treats the setting as a hard limit.

The formula is the sum of the allocations in pgvector's k-means (src/ivfkmeans.c, 0.8.5) for float32 vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20
_MINIMUM_SAMPLES = 10_000
_SAMPLES_PER_LIST = 50
_MAX_TUPLES_PER_BLOCK = 291  # of an 8 kB page; pgvector caps its sample buffer with it
_PARALLEL_AND_SORT_MIB = 16  # room for what is not in the formula: slots, the tuplesort of assigned rows


@dataclass(frozen=True)
class BuildMemory:
    """``required_mib`` is what maintenance_work_mem must allow; ``resident_mib`` what the build really touches."""

    required_mib: int
    resident_mib: int

    @property
    def setting_mib(self) -> int:
        """The maintenance_work_mem to set for the build, in MiB; never below PostgreSQL's default of 64."""
        return max(64, self.required_mib + _PARALLEL_AND_SORT_MIB)


def ivfflat_build_memory(lists: int, rows: int, dimension: int, heap_blocks: int) -> BuildMemory:
    """Memory of an IVFFlat build of ``rows`` vectors of float32.

    The buffer is sized for max(50 × lists, 10,000) samples, or 291 for each heap block if that is less; distances
    only for the rows that there are.
    """
    buffer = max(1, min(max(_SAMPLES_PER_LIST * lists, _MINIMUM_SAMPLES), heap_blocks * _MAX_TUPLES_PER_BLOCK))
    samples = min(buffer, rows)
    item = -(-(8 + 4 * dimension) // 8) * 8
    centres = 2 * lists * item + 4 * lists * dimension + 4 * lists * lists + 12 * lists
    distances = 4 * samples * lists + 8 * samples
    required = buffer * item + centres + distances
    return BuildMemory(_ceil_mib(required), _ceil_mib(samples * item + centres + distances))


def _ceil_mib(size_bytes: int) -> int:
    return size_bytes // _MIB + 1
