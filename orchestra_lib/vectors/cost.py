"""What a search costs on the server: a fixed part, a part for each centroid page, a part for each row that is visited.

    milliseconds = a + b · centroid pages + c · rows

Fitted on one real index, it holds for indexes with other lists on the same server and table, since a centroid and a
row cost the same wherever they lie. How well it holds is told by observations that had no part in the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from orchestra_lib.vectors.ivf import VirtualIndex
from orchestra_lib.vectors.nearest import Matrix


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

    def milliseconds(self, centroid_pages: float, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """What queries that visit so many rows would take on the server, in the shape of ``rows``."""
        return self.a_ms + self.b_ms_per_centroid_page * centroid_pages + self.c_ms_per_row * rows

    def predict(self, index: VirtualIndex, probes: int) -> NDArray[np.float64]:
        """Milliseconds of each query, float64 (q,), without the scatter of single queries."""
        return self.milliseconds(index.centroid_pages, index.rows_visited(probes))

    def quantile_ms(self, index: VirtualIndex, probes: int, share: float) -> float:
        """A quantile over queries and their scatter: 0.95 for the p95 that is to be expected, in milliseconds."""
        return float(np.quantile(np.outer(self.predict(index, probes), self.ratios), share))


def fit(observations: Sequence[Observation], centroids_per_page: int) -> CostModel:
    """Coefficients by non-negative least squares of the relative deviations, outliers weighed down.

    With one number of centroid pages a cannot be told from b; a centroid is then taken to cost what a row costs: both
    are one distance. Raises DataError for fewer than 20 observations or fewer than two different numbers of rows.
    """
    raise NotImplementedError


def observe(
    connection: psycopg.Connection,
    statement: sql.Composable,
    queries: Matrix,
    probes_options: Sequence[int],
    *,
    centroid_pages: int,
    rows_per_page: int,
) -> tuple[Observation, ...]:
    """Run every query at each of these probes on the index that ``statement`` (one parameter, the vector) reads.

    Rows come from the buffers that EXPLAIN counts. Each query runs once unmeasured before: what is observed is warm.
    Raises DataError when the plan reads no index.
    """
    raise NotImplementedError
