"""Virtual IVFFlat indexes against real ones: recall for lists and probes, latency from one real index, and the time.

.venv/bin/python tests/bench/virtual_ivf.py [--data corpus|topics|sheet] [--rows 20000] [--lists 46,185,740]

Real: each number of lists is built twice, since k-means begins at random, and searched with every query at each number
of probes. Virtual: truth, sample and six seeds for each number of lists. Recall agrees where the means of both differ
by no more than two standard errors, from the spread between the seeds: of ten points one may miss that by chance.
Latency: the cost model is fitted on one real index, the second of the lists, and told for all others; what is compared
is the server's own time.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass

import numpy as np
import psycopg
from common import hardware, servers, timed
from psycopg import sql
from tables import KINDS, TABLE, load, make

from orchestra_lib.database import connect
from orchestra_lib.vectors.cost import CostModel, Observation, fit, observe, rows_of_centroid_page
from orchestra_lib.vectors.forms import Effort, Storage, ivfflat
from orchestra_lib.vectors.geometry import Geometry, read_geometry
from orchestra_lib.vectors.ivf import VirtualIndex, virtual_index
from orchestra_lib.vectors.kmeans import training_rows
from orchestra_lib.vectors.memory import ivfflat_build_memory
from orchestra_lib.vectors.nearest import Matrix
from orchestra_lib.vectors.pages import PAGE_BYTES, centroid_pages, index_pages, rows_per_page
from orchestra_lib.vectors.search import Searchable, recalls, search, session_settings
from orchestra_lib.vectors.truth import Truth, exact_neighbours

NAME, OPCLASS, K, DIMENSION = sql.Identifier(TABLE), "vector_cosine_ops", 10, 1536
PROBES = (1, 4, 16, 64)
REPETITIONS, SEEDS = 2, 6
OBSERVED = 60  # queries of the cost model


@dataclass(frozen=True)
class Real:
    """One number of lists, built and searched: recalls (repetitions, probes), pages, observations and seconds."""

    recall: np.ndarray
    pages: int
    seen: tuple[Observation, ...]
    build_seconds: float
    search_seconds: float


def main() -> None:
    """Print recall of both, side by side, the predicted latencies, and the ratio of the times."""
    options = _options()
    made = make(options.data, options.rows, options.queries, DIMENSION, seed=1)
    rows, queries = made.rows, made.queries
    lists_options = [int(lists) for lists in options.lists.split(",")]
    with servers() as (conninfo, _, _folder), connect(conninfo) as connection:
        load(conninfo, rows)
        kept: list[tuple[Truth, Geometry]] = []
        prepared = timed(lambda: kept.append(_prepared(connection, queries, max(lists_options), len(rows))))
        truth, geometry = kept[0]
        virtual: dict[int, list[VirtualIndex]] = {}
        computed = {
            lists: timed(lambda lists=lists: virtual.update(_virtual(geometry, lists))) for lists in lists_options
        }
        real = {lists: _real(connection, lists, queries, truth, len(rows)) for lists in lists_options}
    print(f"{hardware()}; {made.label}, {len(rows):,} rows, {len(queries)} queries, recall@{K}")
    agreed = [_told_recall(lists, virtual[lists], real[lists]) for lists in lists_options]
    print(f"recall agrees in {sum(map(sum, agreed))} of {sum(map(len, agreed))} points")
    fitted = lists_options[min(1, len(lists_options) - 1)]
    _told_latency(fit(real[fitted].seen, rows_of_centroid_page(rows.shape[1])), fitted, virtual, real)
    theirs = sum(one.build_seconds + one.search_seconds for one in real.values()) / REPETITIONS
    ours = prepared + sum(computed.values()) / SEEDS
    for lists, one in real.items():
        seconds = [computed[lists] / SEEDS, one.build_seconds / REPETITIONS, one.search_seconds / REPETITIONS]
        print(
            f"{lists:6,} lists: virtual {seconds[0]:.2f} s, real {seconds[1]:.2f} s to build and {seconds[2]:.2f} s to "
            f"search at {len(PROBES)} probes"
        )
    print(f"truth and sample, once: {prepared:.2f} s")
    print(f"ratio virtual / real, one repetition of each, truth included: {ours / theirs:.2f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=KINDS, default="corpus")
    parser.add_argument("--rows", type=int, default=20_000, help="of the synthetic families")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--lists", default="46,185,740")
    return parser.parse_args()


def _prepared(connection: psycopg.Connection, queries: Matrix, most_lists: int, rows: int) -> tuple[Truth, Geometry]:
    truth = exact_neighbours(connection, NAME, queries, K, OPCLASS)
    sample_rows = min(rows, training_rows(most_lists) + 50_000)
    return truth, read_geometry(connection, NAME, queries, truth, OPCLASS, sample_rows=sample_rows)


def _virtual(geometry: Geometry, lists: int) -> dict[int, list[VirtualIndex]]:
    return {lists: [virtual_index(geometry, lists, seed) for seed in range(SEEDS)]}


def _real(connection: psycopg.Connection, lists: int, queries: Matrix, truth: Truth, rows: int) -> Real:
    form = ivfflat(lists)
    target = Searchable(NAME, OPCLASS, K, form)
    memory = ivfflat_build_memory(lists, rows, DIMENSION, rows)
    connection.execute(f"SET maintenance_work_mem = '{memory.setting_mib}MB'")
    create = form.create_statement(TABLE, "embedding", DIMENSION, OPCLASS, name="real_index")
    recall, build_seconds, search_seconds = [], 0.0, 0.0
    for _ in range(REPETITIONS):
        connection.execute("DROP INDEX IF EXISTS real_index")
        build_seconds += timed(lambda: connection.execute(create))
        found: list[float] = []
        search_seconds += timed(
            lambda found=found: found.extend(
                recalls(search(connection, target, queries, Effort(probes)), truth).mean()
                for probes in PROBES
                if probes < lists
            )
        )
        recall.append(found)
    row = connection.execute("SELECT pg_relation_size('real_index')").fetchone()
    seen = observe(
        connection,
        target.statement(Effort(1)),
        queries[:OBSERVED],
        [session_settings(form, Effort(probes)) for probes in PROBES if probes < lists],
        centroid_pages=centroid_pages(lists, DIMENSION, Storage.VECTOR),
        rows_per_page=rows_per_page(DIMENSION, Storage.VECTOR),
    )
    return Real(np.array(recall), row[0] // PAGE_BYTES, seen, build_seconds, search_seconds)


def _told_recall(lists: int, virtual: list[VirtualIndex], real: Real) -> list[bool]:
    agreed = []
    for place, probes in enumerate(probes for probes in PROBES if probes < lists):
        told = np.array([index.recall(probes).mean() for index in virtual])
        measured = real.recall[:, place]
        difference = told.mean() - measured.mean()
        allowed = 2 * told.std(ddof=1) * np.sqrt(1 / SEEDS + 1 / REPETITIONS)
        agreed.append(bool(abs(difference) <= allowed))
        print(
            f"{lists:6,} lists, {probes:3} probes: virtual {_spread(told)}, real {_spread(measured)}, "
            f"difference {difference:+.4f}{'' if agreed[-1] else f', more than two standard errors ({allowed:.4f})'}"
        )
    pages = index_pages(virtual[0].list_rows, DIMENSION, Storage.VECTOR)
    print(f"{lists:6,} lists: {pages:,} pages told, {real.pages:,} real; skew {virtual[0].skew:.2f}")
    return agreed


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.4f} [{values.min():.4f} to {values.max():.4f}]"


def _told_latency(model: CostModel, fitted: int, virtual: dict[int, list[VirtualIndex]], real: dict[int, Real]) -> None:
    print(
        f"cost model of {fitted:,} lists: {model.a_ms:.3f} ms + {model.b_ms_per_centroid_page * 1e3:.3f} us a centroid "
        f"page + {model.c_ms_per_row * 1e3:.3f} us a row; held-out error {model.error_relative:.0%}"
    )
    errors = []
    for lists, one in real.items():
        times = np.array([seen.server_ms for seen in one.seen]).reshape(-1, OBSERVED)
        for place, probes in enumerate(probes for probes in PROBES if probes < lists):
            measured = [float(np.quantile(times[place], share)) for share in (0.5, 0.95)]
            some = virtual[lists][0].part(np.arange(OBSERVED))
            told = [model.quantile_ms(some, probes, share) for share in (0.5, 0.95)]
            if lists != fitted:
                errors.append(abs(told[1] / measured[1] - 1))
            print(
                f"{lists:6,} lists, {probes:3} probes: p50 {told[0]:.3f} ms told, {measured[0]:.3f} measured; "
                f"p95 {told[1]:.3f} told, {measured[1]:.3f} measured"
            )
    if errors:
        print(f"median error of a p95 at lists that the model had not seen: {statistics.median(errors):.0%}")


if __name__ == "__main__":
    main()
