"""A revision of the memory API as Google takes it and the strategy asks, and what the gateway lets through."""

from __future__ import annotations

import base64
from typing import Any

import discovery_schema
import pytest
import settings_content
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.api import ApiPlan, api, gateway_document, in_flight_limit, path_of, revision_template
from orchestra_lib.cloud.kinds import KINDS
from orchestra_lib.cloud.plan import in_dependency_order
from orchestra_lib.cloud.resource import UNKNOWN, Live, resolve
from orchestra_lib.errors import ParameterError
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
    assert (told.max_in_flight, told.pool_max, told.max_instances) == (
        in_flight_limit(concurrency),
        connections,
        instances,
    )


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


def own_interface() -> dict[str, Any]:
    known = {name.lower(): value for name, value in WHERE.items() if name.startswith("JWT_")}
    return create_app(ServiceSettings.model_validate({**known, "dsn": "dbname=never-opened"})).openapi()


def test_the_gateway_lets_through_what_the_service_has_and_asks_who_calls_where_it_does() -> None:
    interface = own_interface()
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


# --- the whole of phase 5 ---------------------------------------------------------------------------------------------


def plan(audience: str = "orchestra-memory", **values: Any) -> ApiPlan:
    return api(settings_content.with_values(**values), template(**values), own_interface(), audience)


def test_every_resource_is_as_google_describes_it() -> None:
    bodies = [one for one in plan().resources if one.kind not in discovery_schema.OWN_BODIES]
    assert {one.kind for one in bodies} == {
        "service account",
        "run service",
        "gateway api",
        "gateway config",
        "gateway",
    }
    assert [line for one in bodies for line in discovery_schema.refusals(one)] == []


def test_it_stands_on_phase_1_and_makes_nothing_of_it_again() -> None:
    found = plan()
    first = {one.key for one in infrastructure(LOCAL)}
    assert not first & {one.key for one in found.resources}
    assert {one.key for one in found.foundation} <= first
    in_dependency_order((*found.foundation, *found.resources))
    under = {(one.kind, one.id.partition("@")[0].removeprefix("serviceAccount:")) for one in found.foundation}
    assert {
        ("repository", "orchestra"),
        ("roles", "orchestra-api"),
        ("service account roles", "orchestra-infra"),
    } <= under


def test_the_service_is_private_reachable_for_the_gateway_and_runs_as_its_own_account() -> None:
    found = plan()
    body = found.service.body
    assert (body["invokerIamDisabled"], body["ingress"]) == (False, "INGRESS_TRAFFIC_ALL")
    assert body["template"]["serviceAccount"].startswith("orchestra-api@")
    assert (found.invoker.parent, found.invoker.id.partition("@")[0]) == (
        path_of(found.service),
        "serviceAccount:orchestra-gateway",
    )
    assert found.invoker.body == {"roles": ["roles/run.invoker"]}
    assert "allUsers" not in repr(found.resources)


def test_who_builds_the_image_may_push_it_and_nothing_else() -> None:
    account, *roles = plan().builder
    held = {
        (one.kind, role)
        for one in roles
        for role in one.body["roles"]
        if one.id.endswith(account.id) or account.id in one.id
    }
    assert held == {("roles", "roles/logging.logWriter"), ("repository roles", "roles/artifactregistry.writer")}


def test_the_configs_id_says_what_is_in_it() -> None:
    found, same, other = plan(), plan(), plan(audience="somebody-else")
    assert found.config.id == same.config.id != other.config.id
    assert found.gateway.body["apiConfig"] == path_of(found.config)
    longest = plan(api__service="a" * 49).config.id
    assert len(longest) <= 63


def test_the_address_of_the_service_is_put_into_the_document_once_there_is_one() -> None:
    found = plan()
    contents = found.config.body["openapiDocuments"][0]["document"]["contents"]
    assert resolve(contents, {}) == UNKNOWN
    told = resolve(contents, {found.service.key: Live(path_of(found.service), {"uri": BACKEND})})
    routes = routes_of(told)
    assert {backend.address for route in routes for backend in route.backends.values()} == {BACKEND}


def test_a_load_balancer_is_refused_with_what_to_say_instead() -> None:
    with pytest.raises(ParameterError, match=r"usage\.api_front is load_balancer.*say api_gateway"):
        plan(usage__api_front="load_balancer")
    assert plan(usage__api_front="api_gateway").gateway == plan(usage__api_front=None).gateway


def test_the_engine_compares_nothing_of_what_serves() -> None:
    assert KINDS["run service"].create_only == {"template", "traffic"}
