"""Choosing the lists on paper: what each virtual index needs for the recall, what it then costs, and which is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestra_lib.bench.statistics import Estimate, mean
from orchestra_lib.vectors.cost import CostModel
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.ivf import VirtualIndex, sufficient_probes
from orchestra_lib.vectors.pages import centroid_pages
from orchestra_lib.vectors.tuning import PagePoint

_RESAMPLES = 200
TEN_TIMES = 10
WORTH_IT = 0.05
"""What might save less than this share of the latency is worth no build, no training, and no list more."""
_FURTHEST = 4  # times the lists of the last forecast: a curve says little of what is further
_STEP = 2**0.25
_ALIKE = 1.15  # times as many lists are hardly others
_LEAST_REST = 0.01
_LEAST_STEP = 1e-6


@dataclass(frozen=True)
class Need:
    """The fewest probes that suffice for every seed, or all of them when none do; the recall of the seed that finds
    least. Neither the cost of a search nor the rows of a table that grows alike everywhere change it.

    ``share`` is how much of the last of these probes was needed, above 0 and up to 1: where few probes suffice, one
    more or less is a large step, and what is needed over the lists would be no curve.
    """

    probes: int
    reaches: bool
    recall: Estimate
    share: float = 1.0


def need(indexes: Sequence[VirtualIndex], recall_target: float) -> Need:
    """What these indexes, of one number of lists and different seeds, need for the recall."""
    probes = sufficient_probes(indexes, recall_target)
    at = probes or min(index.most_probes for index in indexes)
    recall = _least_recall(indexes, at)
    if probes is None:
        return Need(at, False, recall)
    fewer = _least_recall(indexes, at - 1).low if at > 1 else 0.0
    share = (recall_target - fewer) / max(recall.low - fewer, _LEAST_STEP)
    return Need(at, True, recall, min(max(share, _LEAST_STEP), 1.0))


def _least_recall(indexes: Sequence[VirtualIndex], probes: int) -> Estimate:
    """Of the seed that finds least."""
    return mean(min((index.recall(probes) for index in indexes), key=lambda values: float(values.mean())))


@dataclass(frozen=True)
class Forecast:
    """One number of lists at what it needs.

    ``p95`` is the mean over the seeds, in the unit of the cost model, and ``p95_error`` its standard error over the
    queries. ``p95_of_share`` is what it would be if of the last probe just the part that is needed could be read.
    """

    lists: int
    probes: int
    reaches: bool
    recall: Estimate
    p95: float
    p95_error: float
    p95_of_share: float
    centroid_pages: float
    list_pages: float


def forecast(indexes: Sequence[VirtualIndex], model: CostModel, needed: Need) -> Forecast:
    """What these indexes, of one number of lists and different seeds, are expected to cost with what they need."""
    at = needed.probes
    costs = np.stack([model.predict(index, at) for index in indexes])
    pages = float(np.mean([index.pages(at).mean() for index in indexes]))
    p95 = _p95(indexes, model, at)
    fewer = _p95(indexes, model, at - 1) if at > 1 else _without_rows(model, indexes[0].centroid_pages)
    return Forecast(
        lists=indexes[0].lists,
        probes=at,
        reaches=needed.reaches,
        recall=needed.recall,
        p95=p95,
        p95_error=_p95_error(costs.mean(axis=0)),
        p95_of_share=fewer + needed.share * (p95 - fewer),
        centroid_pages=float(indexes[0].centroid_pages),
        list_pages=pages - indexes[0].centroid_pages,
    )


def _p95(indexes: Sequence[VirtualIndex], model: CostModel, probes: int) -> float:
    return float(np.mean([model.quantile_ms(index, probes, 0.95) for index in indexes]))


def _without_rows(model: CostModel, pages_of_centroids: int) -> float:
    return model.a_ms + model.b_ms_per_centroid_page * pages_of_centroids


def best(forecasts: Sequence[Forecast]) -> Forecast | None:
    """The least expected p95 among those that reach the target; where the difference is none, the fewest lists.

    None is what lies within one standard error or is not worth it: fewer lists build, insert and fit into memory more
    easily. None when no forecast reaches the target.
    """
    reaching = [found for found in forecasts if found.reaches]
    if not reaching:
        return None
    least = min(reaching, key=lambda found: found.p95)
    alike = least.p95 + max(least.p95_error, WORTH_IT * least.p95)
    return min((found for found in reaching if found.p95 <= alike), key=lambda found: found.lists)


def curve(
    forecasts: Sequence[Forecast], model: CostModel, dimension: int
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]] | None:
    """The p95 that other numbers of lists are to have, as a function of these; None where fewer than two suffice.

    What centroids cost is known for any number. The rest of a p95, rows that are visited, falls about as a power of the
    lists: between two forecasts it is interpolated and beyond the last one goes on as between the last two.
    """
    reaching = [found for found in forecasts if found.reaches]
    if len(reaching) < 2:
        return None

    def without_rows(lists: float) -> float:
        return _without_rows(model, centroid_pages(round(lists), dimension, Storage.VECTOR))

    known = np.log([found.lists for found in reaching])
    p95s = np.array([found.p95_of_share for found in reaching])
    rest = np.log(np.maximum(p95s - [without_rows(found.lists) for found in reaching], _LEAST_REST * p95s))
    slope = (rest[-1] - rest[-2]) / (known[-1] - known[-2])

    def expected(lists: NDArray[np.float64]) -> NDArray[np.float64]:
        at = np.log(lists)
        beyond = rest[-1] + slope * (at - known[-1])
        rows = np.exp(np.where(at > known[-1], beyond, np.interp(at, known, rest)))
        return np.asarray(rows + [without_rows(each) for each in lists])

    return expected


def next_lists(forecasts: Sequence[Forecast], model: CostModel, dimension: int, most: int) -> int | None:
    """The number of lists, up to ``most``, that the curve through the forecasts has for the best and nobody computed.

    None when one that was computed is the best already, or so near to it that the difference is none, or there is no
    curve.
    """
    expected = curve(forecasts, model, dimension)
    reaching = [found for found in forecasts if found.reaches]
    last = min(most, _FURTHEST * max((found.lists for found in reaching), default=0))
    if expected is None or last <= reaching[0].lists:
        return None
    tried = np.append(np.exp(np.arange(math.log(reaching[0].lists), math.log(last), math.log(_STEP))), last)
    p95 = expected(tried)
    wanted = float(tried[np.argmax(p95 <= (1 + WORTH_IT) * p95.min())])
    is_known = any(1 / _ALIKE < found.lists / wanted < _ALIKE for found in reaching)
    is_no_gain = p95.min() > (1 - WORTH_IT) * min(found.p95_of_share for found in reaching)
    return None if is_known or is_no_gain else round(wanted)


def rivals(forecasts: Sequence[Forecast], chosen: Forecast, error: float) -> list[Forecast]:
    """Those that the model's relative error could hide behind the chosen one, the most promising first."""
    return sorted(
        (
            found
            for found in forecasts
            if found.reaches and found.lists != chosen.lists and found.p95 * (1 - error) < chosen.p95
        ),
        key=lambda found: found.p95,
    )


def page_points(
    indexes: Mapping[int, Sequence[VirtualIndex]], needs: Mapping[int, Need], model: CostModel, rows: int
) -> tuple[PagePoint, ...]:
    """Pages and expected p95 over the lists, with as many rows as there are and with ten times as many.

    Recall at a number of probes stays while a table grows alike everywhere; each list grows in proportion.
    """
    points = []
    for size in (rows, TEN_TIMES * rows):
        for lists in sorted(indexes):
            found = forecast([index.at_rows(size) for index in indexes[lists]], model, needs[lists])
            points.append(
                PagePoint(
                    size,
                    lists,
                    found.probes,
                    found.centroid_pages,
                    found.list_pages,
                    found.p95,
                    found.recall.low,
                    found.reaches,
                )
            )
    return tuple(points)


def _p95_error(costs: NDArray[np.float64]) -> float:
    rng = np.random.default_rng(0)
    drawn = costs[rng.integers(len(costs), size=(_RESAMPLES, len(costs)))]
    return float(np.quantile(drawn, 0.95, axis=1).std())
