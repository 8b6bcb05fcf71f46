"""A revision of the memory API as Google takes it and the strategy asks, and what the gateway lets through."""

from __future__ import annotations

import base64
from typing import Any

import discovery_schema
import settings_content
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.api import gateway_document, revision_template
from orchestra_lib.local.run.openapi import routes_of
from orchestra_lib.service.app import create_app
from orchestra_lib.service.settings import ServiceSettings, from_environment

LOCAL = settings.load("local")
WHERE = {
    "INSTANCE": "projects/p/locations/us-central1/clusters/c/instances/i",
    "DATABASE_USER": "orchestra-api@p.iam",
    "JWT_ISSUER": "https://accounts.google.com",
    "JWT_AUDIENCE": "orchestra-memory",
    "JWT_CERTIFICATES_URL": "https://www.googleapis.com/oauth2/v1/certs",
}
IMAGE = "us-central1-docker.pkg.dev/p/images/orchestra-memory-api:0123"
BACKEND = "https://orchestra-memory-api-1.us-central1.run.app"


def template(**values: Any) -> dict[str, Any]:
    return revision_template(settings_content.with_values(**values), IMAGE, WHERE)


def wrong(body: dict[str, Any]) -> list[str]:
    schema = {"$ref": "GoogleCloudRunV2RevisionTemplate"}
    return list(discovery_schema._wrong("run.v2", schema, body, "template"))


def environment(body: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in body["containers"][0]["env"]}


@given(
    cpu=st.sampled_from((1, 2, 4, 6, 8)),
    concurrency=st.integers(1, 1_000),
    instances=st.integers(1, 100),
    connections=st.integers(1, 200),
)
def test_any_settings_give_a_template_that_google_takes_and_the_service_starts_with(
    cpu: int, concurrency: int, instances: int, connections: int
) -> None:
    body = template(
        api__cpu=cpu,
        api__memory="4Gi",
        api__concurrency=concurrency,
        api__max_instances=instances,
        api__connections_per_instance=connections,
    )
    assert wrong(body) == []
    told = from_environment(environment(body))
    assert (told.max_in_flight, told.pool_max, told.max_instances) == (concurrency, connections, instances)


def test_the_check_of_templates_finds_what_is_wrong() -> None:
    body = template()
    body["containers"][0]["resources"]["cpu"] = 4
    assert any("resources.cpu is unknown" in one for one in wrong(body))


def test_it_is_what_the_strategy_asks_and_stands_on_phase_1() -> None:
    body = template()
    (container,) = body["containers"]
    assert container["resources"] == {
        "limits": {"cpu": "4", "memory": "2Gi"},
        "cpuIdle": False,
        "startupCpuBoost": True,
    }
    assert (body["maxInstanceRequestConcurrency"], body["scaling"]["minInstanceCount"]) == (80, 1)
    probe = container["startupProbe"]
    assert probe["httpGet"]["path"] == "/readyz", "it opens a session with the database"
    assert probe["timeoutSeconds"] < probe["periodSeconds"]
    assert 60 < probe["periodSeconds"] * probe["failureThreshold"] <= 240
    (interface,) = body["vpcAccess"]["networkInterfaces"]
    first = {(one.kind, one.id) for one in infrastructure(LOCAL)}
    assert ("network", interface["network"].rsplit("/", 1)[1]) in first
    assert ("subnetwork", interface["subnetwork"].rsplit("/", 1)[1]) in first
    assert ("service account", body["serviceAccount"].split("@")[0]) in first


def test_the_gateway_lets_through_what_the_service_has_and_asks_who_calls_where_it_does() -> None:
    known = {name.lower(): value for name, value in WHERE.items() if name.startswith("JWT_")}
    interface = create_app(ServiceSettings.model_validate({**known, "dsn": "dbname=never-opened"})).openapi()
    document = gateway_document(interface, BACKEND, "orchestra-memory")
    routes = {one.template: one for one in routes_of(base64.b64encode(yaml.safe_dump(document).encode()).decode())}
    asked = {
        (path, method.upper()): bool(said.get("security"))
        for path, item in interface["paths"].items()
        for method, said in item.items()
        if not path.endswith("z")
    } | {("/health", "GET"): False, ("/ready", "GET"): False}
    found = {(path, method): bool(route.callers[method]) for path, route in routes.items() for method in route.backends}
    assert found == asked
    assert found["/v1/search", "POST"] is True
    search = routes["/v1/search"]
    assert search.url("POST", "/v1/search", "") == f"{BACKEND}/v1/search"
    assert search.backends["POST"].audience == BACKEND
    assert search.callers["POST"][0].audiences == {"orchestra-memory"}
    names = [said["operationId"] for item in document["paths"].values() for said in item.values()]
    assert len(names) == len(set(names))
    one = document["paths"]["/v1/memories/{memory_id}"]["get"]
    assert one["parameters"] == [{"name": "memory_id", "in": "path", "required": True, "type": "string"}]
