"""What a vector search has to deliver, and the queries by which that is judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.truth import OPERATORS

FEWEST_QUERIES = 40
"""Fewer cannot be split into parts that tune, validate and test."""
_TUNE, _VALIDATE = 0.3, 0.3  # of the queries; the rest is the test part


@dataclass(frozen=True)
class Goals:
    """The targets of a search and what may be spent on reaching them.

    ``recall_target`` is recall@k, ``p95_ms`` the budget for 95 of 100 searches at ``offered_per_second`` (None: one
    client, one query after another). ``budget_seconds`` bounds the tuning itself. ``filters`` names columns that the
    application also filters by, each with one value a query. ``lists`` are those that somebody asked for: they are
    evaluated whatever the choice is. ``memory_limit_mib`` bounds what a build may need; ``inserts_per_second`` bounds
    the lists, since every insert reads every centroid.
    Raises ParameterError when a number makes no sense.
    """

    recall_target: float
    p95_ms: float
    k: int
    opclass: str
    offered_per_second: float | None
    budget_seconds: float
    filters: tuple[str, ...] = ()
    lists: tuple[int, ...] = ()
    memory_limit_mib: int | None = None
    inserts_per_second: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall_target < 1:
            raise ParameterError(f"recall_target {self.recall_target} has to lie between 0 and 1")
        for name in ("p95_ms", "k", "budget_seconds"):
            if getattr(self, name) <= 0:
                raise ParameterError(f"{name} {getattr(self, name)} has to be more than 0")
        if self.opclass not in OPERATORS:
            raise ParameterError(f"opclass {self.opclass} is none of {', '.join(OPERATORS)}")


@dataclass(frozen=True)
class Queries:
    """Query vectors (float32, (q, dimension)) and where they come from.

    ``own_ids``: for queries that are rows of the table, their ids, which never count as found; None for others.
    ``origin`` says it in words: "logged production queries", "held-out questions", "rows of the table".
    """

    vectors: Matrix
    own_ids: tuple[str, ...] | None
    origin: str

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Queries:
        """The queries of these numbers, in this order."""
        own = tuple(self.own_ids[number] for number in numbers) if self.own_ids else None
        return Queries(self.vectors[numbers], own, self.origin)


@dataclass(frozen=True)
class Split:
    """The three parts of the queries: to choose by, to correct the choice by, and to certify with, once.

    Each is an array of query numbers (int64).
    """

    tune: np.ndarray[tuple[int], np.dtype[np.int64]]
    validate: np.ndarray[tuple[int], np.dtype[np.int64]]
    test: np.ndarray[tuple[int], np.dtype[np.int64]]

    @property
    def untested(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """All that are not kept for the certificate: what a search costs is foretold by as many as there are."""
        return np.union1d(self.tune, self.validate)


def split(count: int, seed: int = 0) -> Split:
    """Share ``count`` queries out, 30 : 30 : 40, at random but the same for a seed.

    Raises DataError when there are fewer than FEWEST_QUERIES.
    """
    if count < FEWEST_QUERIES:
        raise DataError(
            f"{count} queries cannot be split into parts that tune, validate and test; give at least {FEWEST_QUERIES}"
        )
    order = np.random.default_rng(seed).permutation(count)
    first, second = round(_TUNE * count), round((_TUNE + _VALIDATE) * count)
    return Split(np.sort(order[:first]), np.sort(order[first:second]), np.sort(order[second:]))
