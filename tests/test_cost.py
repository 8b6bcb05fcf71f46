"""The bill against the arithmetic that was done by hand, and what is not known."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from settings_content import content

from orchestra_lib.cost import COMPONENTS, LEVERS, Amount, bill, bill_evidence, what_if
from orchestra_lib.errors import DataError
from orchestra_lib.evidence import Verdict
from orchestra_lib.prices import LATEST, Price, PriceTable, list_prices
from orchestra_lib.settings.document import value_at, with_values

N1 = {"machine_type": "n1-standard-32", "accelerator_type": "nvidia-tesla-t4", "accelerator_count": 2}
NOVEMBER, DECEMBER = date(2026, 11, 30), date(2026, 12, 1)
WITHIN = 0.02


def plan(**values: object) -> dict[str, object]:
    """The rehearsed plan with ``section__key=value`` put in; no boost machine unless one is named."""
    places = {place.replace("__", "."): value for place, value in values.items()}
    return with_values(content(), {"workstations.boost": None, "assistant.embedding_model": None, **places})


def cost(component: str, on: date = LATEST, **values: object) -> Amount:
    return bill(plan(**values), list_prices(), on).total(component)


# --- the strategy's shape, part by part -------------------------------------------------------------------------------


@pytest.mark.parametrize(("developers", "usd"), [(1, 802), (2, 1457), (3, 2113), (5, 3424)])
def test_developers_on_the_gpu_machine(developers: int, usd: float) -> None:
    amount = cost("workstations", workstations__development=N1, usage__developers=developers)
    assert amount.low_usd == amount.high_usd == pytest.approx(usd, rel=WITHIN)


@pytest.mark.parametrize(
    ("machine", "developers", "usd"),
    [("n2d-standard-32", 3, 1779), ("n2d-standard-32", 5, 2868), ("n2d-standard-8", 2, 668), ("n2d-standard-8", 3, 929),
     ("n2d-standard-8", 5, 1451)],
)  # fmt: skip
def test_the_gpu_machine_for_a_fifth_of_the_hours(machine: str, developers: int, usd: float) -> None:
    amount = cost(
        "workstations",
        workstations__development={"machine_type": machine},
        workstations__boost=N1,
        usage__developers=developers,
    )
    assert amount.low_usd == amount.high_usd == pytest.approx(usd, rel=WITHIN)


def test_one_gpu_machine_that_runs_all_the_month() -> None:
    alone = {"workstations__development": N1, "workstations__home_disk_gb": 0, "workstations__boot_disk_gb": 0}
    amount = cost("workstations", usage__developers=1, usage__developer_hours=730.0, **alone)
    assert amount.low_usd == pytest.approx(2789 + 146, rel=WITHIN)


def test_a_pool_of_one_gpu_machine() -> None:
    without = cost("workstations", workstations__development=N1)
    one = cost("workstations", workstations__development=N1, workstations__pool_size=1)
    assert one.low_usd is not None
    assert without.low_usd is not None
    assert one.high_usd is not None
    assert one.low_usd - without.low_usd == pytest.approx(1621, rel=WITHIN)
    assert one.high_usd - without.low_usd == pytest.approx(2789, rel=WITHIN)


def test_a_boost_pool_is_paid_at_the_boost_machines_price() -> None:
    shape = {"workstations__boost": N1, "workstations__development": {"machine_type": "n2d-standard-8"}}
    without, one = cost("workstations", **shape), cost("workstations", **shape, workstations__boost_pool_size=1)
    assert one.low_usd is not None
    assert without.low_usd is not None
    assert one.low_usd - without.low_usd == pytest.approx(1621, rel=WITHIN)


@pytest.mark.parametrize(
    ("cpus", "secondary", "low", "high"),
    [(2, None, 485, 546), (4, None, 939, 1059), (2, "dr", 742, 835), (4, "dr", 1424, 1606)],
)
def test_alloydb_at_both_prices(cpus: int, secondary: str | None, low: float, high: float) -> None:
    amount = cost("alloydb", memory__alloydb__cpu_count=cpus, memory__alloydb__secondary_cluster=secondary)
    assert amount.low_usd == pytest.approx(low, rel=WITHIN)
    assert amount.high_usd == pytest.approx(high, rel=WITHIN)


def test_a_zonal_database_has_one_node() -> None:
    both, one = (
        cost("alloydb", memory__alloydb__availability=name, usage__alloydb_storage_gb=0.0)
        for name in ("REGIONAL", "ZONAL")
    )
    assert both.low_usd is not None
    assert one.low_usd is not None
    assert both.low_usd / one.low_usd == pytest.approx(3 / 2)  # two nodes or one, and the secondary cluster's


def test_cloud_run_always_there_and_only_while_it_answers() -> None:
    always, idle = cost("cloud_run", api__cpu_idle=False), cost("cloud_run", api__cpu_idle=True)
    assert always.low_usd == pytest.approx(195, rel=WITHIN)
    assert always.high_usd == pytest.approx(200, rel=WITHIN)
    assert idle.low_usd == idle.high_usd == pytest.approx(53, rel=WITHIN)


@pytest.mark.parametrize(
    ("model", "on", "usd"),
    [("gemini-4-argon", NOVEMBER, 920), ("gemini-4-argon", DECEMBER, 1840), ("gemini-3.1-pro-preview", DECEMBER, 1040),
     ("gemini-3.6-flash", DECEMBER, 690), ("gemini-3.8-flash", DECEMBER, 345)],
)  # fmt: skip
def test_models_before_and_after_the_price_of_december(model: str, on: date, usd: float) -> None:
    amount = bill(plan(assistant__model=model), list_prices(), on).monthly()
    without = bill(plan(assistant__model=model, usage__model_calls=0), list_prices(), on).monthly()
    assert amount.low_usd is not None
    assert without.low_usd is not None
    assert amount.low_usd - without.low_usd == pytest.approx(usd, rel=WITHIN)


def test_embeddings_are_paid_once() -> None:
    whole = bill(plan(assistant__embedding_model="gemini-embedding-001"), list_prices(), LATEST)
    assert whole.total().low_usd == pytest.approx(whole.monthly().low_usd + 45)


@pytest.mark.parametrize(("edition", "low", "high"), [("standard", 95, 115), ("enterprise", 225, 270), (None, 95, 270)])
def test_seats_of_an_edition_that_is_not_decided_have_both_prices(edition: str | None, low: float, high: float) -> None:
    amount = cost("code_assist", usage__code_assist_edition=edition)
    assert (amount.low_usd, amount.high_usd) == (pytest.approx(low), pytest.approx(high))


# --- totals -----------------------------------------------------------------------------------------------------------


def test_the_strategys_shape_made_valid() -> None:
    total = bill(
        plan(workstations__development=N1, assistant__embedding_model="gemini-embedding-001"), list_prices(), DECEMBER
    ).total()
    assert not total.missing
    assert total.low_usd == pytest.approx(5900, rel=WITHIN)
    assert total.high_usd == pytest.approx(6300, rel=WITHIN)


def test_the_lean_variant() -> None:
    lean = {
        "workstations__development": {"machine_type": "n2d-standard-8"},
        "workstations__boost": N1,
        "memory__alloydb__cpu_count": 2,
        "memory__alloydb__secondary_cluster": None,
        "assistant__model": "gemini-3.8-flash",
    }
    # Its low end takes CPU while answering and the first embedding model, its high end the other of both.
    cheapest = plan(**lean, api__cpu_idle=True, assistant__embedding_model="gemini-embedding-001")
    dearest = plan(**lean, api__cpu_idle=False, assistant__embedding_model="gemini-embedding-2")
    low, high = (bill(one, list_prices(), DECEMBER).total() for one in (cheapest, dearest))
    assert low.low_usd == pytest.approx(2100, rel=WITHIN)
    assert high.high_usd == pytest.approx(2570, rel=WITHIN)


def test_one_more_developer_and_a_thousand_calls() -> None:
    three, four = (cost("workstations", workstations__development=N1, usage__developers=n) for n in (3, 4))
    assert three.low_usd is not None
    assert four.low_usd is not None
    assert four.low_usd - three.low_usd == pytest.approx(656, rel=WITHIN)
    calls = [bill(plan(usage__model_calls=n), list_prices(), DECEMBER).total().low_usd for n in (0, 1000)]
    assert calls[1] - calls[0] == pytest.approx(92)  # type: ignore[operator]


# --- what is not known ------------------------------------------------------------------------------------------------


def test_a_model_without_a_price_is_missing_and_not_free() -> None:
    amount = cost("vertex_ai", assistant__model="gemini-9-nobody", assistant__embedding_model="gemini-embedding-001")
    assert amount.missing == ("the price of model.gemini-9-nobody.input", "the price of model.gemini-9-nobody.output")
    assert str(amount) == "at least 45 USD"


def test_a_part_of_which_nothing_is_known_says_so() -> None:
    amount = cost("alloydb", memory__alloydb=None, usage__alloydb_storage_gb=None)
    assert str(amount) == "MISSING"
    assert amount.low_usd is None
    assert "memory.alloydb.cpu_count is not stated" in amount.missing


def test_a_machine_without_a_price_is_missing() -> None:
    amount = cost("workstations", workstations__development={"machine_type": "c4d-standard-8"})
    assert "the price of vcpu.c4d-standard" in amount.missing


def test_the_bill_as_evidence_is_a_reading_and_names_what_is_missing() -> None:
    document = plan(assistant__model="gemini-9-nobody", cost__budget_usd=3300.0)
    row = bill_evidence(document, bill(document, list_prices(), LATEST))
    assert row.verdict is Verdict.NOTED
    assert str(row.value).startswith("at least ")
    assert "the budget is 3,300 USD; MISSING: the price of model.gemini-9-nobody.input" in row.note


@pytest.mark.parametrize("value", ["many", -1, True, float("inf"), float("nan"), [3], 10**400])
def test_what_is_no_amount_is_missing(value: object) -> None:
    assert any("usage.developers is" in name for name in cost("workstations", usage__developers=value).missing)


# --- properties -------------------------------------------------------------------------------------------------------

_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=3,
)
_PLACES = ("usage", "workstations", "memory", *(lever.place for lever in LEVERS), "usage.logs_gib", "api.memory")


@given(st.dictionaries(st.sampled_from(_PLACES), _ANY, max_size=3))
def test_any_document_has_a_bill_whose_low_end_is_the_low_one(values: dict[str, object]) -> None:
    found = bill(with_values(content(), values), list_prices(), LATEST)
    for line in found.lines:
        known = line.amount.low_usd is not None
        assert known != bool(line.amount.missing)
    total = found.total()
    assert total.low_usd is None or 0 <= total.low_usd <= total.high_usd  # type: ignore[operator]


@given(st.sampled_from(["usage.developers", "usage.model_calls", "usage.logs_gib"]), st.integers(0, 10**6))
def test_more_use_never_costs_less(place: str, more: int) -> None:
    now = value_at(content(), place)
    less, greater = (
        bill(with_values(content(), {place: amount}), list_prices(), LATEST).total() for amount in (now, now + more)
    )
    assert less.low_usd <= greater.low_usd  # type: ignore[operator]


# --- levers -----------------------------------------------------------------------------------------------------------


def test_every_lever_moves_the_bill_and_has_the_value_that_stands() -> None:
    rows = what_if(content(), list_prices(), LATEST)
    assert {row.lever for row in rows} == set(LEVERS)
    for lever in LEVERS:
        of_it = [row for row in rows if row.lever is lever]
        assert sum(row.current for row in of_it) == 1, lever.name
        assert len({row.total.low_usd for row in of_it}) == len(of_it), lever.name


def test_the_bills_parts_add_up() -> None:
    found = bill(content(), list_prices(), LATEST)
    assert found.total().low_usd == pytest.approx(sum(found.total(part).low_usd or 0 for part in COMPONENTS))
    assert {line.component for line in found.lines} == set(COMPONENTS)


# --- the table of prices ----------------------------------------------------------------------------------------------


def price(**values: object) -> Price:
    row = {
        "key": "thing", "unit": "hour", "low_usd": 1.0, "high_usd": 1.0, "confidence": "documented",
        "source": "nowhere", "as_of": NOVEMBER,
    }  # fmt: skip
    return Price.model_validate(row | values)


def test_two_prices_of_one_thing_on_one_day_are_refused() -> None:
    PriceTable("us-central1", (price(last_day=NOVEMBER), price(first_day=DECEMBER)))
    with pytest.raises(DataError, match="thing twice on 2026-11-30"):
        PriceTable("us-central1", (price(last_day=NOVEMBER), price(first_day=NOVEMBER)))


def test_what_is_free_only_if_recalled_rightly_lowers_the_low_end_alone() -> None:
    sure, recalled = price(free=10), price(free_at_best=10)
    assert (sure.low(15), sure.high(15)) == (5, 5)
    assert (recalled.low(15), recalled.high(15)) == (5, 15)
    assert sure.low(3) == sure.high(3) == 0


def test_every_price_says_where_it_comes_from_and_when() -> None:
    for row in list_prices().rows:
        assert row.source
        assert row.as_of <= date(2026, 11, 30)
