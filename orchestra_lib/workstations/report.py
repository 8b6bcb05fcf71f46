"""Timed starts as evidence: the target, what is said of today, and the price of a machine that stands ready."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from orchestra_lib.bench.statistics import Estimate, quantile
from orchestra_lib.cost import Amount, bill
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.prices import list_prices
from orchestra_lib.settings import Settings
from orchestra_lib.settings.document import value_at, with_values
from orchestra_lib.workstations.starts import Starts

_POOLS = {"development": "workstations.pool_size", "gpu": "workstations.boost_pool_size"}
_LOCAL_CLOCK = "the local control plane's clock, which runs faster: nothing about how fast Google Cloud is"
_FROM_INSIDE = "the host did not answer here: a private endpoint is reached from inside the network, run this there"


def start_evidence(measured: Sequence[tuple[str, str, Starts]], settings: Settings, source: Source) -> list[Evidence]:
    """Rows for each machine: (name, machine type, its starts). Gates: the upper end of the median's interval.

    On Google Cloud what counts is that the host answers; the local target has no host, and there it is RUNNING.
    """
    rows: list[Evidence] = []
    for name, machine, found in measured:
        rows += _of_machine(name, machine, found, settings.targets.workstation_start_seconds, source)
    assumed = settings.baseline.workstation_start_seconds
    rows.append(
        Evidence(
            "start of today's development environment, as the strategy states it",
            Source(assumed.source),
            assumed.value,
            "s",
            note="no measurement of it exists; compared with nothing" if assumed.source == "ASSUMED" else "",
        )
    )
    return rows


def pool_evidence(settings: Settings, on: date) -> list[Evidence]:
    """What a month costs in which one machine more of each kind stands ready: the price of a quick start, at list
    prices. What is not known of it is named, and never 0.
    """
    document, prices = settings.public(), list_prices()
    rows = []
    for name, place in _POOLS.items():
        size = int(value_at(document, place))
        before, after = (bill(with_values(document, {place: n}), prices, on).monthly() for n in (size, size + 1))
        missing = tuple(one for one in after.missing if one not in before.missing)
        more = Amount(_less(after.low_usd, before.low_usd), _less(after.high_usd, before.high_usd), missing)
        note = f"list prices, {value_at(document, 'usage.pool_hours'):g} hours; {place} is {size}"
        unknown = f"; not known: {', '.join(missing)}" if missing else ""
        claim = f"price of one {name} machine that stands ready, a month"
        rows.append(Evidence(claim, Source.ASSUMED, str(more), note=note + unknown))
    return rows


def _less(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _of_machine(name: str, machine: str, found: Starts, target: float, source: Source) -> list[Evidence]:
    local = source is Source.REHEARSED
    running, reachable = _median(found.running_seconds), _median(found.reachable_seconds)
    whole = reachable if len(found.reachable_seconds) == len(found.starts) else None
    judged, what = (running, "RUNNING") if local else (whole, "its host answering")
    note = _told(judged) if judged else _FROM_INSIDE if found.starts else "no start succeeded"
    rows = [
        Evidence(
            f"start of the {name} machine, request to {what}: median, upper end of its interval",
            source,
            judged.high if judged else None,
            "s",
            Bound("<", target),
            note=f"{machine}; {note}" + (f"; {_LOCAL_CLOCK}" if local else ""),
        ),
        Evidence(
            f"starts of the {name} machine that failed",
            source,
            len(found.failures),
            "starts",
            Bound("==", 0),
            note="; ".join(found.failures[:2]),
        ),
    ]
    if not local and running:
        claim = f"start of the {name} machine, request to RUNNING: median"
        rows.append(Evidence(claim, source, running.value, "s", note=_told(running)))
    return rows


def _median(seconds: Sequence[float]) -> Estimate | None:
    return quantile(seconds, 0.5) if seconds else None


def _told(estimate: Estimate) -> str:
    return f"{estimate} s over {estimate.samples} starts"
