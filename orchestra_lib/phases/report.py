"""What the measurements of runbook 03 amount to: evidence, a table, and plain sentences made of their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.display import Table
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.settings import Settings
from orchestra_lib.vectors.evaluate import Evaluation
from orchestra_lib.vectors.index import BuiltIndex
from orchestra_lib.vectors.suit import suitability

_LOAD = "one client, one query at a time, warm"


def evaluation_evidence(evaluations: Sequence[Evaluation], settings: Settings) -> tuple[Evidence, ...]:
    """Before and after as evidence. Gates: the ends of the intervals that count against us, on the target only."""
    before, after, *alternatives = evaluations
    targets, search = settings.targets, settings.memory.search
    rows = [
        Evidence(
            f"recall@{search.k} on the target, lower end of its interval",
            Source.MEASURED,
            after.recall.low,
            "",
            Bound(">=", search.recall_target),
            note=f"{after.recall} over {after.recall.samples} queries that did not choose the {after.probes} probes",
        ),
        Evidence(
            "p95 of vector search on the target, upper end of its interval",
            Source.MEASURED,
            after.p95_ms.high,
            "ms",
            Bound("<", targets.vector_search_p95_ms),
            note=f"{after.p95_ms} ms, {_LOAD}",
        ),
        Evidence(
            "answers with fewer rows than asked for", Source.MEASURED, after.short_answers, "queries", Bound("==", 0)
        ),
        *_readings("before", before),
        *_readings("after", after),
        *(reading for other in alternatives for reading in _readings(f"alternative, {other.lists} lists", other)),
    ]
    assumed = settings.baseline.vector_search_ms
    rows.append(
        Evidence(
            "vector search before, as the strategy states it",
            Source(assumed.source),
            assumed.value,
            "ms",
            note="no measurement of it exists; compared with nothing",
        )
    )
    return tuple(rows)


def evaluation_table(evaluations: Sequence[Evaluation]) -> Table:
    """Every measured index in one row: probes, recall, latency quantiles with intervals, retrieval quality."""
    return Table(
        (
            "index",
            "probes",
            "recall@k",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "hit@k",
            "MRR",
            "plan reads",
            "left alone",
        ),
        [
            (
                e.label,
                e.probes if e.lists else None,
                str(e.recall),
                str(e.p50_ms),
                str(e.p95_ms),
                str(e.p99_ms),
                _optional(e.hit_at_k),
                _optional(e.mrr),
                "index" if e.plan_uses else "table",
                "index" if e.plan_left_alone else "table",
            )
            for e in evaluations
        ],
        f"{evaluations[0].recall.samples} queries that did not choose the probes · {_LOAD} · value [95 % interval]",
    )


def cost_sentences(evaluations: Sequence[Evaluation], index: BuiltIndex) -> tuple[str, ...]:
    """What the index costs at its recall and, when its lists do not suit the rows, against a measured alternative."""
    before, after, *alternatives = evaluations
    lists = index.form.lists or 0
    sentences = [
        suitability(lists, after.rows).sentence,
        f"With {lists:,} lists, {after.probes:,} probes reach recall {after.recall.value:.3f}; a search takes "
        f"{after.p50_ms.value:.2f} ms at p50 and {after.p95_ms.value:.2f} ms at p95. "
        f"The index takes {index.size_bytes / 2**20:,.0f} MiB and {_built(index)}.",
        f"The source, searched the same way, takes {before.p95_ms.value:.2f} ms at p95 with recall "
        f"{before.recall.value:.3f}: {_ratio(before, after)}.",
    ]
    if after.plan_uses and not after.plan_left_alone:
        sentences.append(
            f"With {after.probes:,} probes the planner, left alone, reads the whole table: it does not see that the "
            "vectors lie in TOAST. Sessions that search have to SET enable_seqscan = off, as these measurements did."
        )
    sentences.extend(
        f"The alternative with {other.lists:,} lists and {other.probes:,} probes, built and measured on the same rows, "
        f"takes {other.p95_ms.value:.2f} ms at p95 with recall {other.recall.value:.3f}: "
        f"{_against(index, after, other)}"
        for other in alternatives
    )
    return tuple(sentences)


def _readings(label: str, evaluation: Evaluation) -> tuple[Evidence, ...]:
    def reading(what: str, estimate: Estimate, unit: str) -> Evidence:
        return Evidence(f"{label}: {what}", Source.MEASURED, estimate.value, unit, note=f"{estimate}, {_LOAD}")

    rows = [
        Evidence(
            f"{label}: lists and probes", Source.OBSERVED, f"{evaluation.lists or 'no index'}, {evaluation.probes}", ""
        ),
        reading("recall@k", evaluation.recall, ""),
        reading("p50", evaluation.p50_ms, "ms"),
        reading("p95", evaluation.p95_ms, "ms"),
        reading("p99", evaluation.p99_ms, "ms"),
    ]
    if evaluation.hit_at_k and evaluation.mrr:
        rows += [
            reading("hit@k of the held-out questions", evaluation.hit_at_k, ""),
            reading("MRR of the held-out questions", evaluation.mrr, ""),
        ]
    return tuple(rows)


def _optional(estimate: Estimate | None) -> str:
    return str(estimate) if estimate else "–"


def _against(index: BuiltIndex, after: Evaluation, other: Evaluation) -> str:
    times = after.p95_ms.value / other.p95_ms.value
    if after.p95_ms.low > other.p95_ms.high:
        return f"the {index.form.lists:,} lists cost {times:.1f} times its latency. To use it: -p lists {other.lists}."
    if other.p95_ms.low > after.p95_ms.high:
        return (
            f"here the {index.form.lists:,} lists search {1 / times:.1f} times as fast, paid for with memory and build "
            "time."
        )
    return "no difference in latency can be told from these intervals."


def _built(index: BuiltIndex) -> str:
    return f"took {index.build_seconds:.1f} s to build" if index.build_seconds else "was there already"


def _ratio(before: Evaluation, after: Evaluation) -> str:
    if before.p95_ms.low > after.p95_ms.high:
        return f"the target is {before.p95_ms.value / after.p95_ms.value:.1f} times as fast"
    if after.p95_ms.low > before.p95_ms.high:
        return f"the target takes {after.p95_ms.value / before.p95_ms.value:.1f} times as long"
    return "no difference can be told from these intervals"
