"""The bill of a month: what a plan uses, from its parameter file, times list prices. Pure.

Nothing unknown counts as 0: a line whose price or quantity is not known is MISSING, and a total that it belongs to is a
lower bound. No discount is counted: machines that run less than a quarter of the month get none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from orchestra_lib.evidence import Evidence, Source
from orchestra_lib.machine_types import machine_type
from orchestra_lib.prices import Price, PriceTable
from orchestra_lib.settings.base import memory_bytes
from orchestra_lib.settings.document import value_at, with_values

HOURS_A_MONTH = 730.0
"""What Google's calculator takes for a month."""

_SECONDS_A_MONTH = HOURS_A_MONTH * 3600
_MILLION = 1e6
_LARGEST = 1e15  # beyond it a value is a slip of the pen, and a whole number may not fit a float
_BOOT_DISK = "disk.pd-balanced"
_NODES = {"REGIONAL": 2, "ZONAL": 1}  # both nodes of a pair are paid: https://cloud.google.com/alloydb/pricing

COMPONENTS = ("workstations", "alloydb", "cloud_run", "vertex_ai", "code_assist", "other")
"""The parts of the bill. All but ``code_assist`` are in the strategy's table, under ``cost`` in the settings."""


@dataclass(frozen=True)
class Amount:
    """US dollars from ``low_usd`` to ``high_usd``, both None when nothing of it is known; what is not known by name."""

    low_usd: float | None
    high_usd: float | None
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.low_usd is None or self.high_usd is None:
            return "MISSING"
        low, high = f"{self.low_usd:,.0f}", f"{self.high_usd:,.0f}"
        known = f"{low} USD" if low == high else f"{low} to {high} USD"
        return f"at least {known}" if self.missing else known


@dataclass(frozen=True)
class Line:
    """One line of the bill. ``once``: paid at the start and not every month."""

    component: str
    item: str
    quantity: float | None
    unit: str
    amount: Amount
    once: bool = False
    prices: tuple[Price, ...] = ()


@dataclass(frozen=True)
class Bill:
    """The lines of a month, and their sums."""

    lines: tuple[Line, ...]
    on: date

    def total(self, component: str | None = None) -> Amount:
        """The first month: of a component, or of everything, with what is paid once."""
        return _sum(line.amount for line in self.lines if component in (None, line.component))

    def monthly(self) -> Amount:
        """Every further month: all but what is paid once."""
        return _sum(line.amount for line in self.lines if not line.once)


@dataclass(frozen=True)
class Lever:
    """A setting that moves the bill, with the values that are worth a look."""

    name: str
    place: str
    choices: Callable[[Mapping[str, Any], PriceTable], tuple[Any, ...]]

    def values(self, document: Mapping[str, Any], prices: PriceTable) -> tuple[Any, ...]:
        """The choices, and the value that stands if it is none of them; numbers in their order."""
        choices = self.choices(document, prices)
        if not any(self.stands(document, value) for value in choices):
            choices = (value_at(document, self.place), *choices)
        numbers = all(isinstance(value, int | float) for value in choices)
        return tuple(sorted(choices)) if numbers else choices

    def stands(self, document: Mapping[str, Any], value: Any) -> bool:
        """Whether the document has this value; one that it does not state is off."""
        stated = value_at(document, self.place)
        return bool(stated == value) or (stated is None and not value)


@dataclass(frozen=True)
class WhatIf:
    """The bill's total with one lever moved."""

    lever: Lever
    value: Any
    current: bool
    total: Amount


def bill(document: Mapping[str, Any], prices: PriceTable, on: date) -> Bill:
    """The bill of what a parameter file plans, at the prices of a day."""
    read = _Reading(document)
    items = (*_workstations(read, prices), *_alloydb(read), *_cloud_run(read), *_models(read), *_other(read))
    return Bill(tuple(_line(item, prices, on) for item in items), on)


def what_if(document: Mapping[str, Any], prices: PriceTable, on: date) -> tuple[WhatIf, ...]:
    """The bill's total for every value of every lever, one moved at a time."""
    return tuple(
        WhatIf(
            lever,
            value,
            lever.stands(document, value),
            bill(with_values(document, {lever.place: value}), prices, on).total(),
        )
        for lever in LEVERS
        for value in lever.values(document, prices)
    )


def bill_evidence(document: Mapping[str, Any], of: Bill) -> Evidence:
    """The bill beside the budget, as a reading: its use is assumed, so it proves nothing."""
    total, budget = of.total(), value_at(document, "cost.budget_usd")
    against = f"the budget is {budget:,.0f} USD" if isinstance(budget, int | float) else "there is no budget"
    missing = f"; MISSING: {', '.join(total.missing)}" if total.missing else ""
    return Evidence("the first month at list prices", Source.ASSUMED, str(total), note=f"{against}{missing}")


# --- what is used -----------------------------------------------------------------------------------------------------


class _Open(Exception):
    """A quantity or a price that the document leaves open; the text says which."""


@dataclass(frozen=True)
class _Part:
    """So much of one thing that has a price."""

    key: str
    quantity: float


@dataclass(frozen=True)
class _Item:
    """A line to be: what it consists of, for each of the choices that are open."""

    component: str
    item: str
    choices: Callable[[], tuple[tuple[_Part, ...], ...]]
    once: bool = False


class _Reading:
    """The document's values by their dotted paths. Raises _Open for one that is not there or no such value."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def number(self, place: str) -> float:
        value = value_at(self.document, place)
        if value is None:
            raise _Open(f"{place} is not stated")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
            raise _Open(f"{place} is {value!r} and no amount")
        return float(value)

    def text(self, place: str) -> str:
        value = value_at(self.document, place)
        if not isinstance(value, str) or not value:
            raise _Open(f"{place} is not stated" if value is None else f"{place} is {value!r} and no name")
        return value

    def gib(self, place: str) -> float:
        try:
            return memory_bytes(self.text(place)) / (1 << 30)
        except ValueError as error:
            raise _Open(f"{place}: {error}") from None

    def cpus(self, place: str) -> int:
        name = self.text(place)
        machine = machine_type(name)
        if machine is None:
            raise _Open(f"{place} is {name}: its vCPUs are not in its name")
        return machine.cpus

    def has(self, place: str) -> bool:
        return value_at(self.document, place) is not None

    def developer_hours(self) -> float:
        return self.number("usage.developers") * self.number("usage.developer_hours")

    def boost_ratio(self) -> float:
        return self.number("usage.boost_ratio") if self.has("workstations.boost") else 0.0


def _item(component: str, item: str, key: str, quantity: Callable[[], float], once: bool = False) -> _Item:
    return _Item(component, item, lambda: ((_Part(key, quantity()),),), once)


def _workstations(read: _Reading, prices: PriceTable) -> Iterator[_Item]:
    def running(name: str) -> float:
        ratio = read.boost_ratio()
        return read.developer_hours() * (ratio if name == "boost" else 1 - ratio)

    yield _item("workstations", "cluster", "workstations.cluster", lambda: HOURS_A_MONTH)
    yield from _machine(read, prices, "development", "development", lambda: running("development"))
    if read.has("workstations.boost"):
        yield from _machine(read, prices, "boost", "boost", lambda: running("boost"))
    yield _item(
        "workstations",
        "boot disks while running",
        _BOOT_DISK,
        lambda: read.number("workstations.boot_disk_gb") * read.developer_hours() / HOURS_A_MONTH,
    )
    yield _Item("workstations", "home disks", lambda: ((_home_disks(read),),))
    yield from _pool(read, prices, "development", "workstations.pool_size")
    yield from _pool(read, prices, "boost", "workstations.boost_pool_size")


def _pool(read: _Reading, prices: PriceTable, name: str, size: str) -> Iterator[_Item]:
    """Machines that stand ready for a quick start; a size that cannot be read is MISSING, none costs nothing."""
    if not read.has(size) or value_at(read.document, size) == 0:
        return

    def hours() -> float:
        return read.number(size) * read.number("usage.pool_hours")

    yield from _machine(read, prices, name, f"pool, {name}", hours, "workstations.pool_management")
    yield _item(
        "workstations",
        f"pool, {name}: boot disks",
        _BOOT_DISK,
        lambda: read.number("workstations.boot_disk_gb") * hours() / HOURS_A_MONTH,
    )


def _home_disks(read: _Reading) -> _Part:
    disk = value_at(read.document, "workstations.home_disk_type") or "pd-standard"  # the API's default
    gb = read.number("workstations.home_disk_gb") * read.number("usage.developers")
    return _Part(f"regional_disk.{disk}", gb)


def _machine(
    read: _Reading,
    prices: PriceTable,
    name: str,
    label: str,
    hours: Callable[[], float],
    management: str = "workstations.management",
) -> Iterator[_Item]:
    place = f"workstations.{name}"

    def machine() -> tuple[tuple[_Part, ...], ...]:
        named = read.text(f"{place}.machine_type")
        if f"machine.{named}" in prices.keys("machine."):
            return ((_Part(f"machine.{named}", hours()),),)
        cpus = read.cpus(f"{place}.machine_type")
        return ((_Part(f"vcpu.{named[: named.rindex(str(cpus)) - 1]}", hours() * cpus),),)

    yield _Item("workstations", f"{label}: machine", machine)
    yield _item(
        "workstations", f"{label}: management", management, lambda: hours() * read.cpus(f"{place}.machine_type")
    )
    if read.has(f"{place}.accelerator_type"):
        yield _item(
            "workstations",
            f"{label}: GPUs",
            f"gpu.{value_at(read.document, f'{place}.accelerator_type')}",
            lambda: hours() * read.number(f"{place}.accelerator_count"),
        )


def _alloydb(read: _Reading) -> Iterator[_Item]:
    place = "memory.alloydb"

    def node_hours(nodes: int) -> float:
        return nodes * read.number(f"{place}.cpu_count") * HOURS_A_MONTH

    def primary() -> float:
        availability = value_at(read.document, f"{place}.availability") or "REGIONAL"  # the API's default
        if availability not in tuple(_NODES):
            raise _Open(f"{place}.availability is {availability!r}")
        return node_hours(_NODES[availability])

    yield _item("alloydb", "primary", "alloydb.vcpu", primary)
    yield _item("alloydb", "storage", "alloydb.storage", lambda: read.number("usage.alloydb_storage_gb"))
    if read.has(f"{place}.secondary_cluster"):
        yield _item("alloydb", "secondary cluster", "alloydb.vcpu", lambda: node_hours(1))
        yield _item("alloydb", "its storage", "alloydb.storage", lambda: read.number("usage.alloydb_storage_gb"))


def _cloud_run(read: _Reading) -> Iterator[_Item]:
    def warm_seconds() -> float:
        return read.number("api.min_instances") * _SECONDS_A_MONTH

    def active_seconds() -> float:
        at_once = read.number("usage.api_requests_at_once")
        if at_once == 0:
            raise _Open("usage.api_requests_at_once is 0: an instance that answers has a request")
        return read.number("usage.api_requests") * read.number("usage.api_request_seconds") / at_once

    def of(cpu_or_gib: Callable[[], float], seconds: Callable[[], float]) -> Callable[[], float]:
        return lambda: cpu_or_gib() * seconds()

    def cpu() -> float:
        return read.number("api.cpu")

    def gib() -> float:
        return read.gib("api.memory")

    if value_at(read.document, "api.cpu_idle") is False:
        yield _item("cloud_run", "CPU, always there", "run.instance_cpu", of(cpu, warm_seconds))
        yield _item("cloud_run", "memory, always there", "run.instance_memory", of(gib, warm_seconds))
        return
    yield _item("cloud_run", "CPU of warm instances", "run.idle_cpu", of(cpu, warm_seconds))
    yield _item("cloud_run", "memory of warm instances", "run.idle_memory", of(gib, warm_seconds))
    yield _item("cloud_run", "CPU while answering", "run.active_cpu", of(cpu, active_seconds))
    yield _item("cloud_run", "memory while answering", "run.active_memory", of(gib, active_seconds))
    yield _item("cloud_run", "requests", "run.requests", lambda: read.number("usage.api_requests") / _MILLION)


def _models(read: _Reading) -> Iterator[_Item]:
    def tokens(way: str) -> tuple[tuple[_Part, ...], ...]:
        per_call = read.number(f"usage.{way}_tokens_per_call")
        millions = read.number("usage.model_calls") * per_call / _MILLION
        return ((_Part(f"model.{read.text('assistant.model')}.{way}", millions),),)

    def embedded() -> tuple[tuple[_Part, ...], ...]:
        millions = read.number("usage.embedded_tokens") / _MILLION
        return ((_Part(f"embedding.{read.text('assistant.embedding_model')}", millions),),)

    def seats() -> tuple[tuple[_Part, ...], ...]:
        number = read.number("usage.code_assist_seats")
        decided = value_at(read.document, "usage.code_assist_edition")
        editions = (decided,) if decided else ("standard", "enterprise")
        return tuple((_Part(f"code_assist.{edition}", number),) for edition in editions)

    yield _Item("vertex_ai", "input tokens", lambda: tokens("input"))
    yield _Item("vertex_ai", "output tokens", lambda: tokens("output"))
    yield _Item("vertex_ai", "embeddings, once", embedded, once=True)
    yield _Item("code_assist", "seats", seats)


def _other(read: _Reading) -> Iterator[_Item]:
    def front() -> tuple[tuple[_Part, ...], ...]:
        millions = read.number("usage.api_requests") / _MILLION
        ways = {
            "api_gateway": (_Part("front.api_gateway", millions),),
            "load_balancer": (
                _Part("front.load_balancer", HOURS_A_MONTH),
                _Part("front.armor_policy", 1),
                _Part("front.armor_requests", millions),
            ),
        }
        decided = value_at(read.document, "usage.api_front")
        if decided is not None and decided not in tuple(ways):
            raise _Open(f"usage.api_front is {decided!r}")
        return tuple(ways[way] for way in ((decided,) if decided else ways))

    simple = (
        ("address translation: traffic", "nat.traffic", "usage.nat_gb", 1.0),
        ("logs", "logging", "usage.logs_gib", 1.0),
        ("custom metrics", "monitoring.custom_metrics", "usage.custom_metrics_mib", 1.0),
        ("snapshots", "snapshot", "usage.snapshots_gb", 1.0),
        ("images", "registry", "usage.images_gb", 1.0),
        ("secrets", "secret.version", "usage.secret_versions", 1.0),
        ("reading secrets", "secret.access", "usage.secret_accesses", 10_000.0),
        ("private endpoint: traffic", "private_endpoint.traffic", "usage.private_endpoint_gb", 1.0),
    )
    yield _item("other", "address translation: machines", "nat.machine", read.developer_hours)
    yield _item("other", "address translation: address", "nat.address", lambda: HOURS_A_MONTH)
    for item, key, place, divisor in simple:
        yield _item("other", item, key, lambda place=place, divisor=divisor: read.number(place) / divisor)  # type: ignore[misc]
    yield _item("other", "private endpoint", "private_endpoint", lambda: HOURS_A_MONTH)
    yield _item("other", "private endpoint: its zone", "dns.zone", lambda: 1.0)
    yield _Item("other", "API gateway or load balancer", front)
    if read.has("memory.alloydb.secondary_cluster"):
        yield _item(
            "other",
            "replication between the regions",
            "traffic.between_regions",
            lambda: read.number("usage.replicated_gb"),
        )


# --- what it costs ----------------------------------------------------------------------------------------------------


def _line(item: _Item, prices: PriceTable, on: date) -> Line:
    try:
        choices = [[(_price(prices, part.key, on), part.quantity) for part in parts] for parts in item.choices()]
    except _Open as open_:
        return Line(item.component, item.item, None, "", Amount(None, None, (str(open_),)), item.once)
    low = min(sum(price.low(quantity) for price, quantity in parts) for parts in choices)
    high = max(sum(price.high(quantity) for price, quantity in parts) for parts in choices)
    used = tuple(price for parts in choices for price, _ in parts)
    same = {(quantity, price.unit) for parts in choices for price, quantity in parts}
    quantity, unit = next(iter(same)) if len(same) == 1 else (None, "")
    return Line(item.component, item.item, quantity, unit, Amount(low, high), item.once, used)


def _price(prices: PriceTable, key: str, on: date) -> Price:
    found = prices.find(key, on)
    if found is None:
        raise _Open(f"the price of {key}")
    return found


def _sum(amounts: Iterable[Amount]) -> Amount:
    rows = tuple(amounts)
    known = [(row.low_usd, row.high_usd) for row in rows if row.low_usd is not None and row.high_usd is not None]
    missing = tuple(dict.fromkeys(name for row in rows for name in row.missing))
    if not known:
        return Amount(None, None, missing)
    return Amount(sum(low for low, _ in known), sum(high for _, high in known), missing)


# --- levers -----------------------------------------------------------------------------------------------------------


def _fixed(*values: Any) -> Callable[[Mapping[str, Any], PriceTable], tuple[Any, ...]]:
    return lambda _document, _prices: values


def _secondary(document: Mapping[str, Any], _prices: PriceTable) -> tuple[Any, ...]:
    stated = value_at(document, "memory.alloydb.secondary_cluster")
    return (None, stated or f"{value_at(document, 'memory.alloydb.cluster') or 'orchestra'}-dr")


def _models_with_a_price(_document: Mapping[str, Any], prices: PriceTable) -> tuple[Any, ...]:
    inputs = (key for key in prices.keys("model.") if key.endswith(".input"))
    return tuple(key.removeprefix("model.").removesuffix(".input") for key in inputs)


LEVERS = (
    Lever("developers", "usage.developers", _fixed(1, 2, 3, 4, 5, 8)),
    Lever("hours of each developer", "usage.developer_hours", _fixed(80.0, 120.0, 160.0, 200.0)),
    Lever(
        "development machine",
        "workstations.development.machine_type",
        _fixed("n2d-standard-8", "n2d-standard-16", "n2d-standard-32"),
    ),
    Lever("part of the hours on the GPU machine", "usage.boost_ratio", _fixed(0.0, 0.2, 0.5, 1.0)),
    Lever("development machines that stand ready", "workstations.pool_size", _fixed(0, 1, 2)),
    Lever("GPU machines that stand ready", "workstations.boost_pool_size", _fixed(0, 1)),
    Lever("vCPUs of the database", "memory.alloydb.cpu_count", _fixed(2, 4, 8)),
    Lever("high availability", "memory.alloydb.availability", _fixed("ZONAL", "REGIONAL")),
    Lever("disaster recovery", "memory.alloydb.secondary_cluster", _secondary),
    Lever("CPU of the API only while it answers", "api.cpu_idle", _fixed(False, True)),
    Lever("model", "assistant.model", _models_with_a_price),
)
"""What the owner can move, in the order of the settings."""
