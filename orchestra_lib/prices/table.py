"""The table of prices: one row a thing that is paid for, with its source, its date and how sure it is.

A row has two prices where two sources differ and neither is confirmed.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import pairwise
from typing import Literal

import yaml
from pydantic import Field, model_validator

from orchestra_lib.errors import DataError
from orchestra_lib.settings.base import Model

LATEST = date.max
"""The day of the last price that is known: a plan runs for longer than a price that ends next week."""

Confidence = Literal["documented", "third party", "computed", "recalled", "catalogue"]


class Price(Model):
    """US dollars for one ``unit`` of ``key``, before any discount.

    ``free`` units of a month cost nothing; ``free_at_best`` likewise, but nobody has confirmed it, so only the low end
    counts on it. The days are inclusive.
    """

    key: str
    unit: str
    low_usd: float = Field(ge=0)
    high_usd: float = Field(ge=0)
    free: float = Field(default=0.0, ge=0, strict=False)
    free_at_best: float = Field(default=0.0, ge=0, strict=False)
    first_day: date = date.min
    last_day: date = LATEST
    confidence: Confidence
    source: str = Field(min_length=1)
    as_of: date

    @model_validator(mode="after")
    def _ordered(self) -> Price:
        if self.low_usd > self.high_usd or self.first_day > self.last_day:
            raise ValueError(f"{self.key}: the low price or the first day comes after the high or the last one")
        return self

    def low(self, quantity: float) -> float:
        """What the quantity costs at least, in US dollars."""
        return max(0.0, quantity - self.free - self.free_at_best) * self.low_usd

    def high(self, quantity: float) -> float:
        """What the quantity costs at most, in US dollars."""
        return max(0.0, quantity - self.free) * self.high_usd


@dataclass(frozen=True)
class PriceTable:
    """Prices of one region in US dollars. Raises DataError for two rows of the same thing on the same day."""

    region: str
    rows: tuple[Price, ...]

    def __post_init__(self) -> None:
        ordered = sorted(self.rows, key=lambda row: (row.key, row.first_day))
        for one, other in pairwise(ordered):
            if one.key == other.key and one.last_day >= other.first_day:
                raise DataError(f"the prices have {one.key} twice on {other.first_day}: keep one of the rows")

    def find(self, key: str, on: date) -> Price | None:
        """The price of a thing on a day; None when it is not known."""
        return next((row for row in self.rows if row.key == key and row.first_day <= on <= row.last_day), None)

    def keys(self, prefix: str = "") -> tuple[str, ...]:
        """The things that have a price, in alphabetical order."""
        return tuple(sorted({row.key for row in self.rows if row.key.startswith(prefix)}))

    def replaced(self, rows: Iterable[Price]) -> PriceTable:
        """The table with these rows in the place of all that they have the key of."""
        new = tuple(rows)
        keys = {row.key for row in new}
        return PriceTable(self.region, (*(row for row in self.rows if row.key not in keys), *new))


@cache
def list_prices() -> PriceTable:
    """The table of the package."""
    file = importlib.resources.files("orchestra_lib.prices") / "list_prices.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return PriceTable(content["region"], tuple(_row(raw) for raw in content["prices"]))


def _row(raw: dict[str, object]) -> Price:
    # One price is the usual case: it is written once.
    if "usd" in raw:
        price = raw.pop("usd")
        raw |= {"low_usd": price, "high_usd": price}
    return Price.model_validate(raw)
