"""What a search costs on the server: a fixed part, a part for each centroid page, a part for each row that is visited.

    milliseconds = a + b · centroid pages + c · rows

Fitted on one real index it holds for indexes with other lists on the same server and rows of the same size, since a
centroid and a row cost the same wherever they lie. How well is told by observations that had no part in the fit.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import Vector
from psycopg import sql
from scipy import optimize

from orchestra_lib.errors import DataError
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.ivf import VirtualIndex
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.pages import centroids_per_page

_FEWEST_OBSERVATIONS = 20
_FOLDS = 5
_REWEIGHTED = 10  # times; the weights settle in fewer
_CENTROID_PRICES = (0.5, 2.0)  # of what is known beforehand
_OUTLIER = 0.1  # relative deviation from which on an observation counts less the further it is off
_METAPAGE_READS = 2  # by the planner and by the scan
_PASSES = 3  # the median counts: neither pages that were cold nor what one pass met on the machine is the query's
# A centroid and a row in microseconds, at 0 and for each dimension: 0.085 and 0.42 at 256, 0.26 and 0.70 at 1,536.
_CENTROID_US, _ROW_US = (0.05, 1.37e-4), (0.364, 2.19e-4)


def centroid_over_row(dimension: int) -> float:
    """What a centroid costs, in rows: 0.20 at 256 dimensions, 0.37 at 1,536, measured on 2 cores of an AMD EPYC.

    Both are compared with the query; centroids lie one behind the other, and are not sorted.
    """
    (centroid, centroid_each), (row, row_each) = _CENTROID_US, _ROW_US
    return (centroid + centroid_each * dimension) / (row + row_each * dimension)


def usual(dimension: int) -> CostModel:
    """What searches cost where these were measured: what is known before anything was, on another machine perhaps."""
    (centroid, centroid_each), (row, row_each) = _CENTROID_US, _ROW_US
    on_a_page = centroids_per_page(dimension, Storage.VECTOR)
    return CostModel(
        0.0,
        on_a_page * (centroid + centroid_each * dimension) / 1e3,
        (row + row_each * dimension) / 1e3,
        0.0,
        (1.0,),
    )


def rows_of_centroid_page(dimension: int) -> float:
    """What a page of centroids costs, in rows."""
    return centroid_over_row(dimension) * centroids_per_page(dimension, Storage.VECTOR)


@dataclass(frozen=True)
class Observation:
    """One query on a real index: what it read, and the server's own milliseconds for it."""

    centroid_pages: int
    rows: float
    server_ms: float


@dataclass(frozen=True)
class CostModel:
    """The three coefficients in milliseconds, all at least 0.

    ``error_relative`` is the median of abs(measured / predicted - 1) over held-out observations; ``ratios`` are their
    measured / predicted, ascending: how a single query scatters about its prediction.
    """

    a_ms: float
    b_ms_per_centroid_page: float
    c_ms_per_row: float
    error_relative: float
    ratios: tuple[float, ...]

    def milliseconds(self, centroid_pages: int, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """What queries that visit so many rows would take on the server, in the shape of ``rows``."""
        return self.a_ms + self.b_ms_per_centroid_page * centroid_pages + self.c_ms_per_row * rows

    def predict(self, index: VirtualIndex, probes: int) -> NDArray[np.float64]:
        """Milliseconds of each query, float64 (q,), without the scatter of single queries."""
        return self.milliseconds(index.centroid_pages, index.rows_visited(probes))

    def quantile_ms(self, index: VirtualIndex, probes: int, share: float) -> float:
        """A quantile over queries and their scatter: 0.95 for the p95 that is to be expected, in milliseconds."""
        return float(np.quantile(np.outer(self.predict(index, probes), self.ratios), share))


def fit(observations: Sequence[Observation], rows_per_centroid_page: float) -> CostModel:
    """Coefficients by non-negative least squares of the relative deviations, outliers weighed down (Huber).

    With one number of centroid pages a cannot be told from b. Such a page then costs what ``rows_per_centroid_page`` do
    (``rows_of_centroid_page``). With several it is found out, between half of that and twice: indexes are timed at
    different moments, and what the machine does between them would else look like the price of a centroid.
    Raises DataError for fewer than 20 observations, or if all visited the same number of rows.
    """
    if len(observations) < _FEWEST_OBSERVATIONS:
        raise DataError(
            f"a cost model from {len(observations)} observations would be chance; give {_FEWEST_OBSERVATIONS} or more"
        )
    if len({seen.rows for seen in observations}) < 2:
        raise DataError("all observations visited the same number of rows; observe at several probes")
    pages = np.array([seen.centroid_pages for seen in observations], dtype=np.float64)
    rows = np.array([seen.rows for seen in observations], dtype=np.float64)
    measured = np.array([seen.server_ms for seen in observations], dtype=np.float64)
    tied = len(set(pages.tolist())) < 2
    ones = np.ones(len(rows))
    # Rows with the pages' cheapest and dearest price: every mixture of the two has a price between them.
    prices = np.array([1.0] if tied else _CENTROID_PRICES) * rows_per_centroid_page
    terms = np.column_stack([ones, *(rows + price * pages for price in prices)])
    ratios = np.sort(np.concatenate([_held_out(terms, measured, fold) for fold in range(_FOLDS)]))
    a, *parts = _coefficients(terms, measured).tolist()
    return CostModel(
        a,
        float(prices @ parts),
        sum(parts),
        float(np.median(np.abs(ratios - 1))),
        tuple(ratios.tolist()),
    )


def observe(
    connection: psycopg.Connection,
    statement: sql.Composed,
    queries: Matrix,
    settings: Sequence[Mapping[str, str]],
    *,
    centroid_pages: int,
    rows_per_page: int,
) -> tuple[Observation, ...]:
    """Run every query under each of these session settings on the IVFFlat index that ``statement`` reads.

    ``statement`` has one parameter, ``query``; each of ``settings`` names "ivfflat.probes" and whatever else a search
    sets. Rows come from the blocks of the index that the server counts, the milliseconds are EXPLAIN's execution time.
    Each runs three times and its median counts: what is observed is warm. They take turns, because one that is repeated
    at once finds its pages in the processor's caches, as no application does. Raises DataError when the plan reads no
    index.
    """
    observations: list[Observation] = []
    # The library must be loaded before its settings exist, or the server takes any text for them.
    connection.execute("SELECT '[1]'::vector <=> '[1]'::vector")
    explain = sql.SQL("EXPLAIN (ANALYZE, TIMING off, FORMAT json) ") + statement
    for given in settings:
        # The last page of a list is half full on average.
        half_pages = int(given["ivfflat.probes"]) * (rows_per_page - 1) / (2 * rows_per_page)
        with connection.transaction():
            for name, value in given.items():
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])
            index = _index(_plan(connection, explain, queries[0])["Plan"])
            passes = [[_read(connection, explain, query, index) for query in queries] for _ in range(_PASSES)]
        for number in range(len(queries)):
            pages = passes[0][number].blocks - _METAPAGE_READS - centroid_pages - half_pages
            milliseconds = statistics.median(measured[number].milliseconds for measured in passes)
            observations.append(Observation(centroid_pages, max(0.0, pages * rows_per_page), milliseconds))
    return tuple(observations)


def _coefficients(terms: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    relative = terms / measured[:, None]
    weights = np.ones(len(measured))
    found = np.zeros(terms.shape[1])
    for _ in range(_REWEIGHTED):
        root = np.sqrt(weights)
        found, _ = optimize.nnls(relative * root[:, None], root)
        deviation = np.abs(relative @ found - 1)
        weights = np.minimum(1, _OUTLIER / np.maximum(deviation, 1e-9))
    return np.asarray(found)


def _held_out(terms: NDArray[np.float64], measured: NDArray[np.float64], fold: int) -> NDArray[np.float64]:
    """Measured / predicted of every fifth observation, from a fit of the others."""
    held = np.arange(len(measured)) % _FOLDS == fold
    predicted = terms[held] @ _coefficients(terms[~held], measured[~held])
    return np.asarray(measured[held] / predicted)


@dataclass(frozen=True)
class _Read:
    blocks: int
    milliseconds: float


def _read(connection: psycopg.Connection, explain: sql.Composed, query: NDArray[np.float32], index: str) -> _Read:
    before = _blocks(connection, index)
    plan = _plan(connection, explain, query)
    return _Read(_blocks(connection, index) - before, float(plan["Execution Time"]))


def _plan(connection: psycopg.Connection, explain: sql.Composed, query: NDArray[np.float32]) -> dict[str, Any]:
    row = connection.execute(explain, {"query": Vector(query)}).fetchone()
    if row is None:
        raise DataError("EXPLAIN gave no plan")
    return dict(row[0][0])


def _index(plan: dict[str, Any]) -> str:
    nodes = [plan]
    while nodes:
        node = nodes.pop()
        if node["Node Type"] == "Index Scan":
            return str(node["Index Name"])
        nodes.extend(node.get("Plans", ()))
    raise DataError(f"the server's plan is a {plan['Node Type']} without an index: set enable_seqscan = off to observe")


def _blocks(connection: psycopg.Connection, index: str) -> int:
    """Blocks of an index that this transaction has read so far; the plan's own count has those of the table in it."""
    row = connection.execute("SELECT pg_stat_get_xact_blocks_fetched(%s::regclass)", [f'"{index}"']).fetchone()
    return int(row[0]) if row else 0
