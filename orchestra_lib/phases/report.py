"""What a tuning and its measurements amount to: evidence, tables, and plain sentences made of their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra_lib.bench.statistics import Estimate
from orchestra_lib.display import Table
from orchestra_lib.evidence import Bound, Evidence, Source, value_text
from orchestra_lib.phases.delivery import Delivery
from orchestra_lib.settings import Settings
from orchestra_lib.vectors.candidate import Candidate
from orchestra_lib.vectors.certificate import Certificate, Loaded
from orchestra_lib.vectors.drift import DriftReport
from orchestra_lib.vectors.forms import Effort, Form
from orchestra_lib.vectors.tuning import Profile, Tuning

_ONE_CLIENT = "one client, one query at a time, warm"
_MIB = 1 << 20


def profile_evidence(profile: Profile) -> tuple[Evidence, ...]:
    """The table and its server, as far as they bear on the choice. Readings."""
    readings = (
        ("rows of the table", profile.rows, "rows", ""),
        ("size of the table with its indexes", round(profile.table_mib), "MiB", ""),
        ("shared_buffers of the server", round(profile.shared_buffers_mib), "MiB", profile.server),
        ("work_mem of a session", round(profile.work_mem_mib), "MiB", ""),
        ("directions that the vectors really spread over", round(profile.effective_dimension), "",
         f"of {profile.dimension:,}; the more, the harder to index"),
        ("rows that repeat another one", round(100 * profile.duplicates_share, 1), "%", "in a sample, bit for bit"),
        ("rows that no index finds", profile.zero_vectors + profile.null_vectors, "rows", "no vector, or a zero one"),
    )  # fmt: skip
    return tuple(Evidence(claim, Source.OBSERVED, value, unit, note=note) for claim, value, unit, note in readings)


def tuning_evidence(tuning: Tuning, origin: str, queries: int) -> tuple[Evidence, ...]:
    """What was chosen, by what, and what finding out took. Readings: the gates are the certificate's."""
    chosen, resumed = tuning.chosen, sum(step.resumed for step in tuning.steps)
    rows = [
        Evidence("queries that the index is judged by", Source.OBSERVED, queries, "queries", note=origin),
        Evidence(
            "index chosen by measurement",
            Source.MEASURED,
            chosen.form.label if chosen else "none",
            note=f"effort {chosen.effort}; {tuning.reason}" if chosen else tuning.reason,
        ),
        Evidence(
            "time that the choice took",
            Source.MEASURED,
            round(tuning.seconds, 1),
            "s",
            note=f"of {tuning.goals.budget_seconds:g} s; {resumed} of {len(tuning.steps)} steps were known already",
        ),
    ]
    if tuning.model_error is not None:
        note = "median over queries that had no part in the model"
        rows.append(
            Evidence(
                "error of predicted latencies", Source.MEASURED, round(100 * tuning.model_error, 1), "%", note=note
            )
        )
    return tuple(rows)


def certificate_evidence(certificate: Certificate, after: Delivery, settings: Settings) -> tuple[Evidence, ...]:
    """The certificate's conditions: gates on the ends of the intervals that count against us.

    What the load does is a reading in a rehearsal: it shares its cores with both databases and the one who asks, which
    no target speaks of. One query after another is held to the target everywhere.
    """
    recall, warm, targets = certificate.recall, certificate.warm, settings.targets
    rehearsal, within = settings.environment.kind == "local", Bound("<", targets.vector_search_p95_ms)
    rows = [
        Evidence(
            f"recall@{certificate.k} on the target, lower end of its interval",
            Source.MEASURED,
            _certain(recall),
            "",
            Bound(">=", certificate.recall_target),
            note=f"{recall} over {recall.samples} queries that had no part in the choice, effort {certificate.effort}",
        ),
        Evidence(
            "p95 of vector search on the target, upper end of its interval",
            Source.MEASURED,
            after.p95_ms.high,
            "ms",
            within,
            note=f"{after.p95_ms} ms, {_ONE_CLIENT}",
        ),
        Evidence(
            "p95 at the offered load, upper end of its interval",
            Source.MEASURED,
            warm.p95_ms.high,
            "ms",
            None if rehearsal else within,
            note=f"{warm.p95_ms} ms, {load_text(warm)}",
        ),
        Evidence(
            "answers with fewer rows than asked for",
            Source.MEASURED,
            sum(mix.short_answers for mix in certificate.mixes),
            "queries",
            Bound("==", 0),
        ),
        Evidence("searches without an answer", Source.MEASURED, warm.failures, "searches", Bound("==", 0)),
    ]
    rows += [
        Evidence(
            f"recall@{certificate.k} filtered by {mix.name}, lower end of its interval",
            Source.MEASURED,
            _certain(mix.recall),
            "",
            Bound(">=", certificate.recall_target),
            note=f"{mix.recall}, p95 {mix.p95_ms} ms",
        )
        for mix in certificate.mixes[1:]
    ]
    told = "certified" if certificate.holds else "not certified"
    rows.append(Evidence("the index is", Source.MEASURED, told, note="; ".join(certificate.reasons)))
    return tuple(rows)


def certificate_table(certificate: Certificate) -> Table:
    """The certificate in full: recall of each kind of query, latency in each state, what could not be looked at."""
    rows: list[tuple[str, str, str]] = [
        ("index", certificate.form.label, f"effort {certificate.effort}; the plan reads {_read(certificate)}"),
        ("recall", str(certificate.recall), f"target {certificate.recall_target:g}, ties count as right"),
        ("recall of the very ids", str(certificate.strict_recall), "ties do not count"),
        ("recall of the worst queries", f"{certificate.recall_p5:.2f} / {certificate.recall_p10:.2f}", "p5 / p10"),
        ("queries that find less than half", f"{100 * certificate.poor_share:.1f} %", ""),
    ]
    rows += [
        (f"filtered by {mix.name}", str(mix.recall), f"p95 {mix.p95_ms} ms, {mix.short_answers} short answers")
        for mix in certificate.mixes[1:]
    ]
    rows += [
        (f"p95, {loaded.state}", f"{loaded.p95_ms} ms", load_text(loaded))
        for loaded in (certificate.warm, *certificate.others)
    ]
    rows += [("not measured", "–", reason) for reason in certificate.missing]
    verdict = "Certified" if certificate.holds else "Not certified"
    return Table(("", "value", "note"), rows, f"{verdict}: {certificate.recall.samples} queries kept for this")


def candidates_table(tuning: Tuning) -> Table:
    """Everything that was looked at: the chosen one, what was measured, what is only predicted, each fastest first."""
    asked = {(one.form, one.effort) for one in tuning.asked}
    everything = {(one.form, one.effort, one.source): one for one in (*tuning.candidates, *tuning.asked)}
    chosen = tuning.chosen
    ordered = sorted(
        everything.values(),
        key=lambda one: (one != chosen, one.source == "predicted", not one.reaches, one.best_p95_ms),
    )
    return Table(
        ("", "index", "effort", "known", "recall", "p95 ms", "predicted", "CREATE INDEX", "build MiB", "MiB", "note"),
        [(_sign(one, tuning, asked), *_candidate_cells(one)) for one in ordered],
        f"★ chosen · value [95 % interval] · {_ONE_CLIENT}; predicted: the server's own time",
    )


def deliveries_table(deliveries: Sequence[Delivery]) -> Table:
    """What searches delivered, measured alike: recall, latency quantiles with intervals, retrieval quality."""
    return Table(
        ("index", "effort", "recall@k", "p50 ms", "p95 ms", "p99 ms", "hit@k", "MRR", "plan reads"),
        [
            (
                f"{one.when}: {one.where}, {one.form.label}",
                str(one.effort) if one.form.effort_setting else "–",
                str(one.recall),
                str(one.p50_ms),
                str(one.p95_ms),
                str(one.p99_ms),
                _optional(one.hit_at_k),
                _optional(one.mrr),
                "index" if one.plan_uses else "table",
            )
            for one in deliveries
        ],
        f"{deliveries[0].recall.samples} queries that had no part in the choice · {_ONE_CLIENT} · "
        "value [95 % interval]",
    )


def delivery_evidence(deliveries: Sequence[Delivery], settings: Settings) -> tuple[Evidence, ...]:
    """Before and after as readings, and what the strategy assumed of before."""
    rows = [row for one in deliveries for row in _readings(one)]
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


def drift_evidence(report: DriftReport, which: str) -> tuple[Evidence, ...]:
    """How far the index has drifted, and what to do: readings, for nothing of it is this run's doing."""
    rows = [
        Evidence(f"{which}: what to do about it", Source.MEASURED, str(report.advice), note="; ".join(report.reasons)),
        Evidence(
            f"{which}: recall of the last searches watched",
            Source.MEASURED,
            report.recall.value,
            note=f"{report.recall} over {len(report.recalls)} searches",
        ),
        Evidence(f"{which}: rows, times those at the build", Source.OBSERVED, round(report.grown, 3)),
    ]
    if report.unevenness is not None:
        then = f"{report.unevenness_then:.2f} when it was made; " if report.unevenness_then is not None else ""
        note = f"{then}1 when all lists are equal"
        rows.append(
            Evidence(f"{which}: unevenness of the lists", Source.MEASURED, round(report.unevenness, 2), note=note)
        )
    if report.written_share is not None:
        share = round(100 * report.written_share, 1)
        rows.append(Evidence(f"{which}: rows written since the build", Source.OBSERVED, share, "%"))
    return tuple(rows)


def comparison_sentence(before: Delivery, after: Delivery) -> str:
    """Before against after, only as far as the intervals allow."""
    return (
        f"Searched in the same way, {before.when} ({before.where}) 95 of 100 searches take at most "
        f"{before.p95_ms.value:.2f} ms with recall {before.recall.value:.3f}, {after.when} ({after.where}) "
        f"{after.p95_ms.value:.2f} ms with recall {after.recall.value:.3f}: {_ratio(before, after)}."
    )


def beside_sentence(built: Certificate, best: Candidate, certified: Certificate | None) -> str:
    """The index that was asked for beside the best that was found."""
    stands = "certified" if built.holds else "not certified"
    if best.form == built.form:
        return f"{built.form.label}, as it was asked for, is {stands}, and nothing better was found."
    whose = "certified" if certified is not None and certified.holds else "not certified"
    return (
        f"{built.form.label}, as it was asked for, is {stands}: {built.warm.p95_ms.value:.2f} ms at p95 under load, "
        f"recall {built.recall.value:.3f}. The best that was found is {best.form.label} with effort {best.effort} "
        f"({whose}): {best.best_p95_ms:.2f} ms at p95, recall {best.recall.value:.3f}."
    )


def load_text(loaded: Loaded) -> str:
    """Under which load and in which state a latency was measured."""
    if loaded.offered_per_second is None:
        return f"{loaded.state}, one query after another"
    return (
        f"{loaded.state}, {loaded.offered_per_second:.4g} searches a second offered, "
        f"{loaded.achieved_per_second:.4g} achieved"
    )


def _sign(one: Candidate, tuning: Tuning, asked: set[tuple[Form, Effort]]) -> str:
    chosen = tuning.chosen
    if chosen and (one.form, one.effort, one.source) == (chosen.form, chosen.effort, chosen.source):
        return "★"
    return "asked for" if (one.form, one.effort) in asked else "" if one.reaches else "too little"


def _candidate_cells(one: Candidate) -> tuple[str, ...]:
    return (
        one.form.label,
        str(one.effort) if one.form.effort_setting else "–",
        one.source,
        str(one.recall),
        _optional(one.p95_ms),
        value_text(one.predicted_p95_ms),
        one.create_text or value_text(None),
        value_text(one.build_memory_mib),
        value_text(one.index_bytes // _MIB if one.index_bytes is not None else None),
        one.note,
    )


def _readings(one: Delivery) -> tuple[Evidence, ...]:
    note = f"{one.where}, {one.form.label}, effort {one.effort}"
    rows = [
        Evidence(f"{one.when}: recall@k", Source.MEASURED, one.recall.value, note=f"{one.recall}; {note}"),
        Evidence(
            f"{one.when}: p95 of vector search",
            Source.MEASURED,
            one.p95_ms.value,
            "ms",
            note=f"{one.p95_ms} ms, {_ONE_CLIENT}",
        ),
    ]
    if one.hit_at_k is not None and one.mrr is not None:
        rows += [
            Evidence(f"{one.when}: hit@k", Source.MEASURED, one.hit_at_k.value, note=str(one.hit_at_k)),
            Evidence(f"{one.when}: MRR", Source.MEASURED, one.mrr.value, note=str(one.mrr)),
        ]
    return tuple(rows)


def _certain(recall: Estimate) -> float:
    """The lower end; where every neighbour was found there is nothing more to be had, however few the queries are."""
    return 1.0 if recall.value == 1 else recall.low


def _read(certificate: Certificate) -> str:
    return certificate.index or "the whole table"


def _optional(estimate: Estimate | None) -> str:
    return str(estimate) if estimate else "–"


def _ratio(before: Delivery, after: Delivery) -> str:
    if before.p95_ms.low > after.p95_ms.high:
        return f"{before.p95_ms.value / after.p95_ms.value:.1f} times as fast"
    if after.p95_ms.low > before.p95_ms.high:
        return f"{after.p95_ms.value / before.p95_ms.value:.1f} times as slow"
    return "no difference can be told from these intervals"
