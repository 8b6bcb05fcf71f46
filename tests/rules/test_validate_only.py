"""Which calls can be checked without being made, as the discovery documents have it."""

from __future__ import annotations

from orchestra_lib.cloud.discovery import document, method
from orchestra_lib.rules.validate_only import APIS, can_rehearse, rehearsable, table


def test_what_the_plan_creates_can_be_rehearsed_where_the_service_offers_it() -> None:
    creates = {one.method for rows in table().values() for one in rows if one.creates}
    assert {
        "workstations.projects.locations.workstationClusters.create",
        "workstations.projects.locations.workstationClusters.workstationConfigs.create",
        "workstations.projects.locations.workstationClusters.workstationConfigs.workstations.create",
        "alloydb.projects.locations.clusters.create",
        "alloydb.projects.locations.clusters.createsecondary",
        "alloydb.projects.locations.clusters.restore",
        "alloydb.projects.locations.clusters.instances.create",
        "run.projects.locations.services.create",
        "run.projects.locations.jobs.create",
        "monitoring.projects.dashboards.create",
    } <= creates


def test_services_without_it_are_in_the_table_and_empty() -> None:
    empty = {api for api, rows in table().items() if not rows}
    assert {"iam.v1", "apigateway.v1", "billingbudgets.v1", "orgpolicy.v2", "serviceusage.v1"} <= empty
    assert set(table()) == set(APIS)


def test_a_row_says_where_the_flag_goes() -> None:
    for api in APIS:
        for row in rehearsable(api):
            found = method(api, row.method)
            body = document(api)["schemas"].get(found.request or "", {}).get("properties", {})
            assert ("validateOnly" in found.parameters) is not row.in_body
            assert not row.in_body or "validateOnly" in body
            assert row.revision.strftime("%Y%m%d") == document(api)["revision"]


def test_the_drill_of_a_disaster_can_be_rehearsed() -> None:
    for verb in ("switchover", "promote", "restore", "upgrade"):
        assert can_rehearse("alloydb.v1", f"alloydb.projects.locations.clusters.{verb}")
    assert not can_rehearse("compute.v1", "compute.networks.insert")
