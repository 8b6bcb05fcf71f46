"""The route table: every call of the documents is found, quickly, and the fields are told apart."""

from __future__ import annotations

import time

import pytest

from orchestra_lib.local.control import catalog


@pytest.fixture(scope="module")
def whole() -> catalog.Catalog:
    return catalog.whole()


def find(whole, service, http_method, path):
    found = whole.find(service, http_method, tuple(path.split("/")))
    return (found[0].id, found[1]) if found else None


def test_every_method_is_found_by_its_own_path(whole):
    lost = []
    for method in whole.methods():
        path = [*method.api.prefix, *("x" if part in ("*", "**") else part for part in method.template)]
        path[-1] += f":{method.verb}" if method.verb else ""
        found = whole.find(method.api.service, method.http_method, tuple(path))
        if found is None or (found[0].http_method, found[0].api) != (method.http_method, method.api):
            lost.append(method.id)
    assert lost == []


def test_all_documents_are_served(whole):
    assert whole.size > 4500
    assert {"alloydb", "compute", "run", "workstations", "networkconnectivity", "iam", "aiplatform"} <= whole.services
    assert {f"{service}.{version}" for service, version in whole.apis} == set(catalog.APIS)


@pytest.mark.parametrize(
    ("service", "http_method", "path", "expected"),
    [
        (
            "alloydb",
            "POST",
            "v1/projects/p/locations/l/clusters/c:promote",
            ("alloydb.projects.locations.clusters.promote", "projects/p/locations/l/clusters/c"),
        ),
        (
            "compute",
            "GET",
            "compute/v1/projects/p/global/networks/n",
            ("compute.networks.get", "projects/p/global/networks/n"),
        ),
        (
            "compute",
            "GET",
            "compute/v1/projects/p/zones/z/operations/o",
            ("compute.zoneOperations.get", "projects/p/zones/z/operations/o"),
        ),
        (
            "monitoring",
            "GET",
            "v3/projects/p/metricDescriptors/custom.googleapis.com/a/b",
            ("monitoring.projects.metricDescriptors.get", "projects/p/metricDescriptors/custom.googleapis.com%2Fa%2Fb"),
        ),
        ("aiplatform", "POST", "v1:evaluateDataset", ("aiplatform.evaluateDataset", "")),
    ],
)
def test_verbs_service_paths_and_ids_with_slashes_are_understood(whole, service, http_method, path, expected):
    assert find(whole, service, http_method, path) == expected


def test_what_is_no_call_is_not_found(whole):
    assert find(whole, "alloydb", "GET", "v7/projects/p/locations/l/clusters") is None
    assert find(whole, "alloydb", "PUT", "v1/projects/p/locations/l/clusters/c") is None
    assert find(whole, "storage", "GET", "storage/v1/b") is None


def test_lookup_takes_well_under_a_millisecond(whole):
    path = ("compute", "v1", "projects", "p", "regions", "r", "subnetworks", "s", "setPrivateIpGoogleAccess")
    started = time.perf_counter()
    for _ in range(1000):
        assert whole.find("compute", "POST", path)
    assert (time.perf_counter() - started) / 1000 < 0.001


def test_the_documents_compile_within_two_seconds():
    started = time.perf_counter()
    catalog.Catalog()
    assert time.perf_counter() - started < 2


def test_who_may_write_a_field_is_read_from_the_documents(whole):
    cluster = whole.apis["alloydb", "v1"].schema("Cluster").properties
    assert cluster["uid"].read_only
    assert cluster["initialUser"].input_only
    assert not cluster["labels"].read_only
    network = whole.apis["compute", "v1"].schema("Network").properties
    assert network["selfLinkWithId"].read_only
    alert = whole.apis["monitoring", "v3"].schema("Condition").properties
    assert not alert["name"].required, "'Required if the condition exists' is not required at a create"


def test_the_schema_of_a_resource_follows_from_its_path(whole):
    of = whole.resource_schema
    iam = whole.apis["iam", "v1"]
    assert of(iam, "projects/p/serviceAccounts/a/keys/k") == "ServiceAccountKey"
    assert of(iam, "projects/p/locations/global/workloadIdentityPools/w/providers/p") == "WorkloadIdentityPoolProvider"
    assert of(whole.apis["servicenetworking", "v1"], "services/s/connections/c") == "Connection"


def test_operation_types_are_the_names_of_the_real_messages(whole):
    run = whole.apis["run", "v2"]
    assert run.message_type("GoogleCloudRunV2Service") == "type.googleapis.com/google.cloud.run.v2.Service"
    vertex = whole.apis["aiplatform", "v1beta1"]
    assert vertex.message_type("GoogleCloudAiplatformV1beta1Endpoint").endswith(
        "google.cloud.aiplatform.v1beta1.Endpoint"
    )
