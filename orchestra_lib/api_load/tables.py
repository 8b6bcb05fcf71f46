"""The measurements as tables: everything that was seen, where the evidence has what is judged."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra_lib.api_load.cold_start import FirstRequests
from orchestra_lib.api_load.in_flight import Sweep
from orchestra_lib.api_load.overload import Overload
from orchestra_lib.api_load.rates import RatesMeasured
from orchestra_lib.api_load.report import told_failures, where_text
from orchestra_lib.api_load.saturation import Saturation
from orchestra_lib.display.tables import Table

_DUE = "value [95 % interval]; milliseconds from when a request was due"


def rates_table(measured: RatesMeasured) -> Table:
    """Every rate and kind."""
    rows = [
        (
            one.protocol,
            f"{one.stated_per_second:g}",
            f"{one.achieved_per_second:.1f}",
            seen.kind,
            str(seen.p50_ms),
            str(seen.p95_ms),
            str(seen.p99_ms),
            f"{seen.goal_p95_ms:g}",
            str(seen.server_p95_ms or "–"),
            told_failures(seen) or "–",
        )
        for one in measured.at_rates
        for seen in one.kinds
    ]
    headings = ("", "offered/s", "answered/s", "kind", "p50", "p95", "p99", "goal p95", "service's own p95", "failed")
    return Table(headings, rows, f"Open loop · {_DUE} · {where_text(measured.environment)}")


def saturation_table(found: Saturation) -> Table:
    """Every rate that was offered, in order."""
    rows = [
        (
            f"{step.stated_per_second:.1f}",
            f"{step.achieved_per_second:.1f}",
            *(str(seen.p95_ms) for seen in step.kinds),
            str(step.generator_lag_p95_ms),
            "holds" if step.holds else step.reason,
        )
        for step in found.steps
    ]
    kinds = [f"p95 of {seen.kind}" for seen in found.steps[0].kinds] if found.steps else []
    headings = ("offered/s", "answered/s", *kinds, "generator's lag, p95", "")
    return Table(headings, rows, f"{_DUE} · {where_text(found.environment)}")


def sweep_table(swept: Sweep) -> Table:
    """Every level."""
    rows = [
        (
            level.in_flight,
            str(level.per_second),
            *(str(seen.p95_ms) for seen in level.kinds),
            "; ".join(filter(None, (told_failures(seen) for seen in level.kinds))) or "–",
            "holds" if level.holds else "",
        )
        for level in swept.levels
    ]
    kinds = [f"p95 of {seen.kind}" for seen in swept.levels[0].kinds]
    caption = f"One instance · value [95 % interval]; milliseconds from sending · {where_text(swept.environment)}"
    return Table(("in flight", "answers/s", *kinds, "failed", "goals"), rows, caption)


def cold_start_table(found: Sequence[FirstRequests]) -> Table:
    """Each first request."""
    rows = [(one.least, str(one.ms), ", ".join(f"{ms:.0f}" for ms in one.each_ms), one.cold) for one in found]
    return Table(("min instances", "median ms", "each, ms", "found no instance"), rows)


def overload_table(found: Overload) -> Table:
    """The overload and the calm after it."""
    parts = [("overload, all", found.during), ("overload, answered", found.answered)]
    parts += [(f"calm again, {one.kind}", one) for one in found.after]
    rows = [
        (name, f"{one.requests:,}", str(one.p50_ms), str(one.p95_ms), told_failures(one) or "–")
        for name, one in parts
        if one is not None
    ]
    return Table(("", "requests", "p50", "p95", "failed"), rows, f"{_DUE} · {where_text(found.environment)}")
