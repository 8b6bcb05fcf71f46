"""How often a certificate's lower bound of the recall holds, over many repetitions with fresh held-out queries.

.venv/bin/python tests/bench/certificate_honesty.py [--kind topics] [--rows 20000] [--repetitions 50]

Each repetition takes queries that no other one had, finds the probes on some of them and certifies on others, with the
notch that is allowed. The recall that its bound is held against is that of all queries together, at the same probes on
the same index. Synthetic families are labelled so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import psycopg
from common import hardware, servers
from psycopg import sql
from tables import TABLE, load, make

from orchestra_lib.database import connect
from orchestra_lib.vectors.certificate import attempts, bounded_recall
from orchestra_lib.vectors.evaluate import QuerySet
from orchestra_lib.vectors.forms import Effort, ivfflat
from orchestra_lib.vectors.index import IndexSpec, build_index
from orchestra_lib.vectors.measured import Measured, clears, least_effort, measure, one_notch_up
from orchestra_lib.vectors.search import Searchable
from orchestra_lib.vectors.truth import exact_neighbours

K, OPCLASS = 10, "vector_cosine_ops"
QUERIES_AT_ONCE = 2_000


def main() -> None:
    """Print each repetition's bound and the recall of all queries, and the share of bounds that hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="topics", choices=("topics", "sheet"))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--lists", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--validate", type=int, default=300, help="queries of a repetition that find the probes")
    parser.add_argument("--test", type=int, default=400, help="queries of a repetition that certify")
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    each = options.validate + options.test
    made = make(options.kind, options.rows, options.repetitions * each, options.dimension, options.seed)
    print(f"{hardware()}\n{made.label}: {len(made.rows):,} rows of {options.dimension}, {len(made.queries):,} queries")
    with servers() as (_, conninfo, _folder):
        load(conninfo, made.rows)
        spec = IndexSpec(TABLE, ivfflat(options.lists), OPCLASS, options.dimension)
        build_index(conninfo, spec, None, lambda _: None)
        with connect(conninfo) as connection:
            searched = _searches(connection, made.queries, options.lists)
            _repeat(searched, options)


def _searches(connection: psycopg.Connection, vectors: np.ndarray, lists: int) -> Callable[[Effort], Measured]:
    """Every query at an effort, each searched once on the server, its truth computed once."""
    parts = [vectors[start : start + QUERIES_AT_ONCE] for start in range(0, len(vectors), QUERIES_AT_ONCE)]
    truths = [exact_neighbours(connection, sql.Identifier(TABLE), part, K, OPCLASS) for part in parts]
    target = Searchable(sql.Identifier(TABLE), OPCLASS, K, ivfflat(lists))
    known: dict[Effort, Measured] = {}

    def at(effort: Effort) -> Measured:
        if effort not in known:
            runs = [
                measure(connection, target, QuerySet(part, None, truth), effort)
                for part, truth in zip(parts, truths, strict=True)
            ]
            recalls, times = (
                np.concatenate([getattr(run, name) for run in runs]) for name in ("recalls", "milliseconds")
            )
            ids = tuple(found for run in runs for found in run.ids)
            known[effort] = Measured(effort, ids, sum(run.short for run in runs), recalls, times, runs[0].index)
            print(f"  {effort} probes searched by all queries: recall {recalls.mean():.4f}", flush=True)
        return known[effort]

    return at


def _repeat(searched: Callable[[Effort], Measured], options: argparse.Namespace) -> None:
    each, form = options.validate + options.test, ivfflat(options.lists)
    holds = certified = wrong = 0
    for repetition in range(options.repetitions):
        start = repetition * each
        validate, test = slice(start, start + options.validate), slice(start + options.validate, start + each)

        def sufficient(probes: int, part: slice = validate) -> bool:
            return clears(searched(Effort(probes)).recalls[part], options.recall)

        probes = least_effort(sufficient, 8, 1, options.lists - 1)
        effort = Effort(probes or options.lists - 1)
        tried = attempts(
            lambda at, part=test: _part(searched(at), part), effort, one_notch_up(form, effort), options.recall
        )
        recall = bounded_recall(tried[-1].recalls)
        bound, true = recall.low, float(searched(tried[-1].effort).recalls.mean())
        holds += bound <= true
        is_certified = bound >= options.recall or recall.value == 1
        certified += is_certified
        wrong += is_certified and true < options.recall
        print(
            f"{repetition + 1:4} of {options.repetitions}: {tried[-1].effort} probes, {len(tried)} attempts, bound "
            f"{bound:.4f}, recall of all {true:.4f}, {'holds' if bound <= true else 'DOES NOT HOLD'}",
            flush=True,
        )
    share = holds / options.repetitions
    print(f"certified {certified} of {options.repetitions}, of these {wrong} whose recall is below {options.recall}")
    print(
        f"ratio bounds that hold / repetitions: {share:.2f} (goal >= 0.95): "
        f"{'reached' if share >= 0.95 else 'below the goal'}"
    )


def _part(found: Measured, part: slice) -> Measured:
    return Measured(found.effort, found.ids[part], 0, found.recalls[part], found.milliseconds[part], found.index)


if __name__ == "__main__":
    main()
