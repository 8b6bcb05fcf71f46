"""What a request costs at list prices, before and after packing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from orchestra_lib.prices import PriceTable

_MILLION = 1e6


@dataclass(frozen=True)
class RequestPrice:
    """A model's prices on a day, in US dollars for a million tokens, and how sure they are."""

    model: str
    on: date
    input_usd: float
    output_usd: float
    confidence: str

    def of(self, input_tokens: float, output_tokens: float) -> float:
        """What a request costs, in US dollars; thinking is output."""
        return (input_tokens * self.input_usd + output_tokens * self.output_usd) / _MILLION


def request_price(prices: PriceTable, model: str, on: date) -> RequestPrice | None:
    """The dearer end of a model's prices on a day; None when the table has none for it."""
    into, out = (prices.find(f"model.{model}.{way}", on) for way in ("input", "output"))
    if into is None or out is None:
        return None
    confidence = into.confidence if into.confidence == out.confidence else f"{into.confidence}, {out.confidence}"
    return RequestPrice(model, on, into.high_usd, out.high_usd, confidence)


def embedding_price_usd(prices: PriceTable, model: str, tokens: float, on: date) -> float | None:
    """What embedding so many tokens costs, in US dollars; None when the table has no price for the model."""
    price = prices.find(f"embedding.{model}", on)
    return None if price is None else tokens / _MILLION * price.high_usd
