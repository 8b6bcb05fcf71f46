"""An index tuned from a sample of a table that is too large to be read: neighbours at the radius that they really have.

The k nearest rows of a query in a sample are further away than its k nearest in the table, so their lists rank further
back and more probes seem to be needed than are. A share s of the rows has s·k of the table's k nearest among them, at
the table's own radius and drawn from them at random. So the (s·k) nearest of the sample stand for the k nearest of the
table, and the recall that a virtual index has for them is an unbiased estimate of the recall that it will have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestra_lib.errors import DataError
from orchestra_lib.vectors.forms import Storage
from orchestra_lib.vectors.geometry import Geometry, is_spherical
from orchestra_lib.vectors.kmeans import directions
from orchestra_lib.vectors.nearest import Matrix, nearest
from orchestra_lib.vectors.projection import principal_axes

_PROJECTED_FROM = 16_384  # as the geometry of a whole table has it


@dataclass(frozen=True)
class MatchedNeighbours:
    """How many of a sample's neighbours stand for the k of the table.

    ``radius_ratio`` is their number over what it should be, 1 when it is a whole number: above 1 probes come out too
    high, which is safe for recall and pessimistic for latency.
    """

    count: int
    radius_ratio: float

    @property
    def is_pessimistic(self) -> bool:
        """Whether the sample is too small to reach the radius: even its nearest row is further away."""
        return self.radius_ratio > 1


def matched_neighbours(k: int, sampled_share: float) -> MatchedNeighbours:
    """For the k nearest rows of a table of which this share was sampled. Raises DataError for no share."""
    if not 0 < sampled_share <= 1:
        raise DataError(f"a sample of {sampled_share:g} of a table is none; it has to be above 0 and at most 1")
    wanted = k * sampled_share
    # Rounded up: too many neighbours reach too far, too few would promise a recall that is not there.
    count = max(1, int(np.ceil(wanted - 1e-9)))
    return MatchedNeighbours(count, count / wanted)


def smallest_sample(k: int, rows: int, queries: int, most_pairs_error: float = 0.01) -> int:
    """The rows to sample, so that the radius is reached and recall is known to ``most_pairs_error`` (one sigma).

    Recall is then a mean over queries times s·k neighbours, at worst of variance 1/4 each and taken as independent.
    """
    neighbours = max(1.0, 0.25 / (most_pairs_error**2 * queries))
    return min(rows, int(np.ceil(rows * min(1.0, neighbours / k))))


def sampled_geometry(
    queries: Matrix,
    searched: Matrix,
    trained_on: Matrix,
    k: int,
    rows: int,
    opclass: str,
    storage: Storage = Storage.VECTOR,
    seed: int = 0,
) -> tuple[Geometry, MatchedNeighbours]:
    """The geometry of a table of ``rows`` as random samples of it show it, for ``ivf.virtual_index``.

    Neighbours are looked for in ``searched``, centroids trained on ``trained_on``: another sample, because rows that a
    centroid was trained on lie nearer to it than others, and of a large table hardly any neighbour is such a row.
    ``queries`` are in neither. What is made from it has the whole table's lists in their sizes.
    """
    matched = matched_neighbours(k, len(searched) / rows)
    names = [str(number) for number in range(len(searched))]
    found = nearest(queries, [(names, searched)], matched.count, opclass)
    numbers = sorted({int(name) for ids in found.ids for name in ids[: matched.count]})
    places = {number: place for place, number in enumerate(numbers)}
    accepted = tuple(np.array([places[int(name)] for name in ids[: matched.count]], np.int64) for ids in found.ids)
    sample = directions(trained_on) if is_spherical(opclass) else trained_on
    axes = principal_axes(sample, seed) if len(sample) >= _PROJECTED_FROM else None
    geometry = Geometry(
        queries=queries,
        neighbours=searched[numbers],
        accepted=accepted,
        wanted=matched.count,
        sample=sample,
        rows=rows,
        opclass=opclass,
        storage=storage,
        axes=axes,
        projected=None if axes is None else sample @ axes,
    )
    return geometry, matched
