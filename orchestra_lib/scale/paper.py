"""What a memory store of any size asks for, on paper: from coefficients that were measured at small sizes.

    python -m orchestra_lib.scale.paper

prints the table of docs/scale.md. It says which part gives way first, not what a machine will show; every figure above
a few hundred thousand rows is extrapolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from orchestra_lib.scale.estimate import Machines, one_process
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.memory import ivfflat_build_memory
from orchestra_lib.vectors.pages import PAGE_BYTES, index_pages

SIZES = tuple(10**power for power in range(4, 11))

# Measured on two cores of an AMD EPYC with 1,536 dimensions (tests/bench, 2026-11-23 to 2026-11-26), warm.
ROW_BYTES = 6_500
EXACT_US_PER_ROW = 3.3
"""One process, the table in memory."""
_CENTROID_US, _VISITED_US, _FIXED_MS = 0.26, 0.70, 0.3
# Probes for recall 0.95, from three points of Supabase's with real embeddings (13, 6 and 3 % of 30, 90 and 270 lists):
# the shape only. Ours, with synthetic vectors at 200,000 rows, were 10 of 447, 5 of 1,000 and 10 of 2,000 lists.
_PROBES_FACTOR, _PROBES_POWER = 1.26, 1 / 3
_BUSY_LISTS = 1.3  # a query's lists hold more rows than an average one
_INSERT_US_PER_LIST = 0.24
_LARGEST_LISTS = 32_768

# AlloyDB's machines, and what a log can take; the second is assumed.
_DIMENSION = 1_536
_LARGEST_MEMORY_GB, _MEMORY_FOR_PAGES = 864, 0.7
_GB_PER_VCPU = 8
_VCPUS = (2, 4, 8, 16, 32, 64, 96, 128)
_LOG_BYTES_PER_SECOND = 400e6
# US dollars a month; recalled, not confirmed for this region (orchestra_lib/prices/list_prices.yaml, the lower ones).
_VCPU_WITH_8_GB_USD, _STORED_GB_USD = 0.15568 * 730, 0.30


@dataclass(frozen=True)
class Plan:
    """One size. Sizes in GB, seconds for the copy of one process; ``index_gb`` is that of halfvec.

    ``insert_per_second`` is what one session can add to an IVFFlat index of these lists, ``vcpus`` the smallest
    machine whose memory holds the index, None where none does, and ``monthly_usd`` what that machine and the stored
    bytes cost without a standby.
    """

    rows: int
    table_gb: float
    exact_ms: float
    lists: int
    index_gb: float
    search_ms: float
    insert_per_second: float
    build_gb: float
    copy_seconds: float
    vcpus: int | None
    monthly_usd: float | None


def plan(rows: int) -> Plan:
    """What this many memories ask for."""
    lists = min(_LARGEST_LISTS, max(10, round(2 * math.sqrt(rows))))
    probes = max(1, round(_PROBES_FACTOR * lists**_PROBES_POWER))
    visited = _BUSY_LISTS * probes * rows / lists
    pages = index_pages(np.full(lists, rows / lists), _DIMENSION, Storage.HALFVEC)
    index_gb = pages * PAGE_BYTES / 1e9
    table_gb = rows * ROW_BYTES / 1e9
    fitting = [cpus for cpus in _VCPUS if min(_LARGEST_MEMORY_GB, _GB_PER_VCPU * cpus) * _MEMORY_FOR_PAGES > index_gb]
    usd = fitting[0] * _VCPU_WITH_8_GB_USD + (table_gb + index_gb) * _STORED_GB_USD if fitting else None
    machines = Machines(source_cpus=16, target_cpus=16, log_bytes_per_second=_LOG_BYTES_PER_SECOND)
    return Plan(
        rows,
        table_gb,
        rows * EXACT_US_PER_ROW / 1e3,
        lists,
        index_gb,
        _FIXED_MS + (_CENTROID_US * lists + _VISITED_US * visited) / 1e3,
        1e6 / (_INSERT_US_PER_LIST * lists),
        ivfflat_build_memory(lists, rows, _DIMENSION, rows, Storage.HALFVEC).required_mib * (1 << 20) / 1e9,
        one_process(rows, ROW_BYTES, machines).seconds,
        fitting[0] if fitting else None,
        usd,
    )


def table() -> str:
    """All sizes as a table in Markdown."""
    head = (
        "| memories | table | exact search | lists | index (halfvec) | IVFFlat search | inserts a session "
        "| build memory | copy, one process | machine | a month |"
    )
    lines = [head, "|" + " --- |" * head.count("| ")]
    for one in map(plan, SIZES):
        machine = f"{one.vcpus} vCPU" if one.vcpus else "none"
        usd = f"{_rounded(one.monthly_usd)} USD" if one.monthly_usd else "–"
        cells = (
            f"10^{round(math.log10(one.rows))}",
            _gigabytes(one.table_gb),
            _milliseconds(one.exact_ms),
            f"{one.lists:,}",
            _gigabytes(one.index_gb),
            _milliseconds(one.search_ms),
            f"{_rounded(one.insert_per_second)}/s",
            _gigabytes(one.build_gb),
            _duration(one.copy_seconds),
            machine,
            usd,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _rounded(value: float) -> str:
    """Two digits that count: more would claim to be known."""
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.{max(0, digits)}f}"


def _gigabytes(value: float) -> str:
    return f"{_rounded(value / 1e3)} TB" if value >= 1e3 else f"{_rounded(value)} GB"


def _milliseconds(value: float) -> str:
    return f"{_rounded(value / 1e3)} s" if value >= 1e3 else f"{_rounded(value)} ms"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{_rounded(seconds / size)} {unit}"
    return f"{_rounded(seconds)} s"


if __name__ == "__main__":
    print(table())
