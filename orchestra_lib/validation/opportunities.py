"""What is left to gain, ranked: targets missed, missing, worse than before, near their limit; then money. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from orchestra_lib.cost import bill, what_if
from orchestra_lib.evidence import value_text
from orchestra_lib.prices import PriceTable
from orchestra_lib.validation.targets import State, Target

_NEAR_SHARE = 0.5
"""Of what a target allows: who uses less has nothing to gain that anybody would notice."""

_FIRST_USD = 1.0
_EXPECTED = "usage."


@dataclass(frozen=True)
class Opportunity:
    """Something that is left to do. ``gain`` and ``step`` are words; ``rank`` sorts, the smallest first."""

    name: str
    gain: str
    step: str
    rank: tuple[int, float]


def opportunities(
    targets: Iterable[Target], steps: Mapping[str, str], levers: Sequence[Opportunity]
) -> tuple[Opportunity, ...]:
    """All of them in order. ``steps`` says for a target's title what would be done about it."""
    of_targets = [found for target in targets if (found := _of_target(target, steps)) is not None]
    return tuple(sorted((*of_targets, *levers), key=lambda one: one.rank))


def cost_levers(document: Mapping[str, Any], prices: PriceTable, on: date) -> tuple[Opportunity, ...]:
    """For each lever the setting that saves most a month, at list prices; nothing for those that only cost more.

    What it costs beside money, such as a database without a second zone, is for its owner to weigh. How much is used is
    expected and not set, so that is no lever here.
    """
    now = bill(document, prices, on).total().high_usd
    best: dict[str, Opportunity] = {}
    for row in what_if(document, prices, on):
        then = row.total.high_usd
        if row.lever.place.startswith(_EXPECTED):
            continue
        if now is None or then is None or now - then < _FIRST_USD:
            continue
        name, saved = f"{row.lever.name}: {'none' if row.value is None else value_text(row.value)}", now - then
        found = Opportunity(name, f"{saved:,.0f} USD a month less", f"set {row.lever.place}", (2, -saved))
        if row.lever.place not in best or found.rank < best[row.lever.place].rank:
            best[row.lever.place] = found
    return tuple(sorted(best.values(), key=lambda one: one.rank))


def _of_target(target: Target, steps: Mapping[str, str]) -> Opportunity | None:
    step = steps.get(target.title, "")
    if target.state is State.MISSING:
        return Opportunity(target.title, f"not measured: {target.missing}", "measure it", (0, 0.0))
    used = target.used_share or 0.0
    if target.state is State.NOT_REACHED:
        return Opportunity(target.title, f"{used:.1f} times what the target allows", step, (0, -used))
    if target.is_improved is False:
        return Opportunity(target.title, f"{target.improvement} than before, both sides measured", step, (1, -2.0))
    if used < _NEAR_SHARE:
        return None
    return Opportunity(target.title, f"{used:.0%} of what the target allows is used up", step, (1, -used))
