"""HNSW's numbers by successive halving: all of them on few rows, the better half on twice as many, the best in full.

For HNSW nothing can be counted beforehand as for IVFFlat: what it finds depends on the graph that was built. But how
the ef_search that suffices grows with the rows is regular enough to be carried over from samples to the full table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestra_lib.vectors.forms import LARGEST_EFFORT, Form, Method, Storage, hnsw

OPTIONS = ((16, 64), (16, 128), (24, 128), (32, 200))
"""m and ef_construction to begin with."""
_DOUBLINGS = 2
_MARGIN = 1.1
_ALIKE = 1.1  # times the fastest p95: what a sample cannot tell apart


@dataclass(frozen=True)
class Trial:
    """A graph on a sample: the ef_search that reached the recall target, None when none did, its p95 and its build."""

    form: Form
    rows: int
    ef_search: int | None
    p95_ms: float
    build_seconds: float


@dataclass(frozen=True)
class Halved:
    """The winner and the ef_search to expect on the full table; every trial; the seconds its full build may take."""

    form: Form
    ef_search: int
    build_seconds: float
    trials: tuple[Trial, ...]


def halve(
    trial: Callable[[Form, int], Trial], rows: int, first_rows: int, k: int, storage: Storage, room: Callable[[], bool]
) -> Halved | None:
    """Try OPTIONS on ``first_rows`` rows, keep the better half, double the rows, and so on; None when none suffices.

    ``trial`` builds and measures one graph on a sample; ``room`` says whether there is time for another one, and when
    there is not, what was learnt by then decides.
    """
    trials: list[Trial] = []
    contestants = [hnsw(m, ef_construction, storage) for m, ef_construction in OPTIONS]
    size = min(first_rows, rows)
    for _ in range(_DOUBLINGS + 1):
        round_trials = []
        for form in contestants:
            if trials and not room():
                break
            round_trials.append(trial(form, size))
            trials.append(round_trials[-1])
        ranked = _ranked(round_trials)
        if not ranked:
            break
        contestants = [t.form for t in ranked[: max(1, len(contestants) // 2)]]
        size *= 2
        if size >= rows or not room():  # on all rows there is nothing to carry over: that is the full build
            break
    successful = [t for t in trials if t.ef_search is not None]
    if not successful:
        return None
    largest = max(t.rows for t in successful)
    best = _ranked([t for t in successful if t.rows == largest])[0].form
    own = [t for t in trials if t.form == best]
    return Halved(best, expected_ef_search(own, rows, k), expected_build_seconds(own, rows), tuple(trials))


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Those that reached the target, the fastest first; of those that are as fast the one that is built soonest."""
    reached = [t for t in trials if t.ef_search is not None]
    alike = _ALIKE * min((t.p95_ms for t in reached), default=0.0)
    return sorted(reached, key=lambda t: (t.p95_ms > alike, t.build_seconds if t.p95_ms <= alike else t.p95_ms))


def expected_ef_search(trials: Sequence[Trial], rows: int, k: int) -> int:
    """The ef_search for so many rows: a straight line through the logarithms, with a margin; never less than k."""
    points = [(t.rows, t.ef_search) for t in trials if t.ef_search is not None]
    value = _through_logarithms(points, rows) * _MARGIN
    return int(min(max(round(value), k), LARGEST_EFFORT[Method.HNSW]))


def expected_build_seconds(trials: Sequence[Trial], rows: int) -> float:
    """Seconds of the build for so many rows, from the samples': it grows a little faster than the rows."""
    largest = max(trials, key=lambda t: t.rows)
    growth = rows / largest.rows
    return float(largest.build_seconds * growth * (1 + np.log(growth) / np.log(max(largest.rows, 2))))


def _through_logarithms(points: Sequence[tuple[int, int]], rows: int) -> float:
    sizes, values = (np.log(np.asarray(column, dtype=np.float64)) for column in zip(*points, strict=True))
    if len(set(sizes.tolist())) < 2:
        return float(np.exp(values.max()))
    slope, level = np.polyfit(sizes, values, 1)
    # A sample that happens to need less than a smaller one must not make the full table look easier still.
    return float(np.exp(level + max(slope, 0.0) * np.log(rows))) if slope > 0 else float(np.exp(values.max()))
