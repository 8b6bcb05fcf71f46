"""The measurements as evidence.

Gates hold on Google Cloud at every stated rate, for the upper end of p95's interval. In a rehearsal the machine's
cores are shared by the one who asks, the front, the service and the database, which no target speaks of: there p95
itself is held to the goals, at the lowest rate, and what the higher ones show is a reading. Whatever else such a
machine does comes in bursts, which leave a short run's interval without an upper end; it stands in the note. That no
answer is wrong, and how load is refused, is judged everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from orchestra_lib.api_load.cold_start import FirstRequests
from orchestra_lib.api_load.in_flight import Sweep
from orchestra_lib.api_load.overload import CALM_SHARE, FACTOR, FEWEST_REFUSED, Overload
from orchestra_lib.api_load.rates import AtRate, RatesMeasured
from orchestra_lib.api_load.saturation import LARGEST_FAILED_SHARE, Saturation
from orchestra_lib.api_load.seen import Seen
from orchestra_lib.bench.environment import Environment
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.settings import Settings

LONGEST_RECOVERY_SECONDS = 2.0


def where_text(environment: Environment) -> str:
    """The machine that asked and how busy it was; in a rehearsal everything else was on it too."""
    host = environment.host
    memory = int(host["memory_bytes"]) / 2**30
    return f"{host['cores']} cores, {host['cpu']}, {memory:.0f} GiB, load {environment.load_average[0]:.1f} before"


def rates_evidence(measured: RatesMeasured, source: Source) -> tuple[Evidence, ...]:
    """p95 of each kind at each rate, what failed, and which versions of HTTP were spoken."""
    lowest = min(one.stated_per_second for one in measured.at_rates)
    where = where_text(measured.environment)
    rows = []
    for one in measured.at_rates:
        is_gate = source is not Source.REHEARSED or one.stated_per_second == lowest
        rows += [_p95_row(one, seen, source, is_gate, where) for seen in one.kinds]
    everything = [seen for one in measured.at_rates for seen in one.kinds]
    rows += _soundness("at the stated rates", everything, source)
    spoken = "HTTP/1.1 and HTTP/2" if measured.http2_is_spoken else "HTTP/1.1"
    note = "" if measured.http2_is_spoken else "asked for HTTP/2, the other side does not speak it: not measured"
    rows.append(Evidence("measured over", source, spoken, note=note))
    return tuple(rows)


def saturation_evidence(found: Saturation, source: Source) -> tuple[Evidence, ...]:
    """The bracket, as readings: no target speaks of it."""
    where = where_text(found.environment)
    width = "" if found.is_close else "; the time was up before the bracket was narrow"
    breaks = "none that was offered" if found.breaks_per_second is None else round(found.breaks_per_second, 1)
    rows = [
        Evidence(
            "highest offered rate that kept every goal",
            source,
            round(found.holds_per_second, 1),
            "requests/s",
            note=f"{len(found.steps)} steps in {found.seconds:.0f} s{width}; {where}",
        ),
        Evidence("lowest offered rate that did not", source, breaks, "requests/s", note=found.why),
    ]
    rows += _wrong(
        "while the saturation point was looked for", [one for step in found.steps for one in step.kinds], source
    )
    return tuple(rows)


def sweep_evidence(swept: Sweep, asked: int, source: Source) -> tuple[Evidence, ...]:
    """What concurrency the load has earned, beside the one that was asked for: readings."""
    earned, where = swept.earned, where_text(swept.environment)
    rows = [
        Evidence(
            "concurrency of an instance that the load has earned",
            source,
            earned.concurrency,
            "requests",
            note=f"{earned.why}; {earned.per_second} answers/s; the knee is at {swept.knee.in_flight}; {where}",
        ),
        Evidence(
            "requests that the service takes before it refuses",
            source,
            earned.max_in_flight,
            "requests",
            note="below the concurrency, so that it refuses at once and the front's queue stays empty",
        ),
    ]
    beside = next((level for level in swept.levels if level.in_flight == asked), None)
    if beside is not None:
        told = ", ".join(f"p95 of {one.kind} {one.p95_ms} ms (goal {one.goal_p95_ms:g})" for one in beside.kinds)
        words = "keeps the goals" if beside.holds else "breaks them"
        note = f"{told}; {beside.per_second} answers/s"
        rows.append(Evidence(f"the concurrency asked for, {asked},", source, words, note=note))
    rows += _wrong("during the sweep", [one for level in swept.levels for one in level.kinds], source)
    return tuple(rows)


def cold_start_evidence(found: Iterable[FirstRequests], source: Source) -> tuple[Evidence, ...]:
    """The first request with each minimum; with an instance kept none may have to wait for a start."""
    rows = []
    for one in found:
        at = f"min instances {one.least}"
        note = (
            f"{one.ms} ms over {len(one.each_ms)}, the slowest {max(one.each_ms):.0f} ms; {where_text(one.environment)}"
        )
        rows.append(
            Evidence(f"first request after a quiet time, {at}: median", source, round(one.ms.value, 1), "ms", note=note)
        )
        kept = Bound("==", 0) if one.least else Bound("==", len(one.each_ms))
        rows.append(Evidence(f"first requests that found no instance, {at}", source, one.cold, "requests", kept))
    return tuple(rows)


def overload_evidence(found: Overload, source: Source) -> tuple[Evidence, ...]:
    """At twice the saturation point: refused with a word when to come again, nothing wrong, and over soon."""
    during, total = found.during, found.total
    answered = f"p95 of what was answered: {found.answered.p95_ms} ms" if found.answered else "nothing was answered"
    recovery, after = found.recovery_seconds, ", ".join(f"p95 of {one.kind} {one.p95_ms} ms" for one in found.after)
    return (
        Evidence(
            f"at {FACTOR:g} times the saturation point: refused, and told when to come again",
            source,
            during.shed,
            "requests",
            Bound(">=", max(1, math.ceil(FEWEST_REFUSED * during.requests))),
            note=f"of {during.requests:,} at {found.offered_per_second:.0f}/s; the generator's own lag "
            f"{found.generator_lag_p95_ms} ms; {where_text(found.environment)}",
        ),
        Evidence(
            f"at {FACTOR:g} times the saturation point: failed in any other way",
            source,
            total.failed - total.shed - total.wrong,
            "requests",
            Bound("==", 0),
            note=told_failures(total),
        ),
        *_wrong(f"at {FACTOR:g} times the saturation point", [total], source),
        Evidence(
            f"at {FACTOR:g} times the saturation point: answered a second",
            source,
            round(found.answered_per_second, 1),
            "requests/s",
            note=f"the saturation point is {found.saturation_per_second:.1f}; {answered}",
        ),
        Evidence(
            "until requests are answered within their goals again",
            source,
            None if recovery is None else round(recovery, 1),
            "s",
            Bound("<=", LONGEST_RECOVERY_SECONDS),
            note=f"then at {CALM_SHARE:g} times the saturation point: {after}",
        ),
    )


def baseline_evidence(measured: RatesMeasured, settings: Settings, source: Source) -> tuple[Evidence, ...]:
    """What is said of today's API; an improvement is claimed only where both were measured against the real thing."""
    lowest = measured.at_rates[0]
    rows = []
    for what, before, goal in (
        ("API", settings.baseline.api_ms, settings.targets.api_p95_ms),
        ("memory retrieval", settings.baseline.memory_retrieval_ms, settings.targets.memory_retrieval_p95_ms),
    ):
        now = [seen.p95_ms for seen in lowest.kinds if seen.goal_p95_ms == goal]
        is_measured = before.source == "MEASURED"
        note = "" if is_measured else "no measurement of it exists; compared with nothing"
        rows.append(
            Evidence(f"{what} today, as the parameters state it", Source(before.source), before.value, "ms", note=note)
        )
        if is_measured and source is Source.MEASURED and now:
            ratio = before.value / max(one.high for one in now)
            note = f"p95 {now[0]} ms at {lowest.stated_per_second:g}/s"
            rows.append(Evidence(f"{what}: today's figure divided by p95 now", source, round(ratio, 2), note=note))
    return tuple(rows)


def told_failures(seen: Seen) -> str:
    """Failures by kind, for a person; empty when there was none."""
    return ", ".join(f"{count} {kind}" for kind, count in seen.failures.items())


def _p95_row(at: AtRate, seen: Seen, source: Source, is_gate: bool, where: str) -> Evidence:
    bound = Bound("<", seen.goal_p95_ms)
    reading = "" if is_gate else f"; a reading: the goal is {seen.goal_p95_ms:g} ms"
    note = (
        f"{seen.p95_ms} ms over {seen.requests:,} requests, {at.achieved_per_second:.1f}/s answered of "
        f"{at.offered_per_second:.1f}/s offered, {at.protocol}; the generator's own lag {at.generator_lag_p95_ms} ms; "
        f"{where}{reading}"
    )
    claim = f"p95 of {seen.kind} at {at.stated_per_second:g}/s"
    if at.protocol != "HTTP/1.1":
        claim += f", {at.protocol}"
    value = seen.p95_ms.value
    if source is not Source.REHEARSED:
        claim, value = f"{claim}, upper end of its interval", seen.p95_ms.high
    return Evidence(claim, source, round(value, 2), "ms", bound if is_gate else None, note=note)


def _soundness(when: str, everything: Sequence[Seen], source: Source) -> tuple[Evidence, ...]:
    requests, failed = sum(one.requests for one in everything), sum(one.failed for one in everything)
    note = "; ".join(sorted({told for one in everything if (told := told_failures(one))}))
    share = failed / requests
    bound = Bound("<=", LARGEST_FAILED_SHARE)
    note = f"{failed} of {requests:,}" + (f": {note}" if note else "")
    failed_row = Evidence(f"failed share {when}", source, share, "", bound, note=note)
    return (failed_row, *_wrong(when, everything, source))


def _wrong(when: str, everything: Sequence[Seen], source: Source) -> tuple[Evidence, ...]:
    note = "held against the answers that were given in peace"
    wrong = sum(one.wrong for one in everything)
    return (Evidence(f"answers 2xx that were wrong {when}", source, wrong, "answers", Bound("==", 0), note=note),)
