"""Prices from SKUs in the form of the Cloud Billing Catalog API: taken when there is one, left alone when in doubt."""

from __future__ import annotations

from datetime import date
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.cloud.client import Client
from orchestra_lib.errors import ParameterError
from orchestra_lib.prices import LATEST, list_prices
from orchestra_lib.prices.catalogue import ALLOYDB, COMPUTE, QUERIES, RUN, catalogue, refreshed

TODAY = date(2026, 11, 25)


def sku(description: str, unit: str, *tiers: tuple[float, float], **values: Any) -> dict[str, Any]:
    """A SKU with tiers of (first unit, US dollars)."""
    rates = [
        {
            "startUsageAmount": start,
            "unitPrice": {"currencyCode": "USD", "units": str(int(usd)), "nanos": round(usd % 1 * 1e9)},
        }
        for start, usd in tiers
    ]
    return {
        "name": f"services/TEST/skus/{abs(hash(description)):X}",
        "description": description,
        "category": {"resourceFamily": "Compute", "usageType": "OnDemand"},
        "serviceRegions": ["us-central1", "us-east1"],
        "pricingInfo": [{"pricingExpression": {"usageUnit": unit, "tieredRates": rates}}],
    } | values


CORE = sku("N1 Predefined Instance Core running in Americas", "h", (0, 0.04))
RAM = sku("N1 Predefined Instance Ram running in Americas", "GiBy.h", (0, 0.005))


def test_a_vcpu_is_its_core_and_the_memory_of_its_shape() -> None:
    found = refreshed(list_prices(), {COMPUTE: [CORE, RAM]}, TODAY)
    price = found.table.find("vcpu.n1-standard", LATEST)
    assert price is not None
    assert price.low_usd == price.high_usd == pytest.approx(0.04 + 3.75 * 0.005)
    assert (price.confidence, price.as_of) == ("catalogue", TODAY)
    assert CORE["name"] in price.source
    assert RAM["name"] in price.source
    assert found.replaced == ("vcpu.n1-standard",)


def test_half_of_a_price_is_no_price() -> None:
    found = refreshed(list_prices(), {COMPUTE: [CORE]}, TODAY)
    assert "no single SKU like 'N1 Predefined Instance Ram" in found.left["vcpu.n1-standard"]
    assert found.table.find("vcpu.n1-standard", LATEST) == list_prices().find("vcpu.n1-standard", LATEST)


def test_a_regional_disk_is_not_taken_for_a_zonal_one() -> None:
    skus = [
        sku("Regional Balanced PD Capacity in Iowa", "GiBy.mo", (0, 0.21)),
        sku("Balanced PD Capacity", "GiBy.mo", (0, 0.11)),
    ]
    table = refreshed(list_prices(), {COMPUTE: skus}, TODAY).table
    prices = [table.find(f"{kind}.pd-balanced", LATEST) for kind in ("disk", "regional_disk")]
    assert [price.low_usd for price in prices if price] == [pytest.approx(0.11), pytest.approx(0.21)]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"category": {"usageType": "Preemptible"}}, "no single SKU"),
        ({"category": {"usageType": "Commit1Yr"}}, "no single SKU"),
        ({"serviceRegions": ["europe-west1"]}, "no single SKU"),
        ({"pricingInfo": []}, "has no price"),
        (
            {"pricingInfo": [{"pricingExpression": {"usageUnit": "d", "tieredRates": []}}]},
            "is paid by d, not by h",
        ),
        (
            {
                "pricingInfo": [
                    {
                        "pricingExpression": {
                            "usageUnit": "h",
                            "tieredRates": [{"unitPrice": {"currencyCode": "EUR", "nanos": 3}}],
                        }
                    }
                ]
            },
            "is priced in EUR",
        ),
        (
            {
                "pricingInfo": [
                    {"pricingExpression": {"usageUnit": "h", "tieredRates": [{"unitPrice": {"units": "0"}}]}}
                ]
            },
            "costs nothing at any amount",
        ),
    ],
)
def test_what_does_not_fit_is_left_and_says_why(other: dict[str, Any], why: str) -> None:
    gpu = sku("Nvidia Tesla T4 GPU running in Americas", "h", (0, 0.4)) | other
    found = refreshed(list_prices(), {COMPUTE: [gpu]}, TODAY)
    assert why in found.left["gpu.nvidia-tesla-t4"]
    assert found.table == list_prices()


def test_the_latest_of_several_prices_counts() -> None:
    gpu = sku("Nvidia Tesla T4 GPU running in Americas", "h", (0, 0.4))
    older = sku("x", "h", (0, 9.0))["pricingInfo"]
    gpu["pricingInfo"] = older + gpu["pricingInfo"]
    found = refreshed(list_prices(), {COMPUTE: [gpu]}, TODAY).table.find("gpu.nvidia-tesla-t4", LATEST)
    assert found is not None
    assert found.low_usd == pytest.approx(0.4)


def test_what_is_free_comes_from_the_tiers() -> None:
    cpu = sku("Services CPU (Instance-based billing) in us-central1", "s", (0, 0.0), (180_000, 0.00002))
    found = refreshed(list_prices(), {RUN: [cpu]}, TODAY).table.find("run.instance_cpu", LATEST)
    assert found is not None
    assert (found.free, found.free_at_best) == (180_000, 0)
    assert found.low(180_010) == pytest.approx(10 * 0.00002)


def test_series_of_alloydb_that_differ_in_price_leave_it_as_it_is() -> None:
    skus = [
        sku("AlloyDB N2 vCPU in Iowa", "h", (0, 0.066)),
        sku("AlloyDB C4A vCPU in Iowa", "h", (0, 0.05)),
        sku("AlloyDB RAM in Iowa", "GiBy.h", (0, 0.0112)),
    ]
    assert "0.05, 0.066" in refreshed(list_prices(), {ALLOYDB: skus}, TODAY).left["alloydb.vcpu"]
    one = refreshed(list_prices(), {ALLOYDB: [skus[0], skus[2]]}, TODAY).table.find("alloydb.vcpu", LATEST)
    assert one is not None
    assert one.low_usd == pytest.approx(0.066 + 8 * 0.0112)


def test_every_query_is_for_a_price_of_the_table() -> None:
    assert set(QUERIES) <= set(list_prices().keys())


@given(st.floats(0.000001, 1000).map(lambda usd: round(usd, 9)))
def test_money_keeps_its_nanos(usd: float) -> None:
    gpu = sku("Nvidia Tesla T4 GPU running in Americas", "h", (0, usd))
    found = refreshed(list_prices(), {COMPUTE: [gpu]}, TODAY).table.find("gpu.nvidia-tesla-t4", LATEST)
    assert found is not None
    assert found.low_usd == pytest.approx(usd, abs=1e-8)


class _Answers:
    """A client whose answers are given; ``kind`` is its target's."""

    def __init__(self, kind: str, answers: dict[tuple[str, str], dict[str, Any]]) -> None:
        self.target, self.kind, self._answers = self, kind, answers

    def call(self, api: str, method_id: str, path: str, *, query: dict[str, str]) -> dict[str, Any]:
        assert api == "cloudbilling.v1"
        assert method_id.endswith(".list")
        return self._answers[(path, query.get("pageToken", ""))]


def test_the_catalogue_is_read_page_by_page_and_only_where_it_is_needed() -> None:
    answers = {
        ("services", ""): {
            "services": [{"name": "services/C", "displayName": COMPUTE}, {"name": "services/X", "displayName": "X"}]
        },
        ("services/C/skus", ""): {"skus": [CORE], "nextPageToken": "2"},
        ("services/C/skus", "2"): {"skus": [RAM]},
    }
    assert catalogue(cast(Client, _Answers("gcp", answers))) == {COMPUTE: (CORE, RAM)}


def test_the_local_target_has_no_prices() -> None:
    with pytest.raises(ParameterError, match="has no prices"):
        catalogue(cast(Client, _Answers("local", {})))
