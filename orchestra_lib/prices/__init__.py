"""List prices: a dated table in the package, and how it is brought up to date on Google Cloud."""

from orchestra_lib.prices.table import LATEST, Price, PriceTable, list_prices

__all__ = ["LATEST", "Price", "PriceTable", "list_prices"]
