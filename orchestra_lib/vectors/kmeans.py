"""Centroids as pgvector trains them, outside of the database: k-means++, then Lloyd's iterations until little moves.

pgvector uses Elkan's bounds, which save distances and change no result. Here whole blocks are scored by one matrix
product. Most rows that change their centre go to one that lies near it, so most iterations look at these alone; every
few, and before the end, rows are compared with all centres. For
inner product and cosine the centres are scaled to unit length after each iteration, and a centre without rows is drawn
anew, as pgvector does (https://github.com/pgvector/pgvector/blob/v0.8.5/src/ivfkmeans.c).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.vectors.nearest import Matrix

Labels = NDArray[np.int64]

ITERATIONS = 12
"""pgvector gives itself 500; from about ten on recall curves differ less than those of two seeds do."""
_SETTLED = 0.01
"""Share of the rows: where no more change their centre, the rest moves recall curves less than another seed does."""
_WHOLE_EVERY = 6  # iterations: the others look for a row's centre near the one that it has
_ITERATIONS_PER_E_FOLD = 2.4  # of the rows per list
_NEAR = 64  # centres that are looked at then
_NEAR_IS_WORTH = 600  # centres of an iteration that looks at all, on 2 cores of an AMD EPYC
_SECONDS_OF_A_DIMENSION = 1.3e-11  # of a distance in a matrix product
_FEW_LISTS = 4 * _NEAR  # up to which all are looked at each time
_CENTRES_AT_ONCE = 64
_SAMPLES_PER_LIST = 50
_FEWEST_SAMPLES = 10_000
_SCORES_AT_ONCE = 1 << 20  # 4 MiB: what a core's own caches hold
_CANDIDATES_AT_ONCE = 256  # of k-means++


@dataclass(frozen=True)
class Trained:
    """``centroids``: float32 (lists, d); ``labels``: int64 (n,), the list of each row that was trained on.

    ``projected``: the same centroids in the space that the training took place in.
    """

    centroids: Matrix
    labels: Labels
    projected: Matrix


def training_rows(lists: int) -> int:
    """How many rows pgvector samples to train ``lists`` centroids: 50 each, at least 10,000."""
    return max(_SAMPLES_PER_LIST * lists, _FEWEST_SAMPLES)


def training_work(lists: int, rows: int) -> float:
    """About how much ``train`` has to do for so many lists of a table, in distances: to compare two trainings' times.

    The first choice is one comparison of every row with every centre, and so is each iteration that looks at all.
    """
    trained_on = min(training_rows(lists), rows)
    iterations = _usual_iterations(trained_on / lists)
    whole = 2 + (iterations - 1) // _WHOLE_EVERY
    return trained_on * (whole * lists + (iterations + 1 - whole) * min(lists, _NEAR_IS_WORTH))


def _usual_iterations(rows_per_list: float) -> int:
    """After how many hardly a row moves, counted on the corpus and two synthetic families with 6 to 250 rows a list."""
    return max(2, min(ITERATIONS, math.ceil(_ITERATIONS_PER_E_FOLD * math.log(max(rows_per_list, 1.0)))))


def usual_training_seconds(lists: int, rows: int, dimension: int) -> float:
    """About how long ``train`` takes, where none was timed yet: on 2 cores of an AMD EPYC."""
    return training_work(lists, rows) * dimension * _SECONDS_OF_A_DIMENSION


def train(
    rows: Matrix,
    lists: int,
    *,
    spherical: bool,
    seed: int,
    iterations: int = ITERATIONS,
    axes: Matrix | None = None,
    projected: Matrix | None = None,
) -> Trained:
    """Train centroids on rows, float32 (n, d).

    ``spherical`` is what pgvector does for cosine and inner product: the rows have to be of unit length then, as
    ``directions`` makes them, and the centroids are. With ``axes`` (d, a) and ``projected`` (n, a), the rows along
    these, groups are found there and their means taken in all dimensions.
    Raises DataError without rows, ParameterError without lists.
    """
    if lists < 1:
        raise ParameterError(f"{lists} lists cannot be trained; give at least 1")
    if not len(rows):
        raise DataError("there is no row that centroids could be trained on")
    rng = np.random.default_rng(seed)

    def draw(count: int) -> Matrix:
        drawn = rng.random((count, rows.shape[1]), dtype=np.float32)
        return _unit(drawn) if spherical else drawn

    with threadpool_limits(1, user_api="blas"):  # the blocks are shared out by ourselves
        if axes is None or projected is None:
            training = _Training(rows, lists, spherical, draw)
            training.run(iterations, rng)
            return Trained(training.centres, training.labels, training.centres)
        training = _Training(projected, lists, spherical, lambda count: draw(count) @ axes)
        training.run(iterations, rng)
        centroids = _means(rows, training.labels, lists)
        empty = np.bincount(training.labels, minlength=lists) == 0
        centroids[empty] = draw(int(empty.sum()))
        return Trained(_unit(centroids) if spherical else centroids, training.labels, training.centres)


def assign(vectors: Matrix, centroids: Matrix, *, spherical: bool) -> Labels:
    """The nearest centroid of each vector, int64 (n,): the list that pgvector puts it into."""
    with threadpool_limits(1, user_api="blas"):
        labels, _ = _best(vectors, centroids, _offsets(centroids, spherical))
    return labels


def directions(vectors: Matrix) -> Matrix:
    """The vectors at unit length, float32. Zero vectors have no direction and are left out."""
    return _unit(vectors[np.any(vectors, axis=1)])


def _unit(vectors: Matrix) -> Matrix:
    lengths = np.sqrt(np.vecdot(vectors, vectors))[:, None]
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), dtype=np.float32)


class _Training:
    """Rows, their centres so far, and the centre of each row with its score: higher is nearer."""

    def __init__(self, rows: Matrix, lists: int, spherical: bool, draw: Callable[[int], Matrix]) -> None:
        self._rows, self._lists, self._spherical, self._draw = rows, lists, spherical, draw
        self._squares = np.vecdot(rows, rows)
        self.centres: Matrix = np.zeros((lists, rows.shape[1]), dtype=np.float32)
        self._scores: Matrix = np.full(len(rows), -np.inf, dtype=np.float32)
        self.labels: Labels = np.zeros(len(rows), dtype=np.int64)

    def run(self, iterations: int, rng: np.random.Generator) -> None:
        """Choose the first centres and improve them so often, or until hardly a row changes its centre."""
        self._choose(rng)
        is_near_settled = False
        for iteration in range(1, iterations + 1):
            before = self.labels
            self._move()
            among_all = iteration % _WHOLE_EVERY == 0 or iteration == iterations or self._lists <= _FEW_LISTS
            if among_all or is_near_settled:
                self.labels, _ = self._best(self._rows, self.centres)
            else:
                self.labels = self._best_near()
            is_settled = int(np.count_nonzero(before != self.labels)) <= _SETTLED * len(before)
            if is_settled and (among_all or is_near_settled):
                return
            is_near_settled = is_settled

    def _choose(self, rng: np.random.Generator) -> None:
        """The first centres, by k-means++: each a row drawn by the square of its distance to those before it.

        Many are drawn at once, by distances that are then a little old, and a row is kept with the probability by
        which it has come nearer since: that is the same distribution, at the speed of a matrix product.
        """
        self._take(0, np.array([rng.integers(len(self._rows))]))
        count = 1
        while count < self._lists:
            weights = self._weights(self._scores, self._squares)
            total = np.cumsum(weights)
            if total[-1] == 0:  # nothing but repetitions is left: pgvector takes the first row again and again
                self.centres[count:] = self._rows[0]
                return
            drawn = rng.random(min(count, self._lists - count, _CANDIDATES_AT_ONCE)) * total[-1]
            candidates = np.minimum(np.searchsorted(total, drawn, side="right"), len(self._rows) - 1)
            kept = self._accepted(candidates, weights[candidates], rng)
            self._take(count, kept)
            count += len(kept)

    def _accepted(self, candidates: Labels, weights: NDArray[np.float64], rng: np.random.Generator) -> Labels:
        rows = self._rows[candidates]
        scores = rows @ rows.T
        if (offsets := _offsets(rows, self._spherical)) is not None:
            scores -= offsets
        among = self._weights(scores, self._squares[candidates][:, None])
        kept: list[int] = []
        for number, chance in enumerate(rng.random(len(candidates))):
            now = min(weights[number], among[number, kept].min(initial=np.inf))
            if chance * weights[number] < now:
                kept.append(number)
        return np.asarray(candidates[kept])

    def _weights(self, scores: Matrix, squares: Matrix) -> NDArray[np.float64]:
        """Squared distances in the unit of pgvector's k-means: angles, or lengths for L2."""
        if self._spherical:
            return np.asarray(np.arccos(np.clip(scores, -1, 1, dtype=np.float64)) ** 2)
        return np.asarray(np.maximum(squares - 2 * scores, 0, dtype=np.float64))

    def _take(self, first: int, rows: Labels) -> None:
        centres = self._rows[rows]
        self.centres[first : first + len(rows)] = centres
        labels, scores = self._best(self._rows, centres)
        nearer = scores > self._scores
        self.labels[nearer] = first + labels[nearer]
        self._scores[nearer] = scores[nearer]

    def _move(self) -> None:
        """Put each centre to the mean of its rows; one without rows is drawn anew."""
        moved = _means(self._rows, self.labels, self._lists)
        if self._spherical:
            moved = _unit(moved)
        empty = np.bincount(self.labels, minlength=self._lists) == 0
        moved[empty] = self._draw(int(empty.sum()))
        self.centres = moved

    def _best_near(self) -> Labels:
        """For each row the best of the centres that lie nearest to the one that it has."""
        labels = np.empty_like(self.labels)
        order, starts = _by_label(self.labels, self._lists)
        offsets = _offsets(self.centres, self._spherical)

        def score(first: int) -> None:
            some = self.centres[first : first + _CENTRES_AT_ONCE]
            among = some @ self.centres.T
            if offsets is not None:
                among -= offsets
            nearest = np.argpartition(-among, _NEAR - 1, axis=1)[:, :_NEAR]
            for centre, near in enumerate(nearest, start=first):
                rows = order[starts[centre] : starts[centre + 1]]
                found = self._rows[rows] @ self.centres[near].T
                if offsets is not None:
                    found -= offsets[near]
                labels[rows] = near[found.argmax(axis=1)]

        _share_out(score, range(0, self._lists, _CENTRES_AT_ONCE))
        return labels

    def _best(self, rows: Matrix, centres: Matrix) -> tuple[Labels, Matrix]:
        return _best(rows, centres, _offsets(centres, self._spherical))


def _best(rows: Matrix, centres: Matrix, offsets: Matrix | None) -> tuple[Labels, Matrix]:
    """For each row the centre with the highest score, and that score."""
    labels = np.empty(len(rows), dtype=np.int64)
    scores = np.empty(len(rows), dtype=np.float32)
    step = max(64, _SCORES_AT_ONCE // len(centres))

    def score(start: int) -> None:
        part = slice(start, start + step)
        found = rows[part] @ centres.T
        if offsets is not None:
            found -= offsets
        labels[part] = found.argmax(axis=1)
        scores[part] = np.take_along_axis(found, labels[part][:, None], axis=1)[:, 0]

    _share_out(score, range(0, len(rows), step))
    return labels, scores


def _share_out(work: Callable[[int], None], parts: range) -> None:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="k-means") as pool:
        list(pool.map(work, parts))


def _offsets(centres: Matrix, spherical: bool) -> Matrix | None:
    """What a product with a centre is lowered by, so that the highest score is the nearest centre; None for nothing."""
    return None if spherical else np.vecdot(centres, centres) / 2


def _means(rows: Matrix, labels: Labels, lists: int) -> Matrix:
    """The mean of the rows of each list, float32; of a list without rows zero."""
    order, starts = _by_label(labels, lists)
    belongs = sparse.csr_array((np.ones(len(rows), dtype=np.float32), order, starts), shape=(lists, len(rows)))
    counts = np.maximum(np.diff(starts), 1)
    return np.asarray((belongs @ rows) / counts[:, None], dtype=np.float32)


def _by_label(labels: Labels, lists: int) -> tuple[Labels, Labels]:
    """The rows in the order of their lists, and where each list starts among them; its end is the next one's start."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=lists))])
    return np.argsort(labels, kind="stable"), starts
