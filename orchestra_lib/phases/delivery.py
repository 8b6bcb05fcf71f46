"""What a search delivers as it stands: its effort found on some queries, its recall and latency measured on others."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from orchestra_lib.bench.statistics import Estimate, mean, quantile
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forms import EXACT, Effort, Form
from orchestra_lib.vectors.measured import find_effort, measure
from orchestra_lib.vectors.search import Searchable

_NO_EFFORT = Effort(1)


@dataclass(frozen=True)
class Delivery:
    """A search at one time and place. Latencies in milliseconds, one query after another, warm.

    ``when`` and ``where`` are words, such as before and source; ``plan_uses`` is the index that the plan reads.
    """

    when: str
    where: str
    form: Form
    effort: Effort
    recall: Estimate
    p50_ms: Estimate
    p95_ms: Estimate
    p99_ms: Estimate
    hit_at_k: Estimate | None
    mrr: Estimate | None
    plan_uses: str | None

    @property
    def label(self) -> str:
        """Which search this was, for a figure."""
        return f"{self.when}: {self.where}, {self.form.label}"


@dataclass(frozen=True)
class Parts:
    """Queries that may choose an effort, and others that had no part in it."""

    choosing: QuerySet
    reporting: QuerySet


def sufficient_effort(
    connection: psycopg.Connection,
    target: Searchable,
    queries: Parts,
    recall_target: float,
    guess: Effort | None = None,
) -> Effort:
    """The least effort whose recall clears the target on the queries that choose, else the most there is."""
    if target.form == EXACT:
        return _NO_EFFORT
    begin = guess or target.form.usual_effort(target.k)
    return find_effort(connection, target, queries.choosing, begin, recall_target).effort


def delivered(
    connection: psycopg.Connection, target: Searchable, queries: Parts, effort: Effort, when: str, where: str
) -> Delivery:
    """Search with the queries that chose nothing, once to warm up and once to measure."""
    measure(connection, target, queries.reporting, effort)
    found = measure(connection, target, queries.reporting, effort)
    times, answers = found.milliseconds, queries.reporting.answers
    ranks = [_reciprocal_rank(own, ids) for own, ids in zip(answers or (), found.ids, strict=bool(answers))]
    return Delivery(
        when=when,
        where=where,
        form=target.form,
        effort=effort,
        recall=found.recall,
        p50_ms=quantile(times, 0.50),
        p95_ms=quantile(times, 0.95),
        p99_ms=quantile(times, 0.99),
        hit_at_k=mean([float(rank > 0) for rank in ranks]) if ranks else None,
        mrr=mean(ranks) if ranks else None,
        plan_uses=found.index,
    )


def _reciprocal_rank(answer: str, found: tuple[str, ...]) -> float:
    return 1 / (found.index(answer) + 1) if answer in found else 0.0
