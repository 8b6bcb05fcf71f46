"""What an index delivers: the smallest probes that reach the recall target, and the latency that it then has.

Half of the queries choose the probes, the other half are measured once with that choice and are what is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psycopg

from orchestra_lib.bench.statistics import Estimate, mean, quantile
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.forms import Effort
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.search import Searchable, SearchRun, hits, recalls, reciprocal_ranks, search
from orchestra_lib.vectors.truth import Truth

FEWEST_QUERIES = 20
"""Fewer cannot be split into a half that chooses and a half that is reported."""


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


@dataclass(frozen=True)
class ProbePoint:
    """One point of an index's recall/latency curve, from the queries that choose."""

    probes: int
    recall: Estimate
    p95_ms: float


@dataclass(frozen=True)
class Evaluation:
    """An index at its chosen probes, from the queries that did not choose them. Latencies in milliseconds."""

    label: str
    lists: int | None
    probes: int
    rows: int
    recall: Estimate
    p50_ms: Estimate
    p95_ms: Estimate
    p99_ms: Estimate
    hit_at_k: Estimate | None
    mrr: Estimate | None
    short_answers: int
    plan_uses: str | None
    plan_left_alone: str | None
    curve: tuple[ProbePoint, ...]


def evaluate(
    connection: psycopg.Connection,
    target: Searchable,
    queries: QuerySet,
    lists: int | None,
    recall_target: float,
    probes: int | None,
    label: str,
) -> Evaluation:
    """Choose probes (unless given), then measure once more on the other half of the queries.

    ``lists`` is None where there is no IVFFlat index: there are then no probes to choose. Raises DataError when there
    are too few queries to split.
    """
    if len(queries.vectors) < FEWEST_QUERIES:
        raise DataError(
            f"{len(queries.vectors)} queries cannot be split into two useful halves; give at least {FEWEST_QUERIES}"
        )
    choosing, reporting = queries.part(0, 2), queries.part(1, 2)
    curve = probe_curve(connection, target, choosing, lists, recall_target) if lists else ()
    chosen = probes or (with_notch(choose_probes(curve, recall_target), lists) if lists else 1)
    effort = Effort(chosen)
    search(connection, target, reporting.vectors, effort)  # pages in and plan cached: what follows is warm
    run = search(connection, target, reporting.vectors, effort)
    return _evaluation(run, target, reporting, lists, label, curve)


def probe_curve(
    connection: psycopg.Connection, target: Searchable, queries: QuerySet, lists: int, recall_target: float
) -> tuple[ProbePoint, ...]:
    """Recall and p95 at 1, 2, 4 … probes until the target is passed, then between the last two by bisection."""
    points: dict[int, ProbePoint] = {}

    def clears(probes: int) -> bool:
        if probes not in points:
            run = search(connection, target, queries.vectors, Effort(probes))
            recall = mean(recalls(run, queries.truth))
            points[probes] = ProbePoint(probes, recall, float(np.quantile(run.milliseconds, 0.95)))
        return points[probes].recall.low >= recall_target

    probes, below = 1, 0
    while not clears(probes) and probes < lists:
        below, probes = probes, min(2 * probes, lists)
    above = probes
    while above - below > max(1, above // 16):
        middle = (above + below) // 2
        above, below = (middle, below) if clears(middle) else (above, middle)
    return tuple(points[probes] for probes in sorted(points))


def choose_probes(curve: Sequence[ProbePoint], recall_target: float) -> int:
    """The fewest probes whose recall clears the target with its lower bound; the most measured if none does."""
    clearing = [point.probes for point in curve if point.recall.low >= recall_target]
    return min(clearing) if clearing else max(point.probes for point in curve)


def with_notch(probes: int, lists: int) -> int:
    """The probes to run with: a quarter more than the fewest that sufficed, never more than there are lists.

    The fewest were picked because they looked good on one half of the queries; on others they come out a little worse
    (the winner's curse). The margin is fixed beforehand, so the reported half is measured once and stays honest.
    """
    return min(lists, probes + max(1, -(-probes // 4)))


def _evaluation(
    run: SearchRun,
    target: Searchable,
    queries: QuerySet,
    lists: int | None,
    label: str,
    curve: tuple[ProbePoint, ...],
) -> Evaluation:
    wanted = min(target.k, queries.truth.rows)
    return Evaluation(
        label=label,
        lists=lists,
        probes=run.effort.value,
        rows=queries.truth.rows,
        recall=mean(recalls(run, queries.truth)),
        p50_ms=quantile(run.milliseconds, 0.50),
        p95_ms=quantile(run.milliseconds, 0.95),
        p99_ms=quantile(run.milliseconds, 0.99),
        hit_at_k=mean(hits(run, queries.answers)) if queries.answers else None,
        mrr=mean(reciprocal_ranks(run, queries.answers)) if queries.answers else None,
        short_answers=sum(len(found) < wanted for found in run.ids),
        plan_uses=run.plan_uses,
        plan_left_alone=run.plan_left_alone,
        curve=curve,
    )
