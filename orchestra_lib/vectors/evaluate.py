"""Queries with their exact neighbours: what a search's answers are held against."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.truth import Truth


@dataclass(frozen=True)
class QuerySet:
    """Queries (float32, (q, dimension)) and the exact neighbours of each.

    ``answers`` holds the id of the row that answers each query, where that is known; None for queries that are
    themselves rows of the table.
    """

    vectors: Matrix
    answers: tuple[str, ...] | None
    truth: Truth

    def part(self, start: int, step: int) -> QuerySet:
        """Every ``step``-th query from ``start``."""
        answers = self.answers[start::step] if self.answers else None
        return QuerySet(self.vectors[start::step], answers, self.truth.part(start, step))
