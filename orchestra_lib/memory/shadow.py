"""Both stores asked the same questions, before the one takes the other's place: what comes back, and how fast.

Every difference is explained by looking: at the rows themselves on both sides, and at the exact nearest neighbours on
both. What was only on its way when it was asked for is asked for again once the stream has brought it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from orchestra_lib.bench.statistics import Estimate, mean, quantile
from orchestra_lib.database import connect
from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.memory.compare import KeyComparison, KeyReader, Store
from orchestra_lib.memory.lsn import lsn_text
from orchestra_lib.memory.slot import mark
from orchestra_lib.vectors.forms import Effort
from orchestra_lib.vectors.nearest import TIE, Matrix
from orchestra_lib.vectors.search import Searchable, searching
from orchestra_lib.vectors.truth import OPERATORS, Truth, exact_neighbours

_NAMED = 3
_UNIT_LENGTH_TOLERANCE = 1e-3


class Why(StrEnum):
    """Why a row came back from one store and not from the other."""

    MISSING = "missing"  # the other store does not have it
    VERSION = "version"  # the stores hold different versions of it
    METRIC = "metric"  # the stores measure distance differently
    APPROXIMATE = "approximate"  # one of the indexes did not find what an exact search finds
    TIE = "tie"  # it is as near as the last row that came back
    ON_ITS_WAY = "on its way"  # the same once the stream had brought what was written meanwhile
    UNEXPLAINED = "unexplained"


# What an index that is told to look at a part of the rows, equal distances and a running stream bring about by nature.
_BY_NATURE = frozenset({Why.APPROXIMATE, Why.TIE, Why.ON_ITS_WAY})
_CLAIMS = {
    Why.MISSING: "rows that only one store has",
    Why.VERSION: "rows of which the stores hold different versions",
    Why.METRIC: "rows that the stores rank by different measures of distance",
    Why.APPROXIMATE: "rows that one store's index did not find",
    Why.TIE: "rows as near as the last one that came back",
    Why.ON_ITS_WAY: "rows that were on their way",
    Why.UNEXPLAINED: "rows without an explanation",
}


@dataclass(frozen=True)
class ShadowSide:
    """A store as it is searched: the table and operator class that the application uses there, and the effort."""

    store: Store
    searchable: Searchable
    effort: Effort


@dataclass(frozen=True)
class Explained:
    """A row that came back for a query (by its number) from one side, ``only_on``, and why."""

    query: int
    id: str
    only_on: str
    why: Why
    told: str


@dataclass(frozen=True)
class Shadowed:
    """What asking both stores came to. ``agreement``: the share of the k rows that both gave, ties not held against it.

    Latencies are milliseconds at this client, each query asked of both sides in turn, warm.
    """

    queries: int
    k: int
    agreement: Estimate
    alike: int
    milliseconds: Mapping[str, NDArray[np.float64]]
    differences: tuple[Explained, ...]

    def count(self, why: Why) -> int:
        """How many rows differ for this reason."""
        return sum(row.why is why for row in self.differences)

    def evidence(self) -> tuple[Evidence, ...]:
        """Differences that nature does not explain have to be none; agreement and latencies are readings."""
        return (
            Evidence(
                f"agreement@{self.k} of both stores",
                Source.MEASURED,
                round(self.agreement.value, 4),
                note=f"{self.agreement}; {self.alike:,} of {self.queries:,} queries were answered alike",
            ),
            *(self._claim(why) for why in Why),
            *(
                Evidence(
                    f"{name} latency of the {role}",
                    Source.MEASURED,
                    round(quantile(elapsed, share).value, 3),
                    "ms",
                    note=f"{quantile(elapsed, share)}, {len(elapsed):,} queries, both stores in turn",
                )
                for role, elapsed in self.milliseconds.items()
                for name, share in (("p50", 0.50), ("p95", 0.95))
            ),
        )

    def _claim(self, why: Why) -> Evidence:
        rows = [row for row in self.differences if row.why is why]
        named = "; ".join(f"{row.id} only on the {row.only_on}: {row.told}" for row in rows[:_NAMED])
        bound = None if why in _BY_NATURE else Bound("==", 0)
        return Evidence(_CLAIMS[why], Source.MEASURED, len(rows), "rows", bound, note=named)


def index_opclass(connection: psycopg.Connection, table: sql.Composable, column: str) -> str | None:
    """The operator class of the vector index on a column; None where there is none, or one that is none of vectors."""
    row = connection.execute(
        """
        SELECT o.opcname FROM pg_index i JOIN pg_opclass o ON o.oid = i.indclass[0]
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = %s::regclass AND i.indisvalid AND a.attname = %s AND o.opcname = ANY(%s)
        ORDER BY o.opcname LIMIT 1
        """,
        [table.as_string(connection), column, list(OPERATORS)],
    ).fetchone()
    return row[0] if row else None


def shadow(
    source: ShadowSide,
    target: ShadowSide,
    queries: Matrix,
    wait_for: Callable[[int, float], bool],
    progress: Callable[[int], None] = lambda _done: None,
    timeout_seconds: float = 60.0,
) -> Shadowed:
    """Ask both stores every query and explain what differs.

    ``queries`` is float32 (q, dimension); ``wait_for(lsn, timeout_seconds)`` returns whether the stream has brought
    everything before ``lsn``; ``progress`` is called with the number of queries asked. Raises DataError when the stores
    are asked for different numbers of rows, or the stream does not come.
    """
    if source.searchable.k != target.searchable.k:
        raise DataError(
            f"the source is asked for {source.searchable.k} rows and the target for {target.searchable.k}: "
            "ask both for the same number"
        )
    sides = (source, target)
    with ExitStack() as stack:
        sessions = [stack.enter_context(connect(side.store.address, role=side.store.role)) for side in sides]
        asked = _Asked(sides, sessions, queries)
        asked.ask_all(progress)
        differing = [number for number in range(len(queries)) if asked.differs(number)]
        found: list[Explained] = []
        if differing:
            lsn = mark(sessions[0])
            if not wait_for(lsn, timeout_seconds):
                raise DataError(
                    f"the stream did not pass {lsn_text(lsn)} within {timeout_seconds:g} s: look at its lag"
                )
            found = _explained(asked, differing, wait_for, timeout_seconds)
    held_against = Counter((row.query, row.only_on) for row in found if row.why is not Why.TIE)
    missed = [max(held_against[number, side.store.role] for side in sides) for number in range(len(queries))]
    wanted = [max(len(answer[number]) for answer in asked.answers) for number in range(len(queries))]
    shares = [1 - lost / of if of else 1.0 for lost, of in zip(missed, wanted, strict=True)]
    return Shadowed(
        queries=len(queries),
        k=source.searchable.k,
        agreement=mean(shares),
        alike=len(queries) - len(differing),
        milliseconds={side.store.role: elapsed for side, elapsed in zip(sides, asked.milliseconds, strict=True)},
        differences=tuple(found),
    )


class _Asked:
    """The answers of both sides, first and, for some queries, once more."""

    def __init__(self, sides: Sequence[ShadowSide], sessions: Sequence[psycopg.Connection], queries: Matrix) -> None:
        self.sides, self.sessions, self.queries = sides, sessions, queries
        self.answers: list[list[tuple[str, ...]]] = [[()] * len(queries) for _ in sides]
        self.milliseconds = [np.empty(len(queries)) for _ in sides]

    def ask_all(self, progress: Callable[[int], None]) -> None:
        """Ask every query twice, first to warm up; the side that comes first changes from query to query."""
        with ExitStack() as stack:
            ask = [
                stack.enter_context(searching(session, side.searchable, side.effort))
                for side, session in zip(self.sides, self.sessions, strict=True)
            ]
            for warming in (True, False):
                for number, query in enumerate(self.queries):
                    for side in (0, 1) if number % 2 else (1, 0):
                        self.answers[side][number], self.milliseconds[side][number] = ask[side](query)
                    if not warming:
                        progress(number + 1)

    def again(self, numbers: Sequence[int]) -> list[dict[int, tuple[str, ...]]]:
        """What each side answers to some of the queries now."""
        answers: list[dict[int, tuple[str, ...]]] = []
        for side, session in zip(self.sides, self.sessions, strict=True):
            with searching(session, side.searchable, side.effort) as ask:
                answers.append({number: ask(self.queries[number])[0] for number in numbers})
        return answers

    def differs(self, number: int) -> bool:
        """Whether the sides gave different rows; their order does not matter."""
        return set(self.answers[0][number]) != set(self.answers[1][number])


def _explained(
    asked: _Asked, numbers: Sequence[int], wait_for: Callable[[int, float], bool], timeout_seconds: float
) -> list[Explained]:
    """An explanation of every row that one side gave and the other did not."""
    again = asked.again(numbers)
    still = [number for number in numbers if set(again[0][number]) != set(again[1][number])]
    truths = [
        exact_neighbours(session, sql.SQL("({}) AS rows").format(side.store.table.select), asked.queries[still],
                         side.searchable.k, side.searchable.opclass)
        for side, session in zip(asked.sides, asked.sessions, strict=True)
    ] if still else []  # fmt: skip
    involved = {key for answers in again for number in still for key in answers[number]}
    involved |= {key for truth in truths for ids in truth.ids for key in ids}
    rows = _Rows(asked, involved, wait_for, timeout_seconds)
    found: list[Explained] = []
    for number in numbers:
        place = still.index(number) if number in still else None
        for here, other in ((0, 1), (1, 0)):
            role = asked.sides[here].store.role
            now = {key: True for key in again[here][number] if key not in again[other][number]}
            for key in asked.answers[here][number]:
                if key not in asked.answers[other][number] and key not in now:
                    found.append(Explained(number, key, role, Why.ON_ITS_WAY, "asked again, both gave the same"))
            if place is not None:
                looking = _Looking(asked, rows, truths, place, here, other)
                found += [Explained(number, key, role, *looking.why(key)) for key in now]
    return found


class _Rows:
    """The rows themselves, on both sides: which differ, in which versions, and whether their vectors have length 1."""

    def __init__(
        self, asked: _Asked, keys: Collection[str], wait_for: Callable[[int, float], bool], timeout_seconds: float
    ) -> None:
        stores = [side.store for side in asked.sides]
        comparison = KeyComparison(stores[0], stores[1], (asked.sessions[0], asked.sessions[1]))
        try:
            real, self.moving = comparison.settle(keys, wait_for, timeout_seconds)
        finally:
            comparison.close()
        self.different = {row.id for row in real}
        facts = sql.SQL("version, vector_norm(embedding)")
        self._facts = [
            {key: (version, norm) for key, version, norm in KeyReader(session, store.table, facts).read(sorted(keys))}
            for session, store in zip(asked.sessions, stores, strict=True)
        ]

    def versions(self, key: str) -> tuple[int | None, int | None]:
        """The versions on the source and on the target; None where the row is not there."""
        theirs, ours = (facts[key][0] if key in facts else None for facts in self._facts)
        return theirs, ours

    def length(self, key: str) -> float | None:
        """The length of its vector on the source, else on the target."""
        return next((facts[key][1] for facts in self._facts if key in facts), None)


@dataclass(frozen=True)
class _Looking:
    """One query that both sides answered differently, looked at from the side ``here`` (0 or 1)."""

    asked: _Asked
    rows: _Rows
    truths: Sequence[Truth]
    query: int
    here: int
    other: int

    def why(self, key: str) -> tuple[Why, str]:
        """Why a row that came back here did not come back there."""
        here, there = (self.asked.sides[side].store.role for side in (self.here, self.other))
        ours, theirs = (self.truths[side].accepted(self.query) for side in (self.here, self.other))
        if own := self._row_differs(key):
            return own
        if self._is_tie(key):
            return Why.TIE, "as near as the last row that came back"
        if key in theirs:
            return Why.APPROXIMATE, f"an exact search finds it on the {there} too"
        if key not in ours:
            return Why.APPROXIMATE, f"an exact search on the {here} finds nearer rows"
        classes = {side.searchable.opclass for side in self.asked.sides}
        if len(classes) > 1:
            return Why.METRIC, self._metric_told(key)
        for instead in sorted(theirs - ours):
            if cause := self._row_differs(instead):
                return cause[0], f"{instead} stands before it on the {there}: {cause[1]}"
        return Why.UNEXPLAINED, "the row is the same on both sides, and so is the measure of distance"

    def _row_differs(self, key: str) -> tuple[Why, str] | None:
        if key in self.rows.moving:
            return Why.ON_ITS_WAY, "it is written all the time"
        if key not in self.rows.different:
            return None
        source, target = self.rows.versions(key)
        if source is None or target is None:
            return Why.MISSING, f"the {'source' if source is None else 'target'} does not have it"
        if source == target:
            return Why.VERSION, f"version {source} on both sides, and other bytes"
        behind = "target" if target < source else "source"
        return Why.VERSION, f"version {source} on the source, {target} on the target: the {behind} is behind"

    def _is_tie(self, key: str) -> bool:
        truth = self.truths[self.other]
        distances = truth.distances[self.query]
        own = dict(zip(truth.ids[self.query], distances, strict=True)).get(key)
        edge = distances[min(truth.k, len(distances)) - 1]
        return own is not None and abs(own - edge) <= TIE and len(distances) > truth.k

    def _metric_told(self, key: str) -> str:
        classes = " against ".join(side.searchable.opclass for side in self.asked.sides)
        length = self.rows.length(key)
        unit = length is not None and abs(length - 1) <= _UNIT_LENGTH_TOLERANCE
        return f"{classes}; its vector has length {length:.4f}{'' if unit else ', not 1'}"
