"""Today's list prices from the Cloud Billing Catalog API, for what it answers without a doubt.

A price is replaced only when exactly one price fits its row of :data:`QUERIES`; everything else stays as the dated
table has it, and the answer says why. Models, seats and what Google names no SKU for by a fixed text are not asked for.
https://cloud.google.com/billing/docs/reference/rest/v1/services.skus
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from orchestra_lib.cloud.client import Client
from orchestra_lib.errors import DataError, ParameterError
from orchestra_lib.prices.table import Price, PriceTable

Sku = Mapping[str, Any]

COMPUTE, RUN, ALLOYDB = "Compute Engine", "Cloud Run", "AlloyDB"
_API = "cloudbilling.v1"
_IN = r"( in .+)?"
_PAGE_SIZE = 5000


@dataclass(frozen=True)
class Term:
    """So many units of one SKU: the whole of its description as a pattern, and the unit that it must be paid by."""

    service: str
    description: str
    unit: str
    times: float = 1.0


@dataclass(frozen=True)
class Refreshed:
    """The table with what could be replaced, and for every other row that was asked for, why it stays."""

    table: PriceTable
    replaced: tuple[str, ...]
    left: Mapping[str, str]


def _vcpu(series: str, memory_gb: float) -> tuple[Term, ...]:
    return (
        Term(COMPUTE, f"{series} Instance Core running in .+", "h"),
        Term(COMPUTE, f"{series} Instance Ram running in .+", "GiBy.h", memory_gb),
    )


QUERIES: Mapping[str, tuple[Term, ...]] = {
    "vcpu.n1-standard": _vcpu("N1 Predefined", 3.75),
    "vcpu.n2d-standard": _vcpu("N2D AMD", 4.0),
    "gpu.nvidia-tesla-t4": (Term(COMPUTE, "Nvidia Tesla T4 GPU running in .+", "h"),),
    "disk.pd-standard": (Term(COMPUTE, f"Storage PD Capacity{_IN}", "GiBy.mo"),),
    "disk.pd-balanced": (Term(COMPUTE, f"Balanced PD Capacity{_IN}", "GiBy.mo"),),
    "disk.pd-ssd": (Term(COMPUTE, f"SSD backed PD Capacity{_IN}", "GiBy.mo"),),
    "regional_disk.pd-standard": (Term(COMPUTE, f"Regional Storage PD Capacity{_IN}", "GiBy.mo"),),
    "regional_disk.pd-balanced": (Term(COMPUTE, f"Regional Balanced PD Capacity{_IN}", "GiBy.mo"),),
    "regional_disk.pd-ssd": (Term(COMPUTE, f"Regional SSD backed PD Capacity{_IN}", "GiBy.mo"),),
    "snapshot": (Term(COMPUTE, "Storage PD Snapshot in .+", "GiBy.mo"),),
    "nat.address": (Term(COMPUTE, "External IP Charge on a Standard VM", "h"),),
    # The descriptions of AlloyDB are not known by heart: series that differ in price leave it as it is.
    "alloydb.vcpu": (
        Term(ALLOYDB, r"(?i)(?!.*commit).*\bv?cpus?\b.*", "h"),
        Term(ALLOYDB, r"(?i)(?!.*commit).*\b(ram|memory)\b.*", "GiBy.h", 8.0),
    ),
    "alloydb.storage": (Term(ALLOYDB, r"(?i)(?!.*backup).*\bstorage\b.*", "GiBy.mo"),),
    "run.instance_cpu": (Term(RUN, rf"Services CPU \(Instance-based billing\){_IN}", "s"),),
    "run.instance_memory": (Term(RUN, rf"Services Memory \(Instance-based billing\){_IN}", "GiBy.s"),),
    "run.active_cpu": (Term(RUN, rf"Services CPU \(Request-based billing\){_IN}", "s"),),
    "run.active_memory": (Term(RUN, rf"Services Memory \(Request-based billing\){_IN}", "GiBy.s"),),
    "run.idle_cpu": (Term(RUN, rf"Services Min Instance CPU \(Request-based billing\){_IN}", "s"),),
    "run.idle_memory": (Term(RUN, rf"Services Min Instance Memory \(Request-based billing\){_IN}", "GiBy.s"),),
}
"""Which SKUs make up a price of the table."""


def refreshed(table: PriceTable, skus: Mapping[str, Sequence[Sku]], on: date) -> Refreshed:
    """The table with the catalogue's prices. ``skus``: display name of a service -> its SKUs, as the API lists them."""
    found: dict[str, Price] = {}
    left: dict[str, str] = {}
    for key, terms in QUERIES.items():
        known = table.find(key, on)
        if known is None:
            continue
        try:
            found[key] = _composed(known, [(term, _the_one(term, skus, table.region)) for term in terms], on)
        except DataError as error:
            left[key] = str(error)
    return Refreshed(table.replaced(found.values()), tuple(found), left)


def catalogue(client: Client) -> dict[str, tuple[Sku, ...]]:
    """The SKUs of the services that :data:`QUERIES` asks for. Changes nothing.

    Raises ParameterError on the local target, which has no prices; CloudRefused and TargetUnreachable as calls do.
    """
    if client.target.kind == "local":
        raise ParameterError("the local target has no prices: only an environment on Google Cloud can refresh them")
    wanted = {term.service for terms in QUERIES.values() for term in terms}
    services = _listed(client, "cloudbilling.services.list", "services", "services")
    names = {row["displayName"]: row["name"] for row in services if row.get("displayName") in wanted}
    return {
        title: tuple(_listed(client, "cloudbilling.services.skus.list", f"{name}/skus", "skus"))
        for title, name in names.items()
    }


def _listed(client: Client, method_id: str, path: str, field: str) -> Iterator[Mapping[str, Any]]:
    query = {"pageSize": str(_PAGE_SIZE)}
    while True:
        answer = client.call(_API, method_id, path, query=query)
        yield from answer.get(field, ())
        if not answer.get("nextPageToken"):
            return
        query = {**query, "pageToken": answer["nextPageToken"]}


@dataclass(frozen=True)
class _Rate:
    """US dollars a unit after so many free ones."""

    usd: float
    free: float
    sku: str


def _the_one(term: Term, skus: Mapping[str, Sequence[Sku]], region: str) -> _Rate:
    """The rate that fits; raises DataError when none does, or several that differ."""
    fitting = [sku for sku in skus.get(term.service, ()) if _fits(sku, term, region)]
    rates = {(rate.usd, rate.free): rate for rate in (_rate(sku, term.unit) for sku in fitting)}
    if len(rates) != 1:
        prices = ", ".join(f"{usd:g}" for usd, _ in sorted(rates)) or "none"
        raise DataError(f"{term.service} has no single SKU like {term.description!r} in {region}: {prices}")
    return next(iter(rates.values()))


def _fits(sku: Sku, term: Term, region: str) -> bool:
    return (
        bool(re.fullmatch(term.description, sku.get("description", "")))
        and sku.get("category", {}).get("usageType") == "OnDemand"
        and not {region, "global"}.isdisjoint(sku.get("serviceRegions", ()))
    )


def _rate(sku: Sku, unit: str) -> _Rate:
    """The latest price of a SKU: its first tier that is not free, and what is free before it."""
    name = sku.get("name", sku.get("skuId", "?"))
    if not sku.get("pricingInfo"):
        raise DataError(f"{name} has no price")
    expression = sku["pricingInfo"][-1]["pricingExpression"]
    if expression.get("usageUnit") != unit:
        raise DataError(f"{name} is paid by {expression.get('usageUnit')}, not by {unit}")
    tiers = [(float(tier.get("startUsageAmount", 0)), tier["unitPrice"]) for tier in expression["tieredRates"]]
    currencies = {money.get("currencyCode", "USD") for _, money in tiers}
    if currencies != {"USD"}:
        raise DataError(f"{name} is priced in {', '.join(sorted(currencies))}, not in USD")
    paid = [(start, _usd(money)) for start, money in tiers if _usd(money) > 0]
    if not paid:
        raise DataError(f"{name} costs nothing at any amount")
    start, usd = paid[0]
    return _Rate(usd, start, str(name))


def _usd(money: Mapping[str, Any]) -> float:
    return int(money.get("units", 0)) + int(money.get("nanos", 0)) / 1e9


def _composed(known: Price, parts: Sequence[tuple[Term, _Rate]], on: date) -> Price:
    usd = sum(term.times * rate.usd for term, rate in parts)
    names = ", ".join(rate.sku for _, rate in parts)
    return Price(
        key=known.key,
        unit=known.unit,
        low_usd=usd,
        high_usd=usd,
        free=parts[0][1].free if len(parts) == 1 else 0.0,
        confidence="catalogue",
        source=f"Cloud Billing Catalog API: {names}",
        as_of=on,
    )
