"""How long each measurement takes: a short form for two quiet cores, a long one whose figures can be published."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Form:
    """Lengths in seconds, rates in requests a second.

    ``rates`` are the offered rates that p95 is stated at, each until every kind was asked ``fewest`` times: with less
    the interval of a p95 has no upper end. The saturation point is looked for from ``first_rate`` on, in steps of
    ``step_seconds``, for ``saturation_seconds`` at most. ``levels`` are how many requests are held in flight.
    ``cold_starts`` are first requests; six are the fewest whose median has an interval at 95 %.
    """

    rates: tuple[float, ...] = (25.0, 50.0, 100.0)
    rate_seconds: float = 5.0
    fewest: int = 150
    first_rate: float = 50.0
    step_seconds: float = 2.0
    saturation_seconds: float = 16.0
    levels: tuple[int, ...] = (1, 5, 10, 20, 40, 80, 120)
    level_seconds: float = 1.0
    cold_starts: int = 6
    calm_seconds: float = 1.0
    overload_seconds: float = 3.0
    after_seconds: float = 4.0


SHORT = Form()
"""About a minute in all."""
NOTEBOOK: Form = replace(
    SHORT,
    rate_seconds=6.0,
    fewest=100,
    first_rate=100.0,
    step_seconds=1.0,
    saturation_seconds=6.0,
    calm_seconds=0.5,
    overload_seconds=2.5,
    after_seconds=2.5,
)
"""Between the other steps of a notebook: a rehearsal of the measurement, whose figures the long form confirms."""
LONG = Form(
    rates=(10.0, 25.0, 50.0, 100.0, 200.0),
    rate_seconds=60.0,
    fewest=1_000,
    step_seconds=15.0,
    saturation_seconds=300.0,
    levels=(1, 2, 5, 10, 20, 40, 60, 80, 100, 120, 160),
    level_seconds=15.0,
    cold_starts=20,
    calm_seconds=10.0,
    overload_seconds=60.0,
    after_seconds=30.0,
)
"""About twenty minutes in all."""
