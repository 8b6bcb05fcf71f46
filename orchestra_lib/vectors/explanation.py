"""A tuning in plain sentences, made of its numbers: what was chosen, why, and what other lists would do now and later.

The data of the figures is the tuning itself: ``candidates`` for the plane of recall and latency, ``growth`` for the
pages over the lists, the certificate for the latency at load.
"""

from __future__ import annotations

from orchestra_lib.vectors.candidate import Candidate
from orchestra_lib.vectors.certificate import Certificate
from orchestra_lib.vectors.forms import EXACT
from orchestra_lib.vectors.selection import TEN_TIMES, WORTH_IT
from orchestra_lib.vectors.tuning import PagePoint, Tuning

_ALIKE = 1.02  # times as long: nobody would call that slower
_MIB = 1 << 20
_TOLD_LISTS = (2_000, 4_000)  # those that people ask about


def sentences(tuning: Tuning) -> tuple[str, ...]:
    """One sentence or two for the choice, for the reason, for each number of lists that is asked about, for growth."""
    told = [_choice(tuning)]
    if tuning.before is not None and tuning.chosen is not None:
        told.append(_before(tuning.before, tuning.chosen))
    best = best_point(tuning, tuning.profile.rows)
    if best is not None:
        told.append(_why(best, tuning))
        told += [_lists(point, best) for point in points(tuning, tuning.profile.rows) if _is_told(point, best, tuning)]
        told.append(_growth(tuning, best))
    told += [_asked(one, tuning) for one in tuning.asked]
    if tuning.certificate is not None:
        told.append(_certificate(tuning.certificate))
    elif tuning.chosen is not None:
        told.append("It is not certified: the test queries were not touched yet.")
    told += [f"Not looked at: {reason}." for reason in tuning.skipped]
    return tuple(told)


def points(tuning: Tuning, rows: int) -> list[PagePoint]:
    """What each number of lists reads at so many rows, by ascending lists."""
    return sorted((point for point in tuning.growth if point.rows == rows), key=lambda point: point.lists)


def best_point(tuning: Tuning, rows: int) -> PagePoint | None:
    """The number of lists with the least expected p95 at so many rows; None without any that reaches the target."""
    return min((point for point in points(tuning, rows) if point.reaches), key=lambda point: point.p95_ms, default=None)


def _choice(tuning: Tuning) -> str:
    chosen, rows = tuning.chosen, tuning.profile.rows
    if chosen is None:
        return f"Nothing was chosen for {rows:,} rows: {tuning.reason}."
    if tuning.no_index_needed and chosen.form == EXACT:
        return (
            f"At {rows:,} rows no index is needed: reading every row takes {chosen.best_p95_ms:.1f} ms at p95, within "
            f"{tuning.goals.p95_ms:g} ms with room to spare, and misses nothing."
        )
    return (
        f"For {rows:,} rows {chosen.form.label} at effort {chosen.effort} is chosen: recall {chosen.recall}, "
        f"p95 {chosen.best_p95_ms:.2f} ms, {_takes(chosen)}."
    )


def _takes(one: Candidate) -> str:
    size = f"{(one.index_bytes or 0) / _MIB:,.0f} MiB"
    if one.build_seconds is not None:
        return f"{size}, built in {one.create_text} with {one.build_memory_mib or 0:,} MiB"
    if one.create_seconds is not None:
        return f"{size}; CREATE INDEX takes about {one.create_text} and {one.build_memory_mib or 0:,} MiB"
    return f"{size}, not built"


def _before(before: Candidate, chosen: Candidate) -> str:
    ratio = before.best_p95_ms / chosen.best_p95_ms
    compared = f"{ratio:.1f} times as long" if ratio >= 1 else f"{1 / ratio:.1f} times as fast"
    return (
        f"The present index, {before.form.label} at effort {before.effort}, has recall {before.recall} and p95 "
        f"{before.best_p95_ms:.2f} ms: {compared}{'' if before.reaches else ', and it misses the recall target'}."
    )


def _why(best: PagePoint, tuning: Tuning) -> str:
    error = "" if tuning.model_error is None else f" (single searches scatter by {tuning.model_error:.0%} about that)"
    return (
        f"Why: every search reads all centroids and then the lists that it probes. Few lists are long, many have many "
        f"centroids. Among IVFFlat indexes {best.lists:,} lists are the best: {best.probes:,} probes reach the recall, "
        f"{best.centroid_pages:,.0f} pages of centroids and {best.list_pages:,.0f} of lists, expected p95 "
        f"{best.p95_ms:.2f} ms{error}.{_no_gain(best, tuning)}"
    )


def _no_gain(best: PagePoint, tuning: Tuning) -> str:
    """What is expected of the fewer lists that were taken, where they were."""
    chosen = tuning.chosen.form.lists if tuning.chosen is not None else None
    taken = next((point for point in points(tuning, tuning.profile.rows) if point.lists == chosen), None)
    if taken is None or taken.lists >= best.lists:
        return ""
    if taken.p95_ms > (1 + WORTH_IT) * best.p95_ms:
        return f" The {taken.lists:,} lists that were made are expected to take {taken.p95_ms:.2f} ms."
    return (
        f" With {taken.lists:,} it is {taken.p95_ms:.2f} ms: less than {WORTH_IT:.0%} is no gain, and fewer lists "
        "build and insert faster."
    )


def _is_told(point: PagePoint, best: PagePoint, tuning: Tuning) -> bool:
    asked = {one.form.lists for one in tuning.asked}
    return point.lists != best.lists and (point.lists in asked or point.lists in _TOLD_LISTS)


def _lists(point: PagePoint, best: PagePoint) -> str:
    if not point.reaches:
        return (
            f"With {point.lists:,} lists even {point.probes:,} probes do not reach the recall on these queries "
            f"(lower bound {point.recall_low:.3f})."
        )
    more = "centroids" if point.centroid_pages > point.list_pages else "lists"
    return (
        f"With {point.lists:,} lists {point.probes:,} probes are needed; a search reads {point.centroid_pages:,.0f} "
        f"pages of centroids and {point.list_pages:,.0f} of lists, most of them for {more}, and p95 would be "
        f"{point.p95_ms:.2f} ms, {_against(point, best)}."
    )


def _against(point: PagePoint, best: PagePoint) -> str:
    ratio = point.p95_ms / best.p95_ms
    return f"as fast as {best.lists:,}" if ratio <= _ALIKE else f"{ratio:.1f} times that of {best.lists:,}"


def _growth(tuning: Tuning, now: PagePoint) -> str:
    rows = TEN_TIMES * tuning.profile.rows
    later = best_point(tuning, rows)
    grown = {point.lists: point for point in points(tuning, rows)}
    if later is None or now.lists not in grown:
        return f"What {rows:,} rows would need was not computed."
    told = [f"With {rows:,} rows, distributed alike, {now.lists:,} lists would take {grown[now.lists].p95_ms:.1f} ms"]
    told += [
        f"{lists:,} {grown[lists].p95_ms:.1f} ms" for lists in (2_000, 4_000) if lists in grown and lists != now.lists
    ]
    if later.lists == max(grown):
        told.append(f"of those computed the most, {later.lists:,}, would be best then, and more might be better still")
    else:
        told.append(f"{later.lists:,} lists would be best then")
    return f"{', '.join(told[:-1])}; {told[-1]}."


def _asked(one: Candidate, tuning: Tuning) -> str:
    how = "measured" if one.source == "measured" else "predicted, not built"
    verdict = "reaches the recall" if one.reaches else "does not reach the recall"
    best = tuning.chosen
    against = ""
    if best is not None and best.form != one.form and one.source == best.source == "measured":
        against = f"; the chosen one takes {best.best_p95_ms / one.best_p95_ms:.2f} times as long"
    return (
        f"{one.form.label}, as asked for, {verdict} with effort {one.effort} ({how}): recall {one.recall}, "
        f"p95 {one.best_p95_ms:.2f} ms, {_takes(one)}{against}."
    )


def _certificate(found: Certificate) -> str:
    verdict = "It is certified" if found.holds else "It is not certified"
    notch = " after one notch up" if len(found.attempts) > 1 else ""
    return f"{verdict}{notch}, on {found.recall.samples} queries that did not choose it: {'; '.join(found.reasons)}."
