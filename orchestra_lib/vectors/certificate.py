"""The certificate: what an index delivers on queries that had no part in choosing it, with the intervals that count."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.vectors.forms import Effort, Form


@dataclass(frozen=True)
class Loaded:
    """Latency in one state of the caches, in milliseconds from the moment that a query was meant to start.

    ``state``: "warm", "cold" or "after restart". ``offered_per_second`` None: one client, one query after another.
    ``failures`` are queries without an answer.
    """

    state: str
    offered_per_second: float | None
    achieved_per_second: float
    p50_ms: Estimate
    p95_ms: Estimate
    p99_ms: Estimate
    failures: int


@dataclass(frozen=True)
class Mix:
    """One kind of query: ``name`` is "all rows" or the column that is filtered by.

    ``short_answers`` counts queries that got fewer rows than there are to get; they cost recall too.
    """

    name: str
    recall: Estimate
    p95_ms: Estimate
    short_answers: int


@dataclass(frozen=True)
class Attempt:
    """One effort that was put to the test queries: the first one chosen, or the notch above it."""

    effort: Effort
    recall: Estimate


@dataclass(frozen=True)
class Certificate:
    """What holds for ``form`` at ``effort``: measured once on the test queries, one notch up allowed.

    ``recall`` counts ties as right, ``strict_recall`` only the very ids; ``recall_p5`` and ``recall_p10`` are quantiles
    over queries, ``poor_share`` the share of queries that find less than half. ``warm`` is the state that the p95 is
    certified in; ``others`` are those that could be brought about, ``missing`` says in words which could not and why.
    ``holds`` is true when the lower bound of the recall clears the target in every mix, the upper bound of the p95 is
    within the budget at the offered load, that load was achieved and no answer is short; ``reasons`` are the plain
    sentences for that, one a condition. ``index`` is what the plan read: None for the table itself.
    """

    form: Form
    effort: Effort
    index: str | None
    rows: int
    k: int
    recall_target: float
    p95_budget_ms: float
    recall: Estimate
    strict_recall: Estimate
    recall_p5: float
    recall_p10: float
    poor_share: float
    warm: Loaded
    others: tuple[Loaded, ...]
    missing: tuple[str, ...]
    mixes: tuple[Mix, ...]
    attempts: tuple[Attempt, ...]
    holds: bool
    reasons: tuple[str, ...]
