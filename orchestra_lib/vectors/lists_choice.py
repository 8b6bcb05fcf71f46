"""The IVFFlat part of a tuning: a cost model from one real index, virtual indexes, the lists that follow, a build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from orchestra_lib.database import connect
from orchestra_lib.errors import DataError, GateFailed
from orchestra_lib.vectors.candidate import Candidate
from orchestra_lib.vectors.cost import CostModel, Observation, fit, observe, rows_of_centroid_page, usual
from orchestra_lib.vectors.forecast import feasible_lists
from orchestra_lib.vectors.forms import Effort, Storage, ivfflat
from orchestra_lib.vectors.geometry import Geometry
from orchestra_lib.vectors.ivf import VirtualIndex, virtual_index
from orchestra_lib.vectors.kmeans import training_work, usual_training_seconds
from orchestra_lib.vectors.learning import Learning
from orchestra_lib.vectors.measured import timing_passes
from orchestra_lib.vectors.memory import ivfflat_build_memory
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.pages import PAGE_BYTES, centroid_pages, index_pages, rows_per_page
from orchestra_lib.vectors.search import Searchable, session_settings
from orchestra_lib.vectors.seeded import seeding_work, usual_distance_seconds
from orchestra_lib.vectors.selection import (
    WORTH_IT,
    Forecast,
    Need,
    best,
    curve,
    forecast,
    need,
    next_lists,
    rivals,
)

_OBSERVED_QUERIES = 24
_PROBES_OBSERVED = (0.4, 1.0, 2.0)  # of those that suffice
_FIRST = 3  # of the numbers of lists that are feasible: the fewest, and about four times as many
_FEWEST_FOR_A_CURVE = 2
_MOST_BY_THE_CURVE = 4
_MOST_BUILDS = 2
_MARGIN = 1.2  # times what is expected to take so long
_SEARCHES_OBSERVED = 9 * _OBSERVED_QUERIES
_FEWEST_OBSERVED = 3  # lists: fewer cannot be searched with different numbers of probes


@dataclass
class ListsChoice:
    """What is known about the numbers of lists. ``most_mib`` is the memory that a build may need, None without limit.

    ``geometry`` reads what virtual indexes are computed from, at most once. ``indexes`` are those that were computed,
    by their lists, and ``needs`` what each of them needs for the recall.
    """

    learning: Learning
    geometry: Callable[[], Geometry]
    rows: int
    most_mib: int | None
    indexes: dict[int, list[VirtualIndex]] = field(default_factory=dict)
    model: CostModel = field(init=False)
    observations: list[Observation] = field(default_factory=list)
    needs: dict[int, Need] = field(default_factory=dict)
    _computed_seconds: dict[int, float] = field(default_factory=dict)
    _observed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.model = usual(self._dimension)
        self.learning.centroids = self._centroids

    @property
    def is_fitted(self) -> bool:
        """Whether the model speaks of milliseconds: something was measured."""
        return bool(self.observations)

    def survey(self) -> None:
        """Compute virtual indexes until their curve says that no other number of lists is better, and those asked for.

        The few smallest take hardly any time; from then on the curve tells which is to be computed next, of those that
        there is time to train, make and measure. Called again it goes on by what the model has learnt since.
        """
        for lists in self._wanted():
            if lists not in self.indexes:
                if not self.learning.has_room(f"looking at {lists:,} lists", 0.0):
                    return
                self.compute(lists)

    def _wanted(self) -> Iterator[int]:
        options = self._options()
        yield from sorted({*options[:_FIRST:2], *self.learning.goals.lists})
        for lists in options:  # a curve needs two that suffice
            if sum(found.reaches for found in self._possible()) >= _FEWEST_FOR_A_CURVE:
                break
            yield lists
        for _ in range(_MOST_BY_THE_CURVE):
            better = next_lists(self._possible(), self.model, self._dimension, options[-1])
            if better is None or better in self.indexes:
                break
            if not self.learning.has_room(f"looking at {better:,} lists", self._seconds_to_try(better)):
                better = next_lists(self._possible(), self.model, self._dimension, self._most_in_time(better))
                if better is None or better in self.indexes:
                    break
            yield better

    def _most_in_time(self, most: int) -> int:
        """The most lists below ``most`` that there is time for; 1 when there is none for any."""
        below, above, left = 1, most, self.learning.left_seconds()
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (middle, above) if self._seconds_to_try(middle) <= left else (below, middle)
        return below

    def _seconds_to_try(self, lists: int) -> float:
        """About how long it takes to train so many centroids, make the index and measure it."""
        return self._training_seconds(lists) + self.seconds_to_make(lists) + self._seconds_to_measure(lists)

    def _training_seconds(self, lists: int) -> float:
        """About how long it takes to train so many centroids, from the nearest training that was timed."""
        known = min(self._computed_seconds, key=lambda other: abs(np.log(other / lists)), default=None)
        if known is None:
            return _MARGIN * usual_training_seconds(lists, self.rows, self._dimension)
        ratio = training_work(lists, self.rows) / training_work(known, self.rows)
        return _MARGIN * self._computed_seconds[known] * ratio

    def _seconds_to_measure(self, lists: int) -> float:
        """By the curve: a p95 for every search is more than they take, and so is the margin."""
        expected = curve(self._possible(), self.model, self._dimension)
        p95_ms = float(expected(np.array([float(lists)]))[0]) if expected else 0.0
        queries = len(self.learning.parts.validate)
        # The effort that was foretold is confirmed by a pass, and then timed.
        return (1 + timing_passes(queries)) * queries * p95_ms / 1e3

    @property
    def _dimension(self) -> int:
        return int(self.learning.queries.vectors.shape[1])

    def _options(self) -> tuple[int, ...]:
        goals = self.learning.goals
        return feasible_lists(self.rows, self._dimension, Storage.VECTOR, self.most_mib, goals.inserts_per_second)

    def compute(self, lists: int, seed: int = 0) -> None:
        """Compute the virtual index of so many lists unless it is there."""
        known = self.indexes.setdefault(lists, [])
        if any(index.seed == seed for index in known):
            return
        self.learning.progress(f"virtual index with {lists:,} lists")
        journal = self.learning.journal
        known.append(journal.index(lists, seed, lambda: virtual_index(self.geometry(), lists, seed)))
        if not journal.steps[-1].resumed:
            self._computed_seconds[lists] = journal.steps[-1].seconds
        self._find_needs(lists)

    def _find_needs(self, lists: int) -> None:
        validating = [self._validating(index) for index in self.indexes[lists]]
        self.needs[lists] = need(validating, self.learning.goals.recall_target)

    def _validating(self, index: VirtualIndex) -> VirtualIndex:
        """For the queries that will say which probes suffice: those of an index that is made of these centroids."""
        parts = self.learning.parts
        return index.part(np.searchsorted(parts.untested, parts.validate))

    def _centroids(self, lists: int) -> Matrix:
        """Those of the virtual index, trained once more where an earlier run did it."""
        self.compute(lists)
        known = self.indexes[lists][0]
        if known.centroids is None:
            self.learning.progress(f"training the centroids of {lists:,} lists once more")
            geometry, seed = self.geometry(), known.seed
            known = self.learning.journal.timed(
                f"centroids once more: {lists} lists, seed {seed}", lambda: virtual_index(geometry, lists, seed)
            )
            self.indexes[lists][0] = known
            self._computed_seconds[lists] = self.learning.journal.steps[-1].seconds
            self._find_needs(lists)  # of a sample, it need not be the one of the earlier run
        if known.centroids is None:
            raise DataError(f"the virtual index of {lists:,} lists has no centroids to make an index from")
        return known.centroids

    def forecast(self, lists: int) -> Forecast:
        """What is expected of so many lists, by the present model. The index must have been computed."""
        return forecast(self.indexes[lists], self.model, self.needs[lists])

    def forecasts(self) -> list[Forecast]:
        """What is expected of all that were computed, by ascending lists."""
        return [self.forecast(lists) for lists in sorted(self.indexes)]

    def choose(self) -> Forecast | None:
        """The best on paper by the present model, of those that there is time to build; None when none suffices."""
        self.survey()
        possible = self._possible()
        chosen = best(possible)
        if chosen is None:
            return None
        seconds = self._seconds_to(chosen)
        if not seconds or self.learning.has_room(f"IVFFlat with {chosen.lists:,} lists", seconds):
            return chosen
        return best([found for found in possible if self._seconds_to(found) <= self.learning.left_seconds()])

    def _seconds_to(self, build: Forecast) -> float:
        form = ivfflat(build.lists)
        if self.learning.journal.knows(f"measured: {form.label}"):
            return 0.0
        making = 0.0 if self.learning.is_made(form) else self.seconds_to_make(build.lists)
        if self.indexes[build.lists][0].centroids is None:
            making += self._training_seconds(build.lists)
        return making + self._seconds_to_measure(build.lists)

    def _possible(self) -> list[Forecast]:
        """Forecasts of what may be built: lists that were asked for can be more than memory or inserts allow."""
        most = self._options()[-1]
        return [found for found in self.forecasts() if found.lists <= most]

    def observe(self, target: Callable[[], Searchable], lists: int, label: str) -> None:
        """Time queries on a real index of so many lists and fit the model to everything that was observed.

        ``target`` is called only when that was not done in an earlier run. What was observed already counts once.
        """
        if label in self._observed:
            return
        self._observed.add(label)
        dimension = self._dimension
        self.compute(lists)
        middle = self.forecast(lists).probes
        efforts = sorted({min(max(1, round(share * middle)), max(1, lists - 1)) for share in _PROBES_OBSERVED})
        queries = self.learning.vectors(self.learning.parts.tune[:_OBSERVED_QUERIES])

        def work() -> list[Observation]:
            self.learning.progress(f"timing what {label} reads")
            searchable = target()
            with connect(self.learning.address, role="target") as connection:
                found = observe(
                    connection,
                    searchable.statement(Effort(middle)),
                    queries,
                    [session_settings(searchable.form, Effort(probes)) for probes in efforts],
                    centroid_pages=centroid_pages(lists, dimension, Storage.VECTOR),
                    rows_per_page=rows_per_page(dimension, Storage.VECTOR),
                )
            return list(found)

        self.observations += self.learning.journal.once(_observed(label), list[Observation], work)
        self.model = fit(self.observations, rows_of_centroid_page(dimension))

    def predicted(self, lists: int) -> Candidate:
        """So many lists as a candidate that was not built."""
        found, dimension = self.forecast(lists), self._dimension
        return Candidate(
            form=ivfflat(lists),
            effort=Effort(found.probes),
            source="predicted",
            recall=found.recall,
            predicted_p95_ms=found.p95 if self.is_fitted else None,
            p95_ms=None,
            reaches=found.reaches,
            index_bytes=index_pages(self.indexes[lists][0].list_rows, dimension, Storage.VECTOR) * PAGE_BYTES,
            build_memory_mib=ivfflat_build_memory(lists, self.rows, dimension, self.rows).required_mib,
        )

    def build(self, chosen: Forecast) -> Candidate:
        """Build an index of the chosen lists, find its probes and let it contest."""
        found = self._measured(chosen)
        self.learning.contest(found)
        return found

    def _measured(self, chosen: Forecast) -> Candidate:
        predicted = chosen.p95 if self.is_fitted else None
        form = ivfflat(chosen.lists)
        if not self.learning.journal.knows(f"measured: {form.label}"):
            self._centroids(chosen.lists)
        return self.learning.learn(form, Effort(self.needs[chosen.lists].probes), predicted, is_known=True)

    def run(self, present: tuple[Searchable, int] | None) -> None:
        """Survey, choose, build, fit; ``present`` is the live IVFFlat index and its lists, where there is one.

        Which lists are best depends on what a centroid costs beside a row, and that is known from elsewhere before
        anything is measured here.
        """
        if present is not None and present[1] >= _FEWEST_OBSERVED:
            searchable, lists = present
            self.observe(lambda: searchable, lists, f"the present index of {lists:,} lists")
        for _ in range(_MOST_BUILDS):
            chosen = self.choose()
            if chosen is None:
                self._say_that_none_suffices()
                return
            built = [lists for lists in self.indexes if self._is_built(lists)]
            at_hand = min((self.forecast(lists) for lists in built), key=lambda found: found.p95, default=None)
            if at_hand is not None and at_hand.p95 * (1 - WORTH_IT) <= chosen.p95:
                break
            self._build_and_observe(chosen)
        self._try_rival()

    def _say_that_none_suffices(self) -> None:
        possible = self._possible()
        looked_at = [f"{found.lists:,}" for found in possible]
        if looked_at and best(possible) is None:
            target = self.learning.goals.recall_target
            self.learning.skipped.append(
                f"none of {', '.join(looked_at)} lists reaches recall {target} on the queries that choose"
            )

    def _build_and_observe(self, chosen: Forecast) -> None:
        learning, built = self.learning, self.build(chosen)
        form, label = built.form, built.form.label
        if chosen.lists < _FEWEST_OBSERVED:
            return
        seconds = _SEARCHES_OBSERVED * built.best_p95_ms / 1e3
        known = learning.journal.knows(_observed(label))
        if known or learning.has_room(f"timing what {label} reads", seconds):
            self.observe(lambda: learning.bench.searchable(learning.built(form)), chosen.lists, label)

    def error_of_p95(self) -> float | None:
        """How far the measured server times of the indexes that were built lie from the model, at their p95."""
        if not self.is_fitted:
            return None
        ratios = [
            seen.server_ms / float(self.model.milliseconds(seen.centroid_pages, np.array([seen.rows]))[0])
            for seen in self.observations
        ]
        return float(abs(np.quantile(ratios, 0.95) / np.quantile(self.model.ratios, 0.95) - 1))

    def _try_rival(self) -> None:
        """Build the most promising of those that the model cannot tell from the best, where that could matter."""
        learning = self.learning
        error = self.error_of_p95()
        if learning.best is None or learning.best.form.lists not in self.indexes or error is None:
            return
        if sum(self._is_built(lists) for lists in self.indexes) >= _MOST_BUILDS:
            return
        chosen = self.forecast(learning.best.form.lists)
        others = [found for found in rivals(self._possible(), chosen, error) if not self._is_built(found.lists)]
        if error > WORTH_IT and others:
            rival = others[0]
            if learning.has_room(f"IVFFlat with {rival.lists:,} lists", self.seconds_to_make(rival.lists)):
                self.build(rival)

    def ask(self, lists: int) -> Candidate:
        """What somebody asked for: measured where there is time, else as predicted."""
        if lists not in self.indexes:
            self.compute(lists)
        found = self.forecast(lists)
        if self._is_built(lists):
            return self.learning.candidates[ivfflat(lists)]
        if self.learning.has_room(f"building the {lists:,} lists that were asked for", self.seconds_to_make(lists)):
            try:
                return self._measured(found) if lists > self._options()[-1] else self.build(found)
            except GateFailed as refused:
                self.learning.skipped.append(f"the {lists:,} lists that were asked for were not built: {refused}")
        return self.predicted(lists)

    def seconds_to_make(self, lists: int) -> float:
        """About how long it takes to have an index, from the nearest one that was made."""
        made = [
            (one.form.lists, one.made_seconds)
            for one in self.learning.candidates.values()
            if one.form.lists and one.made_seconds and one.form.storage is Storage.VECTOR
        ]
        work = seeding_work(lists, self.rows)
        if not made:
            return _MARGIN * work * usual_distance_seconds(self._dimension)
        nearest, seconds = min(made, key=lambda pair: abs(np.log(pair[0] / lists)))
        return _MARGIN * seconds * work / seeding_work(nearest, self.rows)

    def probes_by_seed(self, seeds: int) -> dict[int, int | None]:
        """For the best index, the probes that suffice with each seed of k-means: how much a rebuild may differ."""
        chosen = self.learning.best
        if chosen is None or chosen.form.lists not in self.indexes:
            return {}
        lists = chosen.form.lists
        for seed in range(seeds):
            if seed and self.learning.left_seconds() < 0:
                break
            self.compute(lists, seed)
        target = self.learning.goals.recall_target
        return {index.seed: self._validating(index).smallest_probes(target) for index in self.indexes[lists]}

    def tell(self, options: tuple[int, ...], share: float = 1.0) -> None:
        """Compute these lists as well, where the table has the rows for them and a share of the time left suffices."""
        for lists in options:
            if lists in self.indexes or 2 * lists > self.rows or not self.indexes:
                continue
            seconds = self._training_seconds(lists)
            is_for_later = share < 1 and seconds > share * self.learning.left_seconds()
            if not is_for_later and self.learning.has_room(f"computing what {lists:,} lists would do", seconds):
                self.compute(lists)

    def is_only_predicted(self, lists: int) -> bool:
        """Whether so many lists were computed and not built."""
        return lists in self.indexes and not self._is_built(lists)

    def _is_built(self, lists: int) -> bool:
        return ivfflat(lists) in self.learning.candidates


def _observed(label: str) -> str:
    return f"observed: {label}"
