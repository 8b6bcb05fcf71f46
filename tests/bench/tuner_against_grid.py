"""The tuner against an exhaustive grid: six numbers of lists times ten probes, all of them built and measured.

.venv/bin/python tests/bench/tuner_against_grid.py [--kind topics|sheet|corpus|FILE.npy] [--rows 100000] [--optuna]

Small form: --rows 10000 --dimension 256 --queries 400. With --optuna also against TPE (pip install optuna) under the
time that the tuner took. All judge by the same rule: the least p95 whose recall, by its lower bound, clears the target.
Grid and TPE judge by all queries that are not kept apart, of which the tuner takes half to choose the lists and half to
find the probes. What each chose is then built once more and measured in turns on the queries that nobody had. Synthetic
families are labelled so.

What is counted: of the tuner everything that it does to choose among IVFFlat indexes, from the fingerprint of the table
to the last measurement: copies, truth, samples, trainings, the index that is made and measured. Of the grid its builds,
its passes and the truth. The tuner is given a share of the grid's time for its budget, TPE (which has the truth for
nothing) the time that the tuner took. Nobody tries other methods (HNSW, halfvec) and nobody certifies: the tuner can do
both, in time of its own, and a grid would have to be made for each.

2026-11-26, 2 cores of an AMD EPYC with the machine to itself, one run each. Ratios of p95 and of seconds to the grid's,
of p95 to TPE's; "-" where TPE found nothing that reaches the recall. MiniLM's of c34ecc9, a day's work earlier:

    topics,  10,000 x 256, 400 queries     0.80  0.07 (1.3 of 20 s)   0.54
    topics, 100,000 x 256, 600 queries     1.01  0.06 (18 of 325 s)   0.34
    sheet,  100,000 x 256, 600 queries     0.84  0.09 (37 of 400 s)   -
    all-MiniLM-L6-v2, 38,400 x 384, 600    0.83  0.10 (12 of 123 s)   -
    corpus,   8,604 x 1,536, 600, --share 0.15  0.88, 0.96  0.16, 0.17 (11 to 12 of 71 s)   -
    corpus,   8,604 x 1,536, 600                1.55, 1.82  0.12, 0.14 (9 to 11 of 73 s)    -

On the corpus to build and measure the grid's best alone, 1,484 lists by CREATE INDEX, takes 0.15 to 0.18 of the grid.
Given a tenth the tuner takes the most lists that it expects to make and measure in it, and says what it had no time
for. The grid takes so little there that it is no loss.

K-means begins at random. Built once more, by CREATE INDEX, a choice for the embeddings found 0.945 [0.932, 0.957] of
0.95 and one for the corpus 0.948 [0.935, 0.958] on the queries that nobody had: what serves is certified as it stands,
with more effort where it needs that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
from common import hardware, servers
from psycopg import sql
from tables import KINDS, TABLE, load, make

from orchestra_lib.database import connect
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forecast import feasible_lists
from orchestra_lib.vectors.forms import Effort, Storage, ivfflat
from orchestra_lib.vectors.goals import Goals, Queries, split
from orchestra_lib.vectors.index import (
    IndexSpec,
    available_memory_mib,
    build_index,
    drop_others,
    vector_indexes,
)
from orchestra_lib.vectors.measured import Measured, clears, measure
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.truth import exact_neighbours
from orchestra_lib.vectors.tune import Options, tune

K, OPCLASS = 10, "vector_cosine_ops"
PROBES = (1, 2, 3, 5, 8, 12, 20, 32, 50, 80)
WARM_PROBES = 8
MOST_TRIALS = 200


@dataclass(frozen=True)
class Point:
    """A number of lists and probes, its recall's lower bound and its p95 in milliseconds, on the selecting queries.

    ``seconds`` is what measuring it took.
    """

    lists: int
    probes: int
    recall_low: float
    p95_ms: float
    clears: bool
    seconds: float = 0.0


@dataclass(frozen=True)
class Setting:
    """Where everything happens: the server, the queries that select with their truth, and what is wanted."""

    conninfo: str
    dimension: int
    queries: QuerySet
    recall_target: float

    def build(self, lists: int, table: str = TABLE, progress: Callable[[str], None] = lambda _: None) -> None:
        """Build the index on a table and drop the others."""
        spec = IndexSpec(table, ivfflat(lists), OPCLASS, self.dimension)
        build_index(self.conninfo, spec, available_memory_mib(), progress)
        drop_others(self.conninfo, spec)

    def warm(self, connection: psycopg.Connection, lists: int) -> None:
        """One pass that does not count over the index that was just built."""
        self._pass(connection, lists, min(WARM_PROBES, lists - 1))

    def point(self, connection: psycopg.Connection, lists: int, probes: int) -> Point:
        """One pass that counts."""
        began = time.monotonic()
        found = self._pass(connection, lists, probes)
        reaches = clears(found.recalls, self.recall_target)
        return Point(lists, probes, found.recall.low, found.p95_ms.value, reaches, time.monotonic() - began)

    def _pass(self, connection: psycopg.Connection, lists: int, probes: int) -> Measured:
        target = Searchable(sql.Identifier(TABLE), OPCLASS, K, ivfflat(lists))
        return measure(connection, target, self.queries, Effort(probes))


def main() -> None:
    """Print the grid, what each side chose and took, and the two ratios."""
    options = _arguments()
    made = make(options.kind, options.rows, options.queries, options.dimension, options.seed)
    dimension = made.rows.shape[1]
    print(f"{hardware()}\n{made.label}: {len(made.rows):,} rows of {dimension}, {len(made.queries):,} held-out queries")
    parts = split(len(made.queries), options.seed)
    selecting = np.sort(np.concatenate([parts.tune, parts.validate]))
    with servers() as (_, conninfo, _folder), tempfile.TemporaryDirectory() as journal:
        load(conninfo, made.rows)
        with connect(conninfo) as connection:
            began = time.monotonic()
            truth = exact_neighbours(connection, sql.Identifier(TABLE), made.queries, K, OPCLASS)
            truth_seconds = time.monotonic() - began
            setting = Setting(
                conninfo,
                dimension,
                QuerySet(made.queries[selecting], None, truth.take(selecting.tolist())),
                options.recall,
            )
            lists_options = options.lists or feasible_lists(len(made.rows), dimension, Storage.VECTOR, None, None)
            best, searched_seconds = _grid(setting, connection, lists_options)
            grid_seconds = truth_seconds + searched_seconds
            _without_indexes(connection)  # the tuner would begin with what it finds there
            goals = Goals(options.recall, options.p95_ms, K, OPCLASS, None, options.share * grid_seconds)
            queries = Queries(made.queries, None, made.label)
            chosen, tuner_seconds = _tuned(conninfo, queries, goals, Path(journal), options)
            chosen_by = {"grid": best, "tuner": chosen}
            if options.optuna:
                chosen_by["TPE"] = _tpe(setting, connection, len(made.rows), tuner_seconds, options.seed)
                _without_indexes(connection)
            test = QuerySet(made.queries[parts.test], None, truth.take(parts.test.tolist()))
            p95_ms = _in_turns(setting, connection, chosen_by, test, options.repetitions)
    if p95_ms["grid"] is None or p95_ms["tuner"] is None:
        sys.exit("one side found nothing that reaches the recall: there is no ratio to print")
    print(_verdict("p95 of the tuner's / the grid's best", p95_ms["tuner"] / p95_ms["grid"], 1.05))
    print(_verdict("seconds of the tuner / of the grid", tuner_seconds / grid_seconds, 0.10))
    if options.optuna and p95_ms["TPE"] is None:
        print(f"TPE found nothing that reaches the recall within the tuner's {tuner_seconds:.0f} s")
    elif options.optuna and p95_ms["TPE"] is not None:
        print(_verdict("p95 of the tuner's / of TPE's", p95_ms["tuner"] / p95_ms["TPE"], 1.0))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="topics", help=f"one of {', '.join(KINDS)}, or a .npy file of embeddings")
    parser.add_argument("--rows", type=int, default=100_000, help="of a synthetic family")
    parser.add_argument("--dimension", type=int, default=1_536, help="of a synthetic family")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--p95-ms", type=float, default=30.0)
    parser.add_argument("--share", type=float, default=0.1, help="of the grid's time: what the tuner may take")
    parser.add_argument("--lists", type=int, nargs="*", help="of the grid; without it the six that the tuner looks at")
    parser.add_argument("--repetitions", type=int, default=7, help="of the final comparison")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optuna", action="store_true")
    return parser.parse_args()


def _tuned(
    conninfo: str, queries: Queries, goals: Goals, journal: Path, options: argparse.Namespace
) -> tuple[Point | None, float]:
    """What the tuner chooses among IVFFlat indexes, and the seconds of all that it does, copies and truth included."""
    os.environ["ORCHESTRA_STATE_DIR"] = str(journal)  # a truth that an earlier run has kept would cost nothing
    started = time.monotonic()
    found = tune(
        conninfo,
        TABLE,
        queries,
        goals,
        journal_path=journal / "tuning.jsonl",
        options=Options(
            methods=("ivfflat",),
            storages=("vector",),
            seeds=1,
            available_mib=available_memory_mib(),
            certify=False,
            told_lists=(),
            seed=options.seed,
        ),
        progress=lambda _: None,
    )
    seconds = time.monotonic() - started
    for step in found.steps:
        print(f"  tuner: {step.seconds:7.2f} s {step.name}")
    print(f"  tuner: {seconds - found.seconds:7.2f} s between the steps")
    print(f"tuner: {seconds:.1f} s of {goals.budget_seconds:.1f}; {found.reason}", flush=True)
    for skipped in found.skipped:
        print(f"  {skipped}")
    one = found.chosen
    if one is None or one.form.lists is None or not one.reaches:
        return None, seconds
    return Point(one.form.lists, one.effort.value, one.recall.low, one.best_p95_ms, one.reaches), seconds


def _without_indexes(connection: psycopg.Connection) -> None:
    """Leave the table without a vector index."""
    for index in vector_indexes(connection, sql.Identifier(TABLE)):
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index.name)))


def _grid(
    setting: Setting, connection: psycopg.Connection, lists_options: tuple[int, ...]
) -> tuple[Point | None, float]:
    """The best of all points, and the seconds of all builds and passes."""
    started, points = time.monotonic(), []
    for lists in lists_options:
        began = time.monotonic()
        setting.build(lists)
        print(f"grid: {lists:6,} lists built in {time.monotonic() - began:.1f} s", flush=True)
        setting.warm(connection, lists)
        for probes in PROBES:
            if probes < lists:
                points.append(setting.point(connection, lists, probes))
                point = points[-1]
                print(f"  {probes:4} probes: recall >= {point.recall_low:.4f}, p95 {point.p95_ms:.2f} ms", flush=True)
    seconds = time.monotonic() - started
    best = min((point for point in points if point.clears), key=lambda point: point.p95_ms, default=None)
    print(
        f"grid: {seconds:.1f} s, of these {_beyond_need(points):.1f} s at more probes than the fewest that clear; "
        f"best {best}",
        flush=True,
    )
    return best, seconds


def _beyond_need(points: list[Point]) -> float:
    """Seconds of the points that a grid leaves out which goes no further than to the first probes that clear."""
    fewest: dict[int, int] = {}
    for point in points:
        if point.clears:
            fewest[point.lists] = min(point.probes, fewest.get(point.lists, point.probes))
    return sum(point.seconds for point in points if point.probes > fewest.get(point.lists, point.probes))


def _tpe(setting: Setting, connection: psycopg.Connection, rows: int, seconds: float, seed: int) -> Point | None:
    """What Optuna's TPE finds in so many seconds; a build that does not end in time is ended."""
    try:
        import optuna
    except ImportError:
        sys.exit("--optuna needs the package: .venv/bin/pip install optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    deadline, points, present = time.monotonic() + seconds, [], [0]

    def in_time(_: str) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    def objective(trial: optuna.Trial) -> float:
        lists = trial.suggest_int(
            "lists", max(1, round(rows**0.5 / 2)), min(rows // 2, round(16 * rows**0.5)), log=True
        )
        probes = min(trial.suggest_int("probes", 1, 128, log=True), lists - 1)
        if lists != present[0]:
            setting.build(lists, progress=in_time)
            setting.warm(connection, lists)
            present[0] = lists
        points.append(setting.point(connection, lists, probes))
        point = points[-1]
        # Beyond every latency, and the further the less is found: TPE then looks for the recall first.
        return point.p95_ms if point.clears else 1e4 * (2 - point.recall_low)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    while time.monotonic() < deadline and len(points) < MOST_TRIALS:
        try:
            study.optimize(objective, n_trials=1)
        except TimeoutError:
            break
    best = min((point for point in points if point.clears), key=lambda point: point.p95_ms, default=None)
    print(f"TPE: {len(points)} trials in {seconds:.1f} s; best {best}", flush=True)
    return best


def _in_turns(
    setting: Setting,
    connection: psycopg.Connection,
    chosen_by: dict[str, Point | None],
    test: QuerySet,
    repetitions: int,
) -> dict[str, float | None]:
    """The median p95 of each side's choice, built once more, each on a copy of its own, on queries that nobody had."""
    targets = {}
    for name, point in chosen_by.items():
        if point is None:
            continue
        copy = f"{TABLE}_{name.lower()}"
        connection.execute(f"CREATE UNLOGGED TABLE {copy} AS SELECT id, embedding FROM {TABLE}")
        connection.execute(f"VACUUM ANALYZE {copy}")
        setting.build(point.lists, copy)
        targets[name] = (Searchable(sql.Identifier(copy), OPCLASS, K, ivfflat(point.lists)), Effort(point.probes))
    runs = {name: [] for name in targets}
    for target, effort in targets.values():
        measure(connection, target, test, effort)
    for repetition in range(repetitions):
        order = list(targets) if repetition % 2 else list(reversed(targets))
        for name in order:
            runs[name].append(measure(connection, targets[name][0], test, targets[name][1]))
    found: dict[str, float | None] = dict.fromkeys(chosen_by)
    for name, measured in runs.items():
        values = [run.p95_ms.value for run in measured]
        found[name] = statistics.median(values)
        point = chosen_by[name]
        print(
            f"{name:6} {point.lists:6,} lists, {point.probes:3} probes: p95 {found[name]:.3f} ms "
            f"[{min(values):.3f} to {max(values):.3f}], recall {measured[0].recall} on {len(test.vectors)} test queries"
        )
    return found


def _verdict(name: str, value: float, goal: float) -> str:
    return f"ratio {name}: {value:.3f} (goal <= {goal}): {'reached' if value <= goal else 'above the goal'}"


if __name__ == "__main__":
    main()
