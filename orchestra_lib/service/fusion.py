"""Reciprocal rank fusion: several rankings of the same things made one, from the ranks alone.

Cormack, Clarke and Büttcher, SIGIR 2009. Distances and text scores have no common unit; ranks do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

RANK_CONSTANT = 60
"""The paper's. It says how much the first ranks stand out."""


def fuse(rankings: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    """Every id of the rankings with its score, the highest first; equal scores in the order of the ids."""
    scores: defaultdict[str, float] = defaultdict(float)
    for ranking in rankings:
        for rank, id_ in enumerate(ranking, start=1):
            scores[id_] += 1.0 / (RANK_CONSTANT + rank)
    return sorted(scores.items(), key=lambda scored: (-scored[1], scored[0]))
