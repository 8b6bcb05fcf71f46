"""One index, measured: what it finds and how long it takes at an effort, and the least effort that suffices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import psycopg
from numpy.typing import NDArray

from orchestra_lib.bench.statistics import Estimate, mean, quantile
from orchestra_lib.errors import DataError
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forms import LARGEST_EFFORT, Effort, Form, Method
from orchestra_lib.vectors.search import Searchable, search
from orchestra_lib.vectors.truth import Truth

_FINEST = 32  # an effort is found to one part in so many
_ENOUGH_FOR_A_P95 = 300
_NOTCH = 1.5
"""Of 180 choices on 400 questions of the rehearsal's corpus 39 % are certified as they are, 92 % with a quarter more
effort, 99 % with half more; on 2,000 questions 58 %, 99 %, 99 %."""


@dataclass(frozen=True)
class Measured:
    """A pass over queries: recall and milliseconds of each (float64 (q,)), and the index that the plan read.

    ``ids`` are the answers; ``short`` is how many of them had fewer rows than there are.
    """

    effort: Effort
    ids: tuple[tuple[str, ...], ...]
    short: int
    recalls: NDArray[np.float64]
    milliseconds: NDArray[np.float64]
    index: str | None

    @property
    def recall(self) -> Estimate:
        """Recall@k with the interval over the queries."""
        return mean(self.recalls)

    @property
    def p95_ms(self) -> Estimate:
        """The p95 at the client, one query after another."""
        return quantile(self.milliseconds, 0.95)


def measure(
    connection: psycopg.Connection,
    target: Searchable,
    queries: QuerySet,
    effort: Effort,
    *,
    passes: int = 1,
    values: Sequence[Sequence[str]] | None = None,
) -> Measured:
    """Search with every query, ``passes`` times, and pool the times; the recall is that of the last pass.

    ``values`` holds each query's values of the columns that are filtered by, to which the truth then belongs. Raises
    DataError when the plan of a search without filters does not read an index of the form that is to be measured.
    """
    runs = [search(connection, target, queries.vectors, effort, values) for _ in range(passes)]
    # With a filter the planner may do better by an index on the filter's column: that is for it to say.
    if values is None and (runs[-1].plan_uses is None) != (target.form.method is Method.EXACT):
        raise DataError(
            f"{target.form.label} cannot be measured: the plan reads {runs[-1].plan_uses or 'the whole table'}; "
            "look at the statement's plan with EXPLAIN"
        )
    times = np.concatenate([run.milliseconds for run in runs])
    truth, ids = queries.truth, runs[-1].ids
    short = sum(len(truth.without_self(number, found)) < truth.wanted(number) for number, found in enumerate(ids))
    return Measured(effort, ids, short, recalls_of(ids, truth), times, runs[-1].plan_uses)


def recalls_of(ids: Sequence[tuple[str, ...]], truth: Truth) -> NDArray[np.float64]:
    """Recall of each query, of as many rows as there are for it; ties count as right, missing rows as misses."""
    shares = np.ones(len(ids))
    for number, found in enumerate(ids):
        if wanted := truth.wanted(number):
            right = len(truth.accepted(number).intersection(truth.without_self(number, found)))
            shares[number] = min(right, wanted) / wanted
    return shares


def clears(recall: NDArray[np.float64], recall_target: float) -> bool:
    """Whether the lower bound over these queries clears the target. Finding everything counts, however few they are."""
    return bool(recall.min() == 1) or mean(recall).low >= recall_target


def least_effort(sufficient: Callable[[int], bool], guess: int, fewest: int, most: int) -> int | None:
    """The least effort that suffices, to one part in 32, given that more never finds less; None when none does.

    It is bracketed from a guess in steps that double and then bisected: two measurements where the guess is right.
    """
    guess = min(max(guess, fewest), most)
    step = max(1, guess // _FINEST)
    if sufficient(guess):
        above, below = guess, fewest - 1
        while above > fewest:
            lower = max(fewest, above - step)
            if not sufficient(lower):
                below = lower
                break
            above, step = lower, 2 * step
    else:
        below, above = guess, guess
        while True:
            if above >= most:
                return None
            above, step = min(most, above + step), 2 * step
            if sufficient(above):
                break
            below = above
    while above - below > max(1, above // _FINEST):
        middle = (above + below) // 2
        above, below = (middle, below) if sufficient(middle) else (above, middle)
    return above


def find_effort(
    connection: psycopg.Connection,
    target: Searchable,
    queries: QuerySet,
    guess: Effort,
    recall_target: float,
    values: Sequence[Sequence[str]] | None = None,
    fewest: int = 1,
) -> Measured:
    """The least effort of an index that clears the target on these queries, measured warm; else the most there is.

    Less than ``fewest`` is known not to.
    """
    most = largest_effort(target.form)
    found: dict[int, Measured] = {}

    def sufficient(value: int) -> bool:
        if value not in found:
            found[value] = measure(connection, target, queries, replace(guess, value=value), values=values)
        return clears(found[value].recalls, recall_target)

    if target.form.method is Method.HNSW:
        fewest = max(guess.rerank or target.k, fewest)
    value = least_effort(sufficient, guess.value, fewest, most)
    # Everything that was read by then is warm.
    effort = replace(guess, value=value or most)
    return measure(connection, target, queries, effort, passes=timing_passes(len(queries.vectors)), values=values)


def timing_passes(queries: int) -> int:
    """How often so many queries are asked to time an index: one pass, or two where they are too few for a p95."""
    return 1 if queries >= _ENOUGH_FOR_A_P95 else 2


def largest_effort(form: Form) -> int:
    """The most that a search of this form can do: all lists, or the setting's own limit."""
    limit = LARGEST_EFFORT.get(form.method, 1)
    # With probes for every list the planner avoids the index.
    return min(limit, max(1, form.lists - 1)) if form.method is Method.IVFFLAT and form.lists else limit


def one_notch_up(form: Form, effort: Effort) -> Effort:
    """Half more effort, never more than there is: fixed beforehand, so that a second attempt stays honest."""
    return replace(effort, value=min(largest_effort(form), math.ceil(effort.value * _NOTCH)))
