"""API Gateway: APIs with their managed services, configs that do not change, gateways that serve them."""

from __future__ import annotations

import base64

import pytest
from control_plane import PROJECT

GLOBAL = f"/apigateway/v1/projects/{PROJECT}/locations/global"
GATEWAYS = f"/apigateway/v1/projects/{PROJECT}/locations/us-central1/gateways"
DOCUMENT = {"document": {"path": "api.yaml", "contents": base64.b64encode(b"swagger: '2.0'").decode()}}


def done(server, operation):
    assert operation.status == 200, operation.body
    assert operation.body["done"] is False
    polled = server.get(f"/apigateway/v1/{operation.body['name']}").body
    assert polled["done"], polled
    return polled["response"]


@pytest.fixture
def config(fresh):
    with fresh.control.writing():
        name = f"projects/{PROJECT}/services/apigateway.googleapis.com"
        fresh.control.store.put(f"serviceusage/{name}", {"name": name, "state": "ENABLED"})
    done(fresh, fresh.post(f"{GLOBAL}/apis?apiId=models", {}))
    made = fresh.post(f"{GLOBAL}/apis/models/configs?apiConfigId=first", {"openapiDocuments": [DOCUMENT]})
    return done(fresh, made)["name"]


def test_an_api_has_a_managed_service_of_its_own(fresh, config):
    api = fresh.get(f"{GLOBAL}/apis/models").body
    assert api["managedService"].startswith("models-")
    assert api["managedService"].endswith(f".apigateway.{PROJECT}.cloud.goog")
    assert (api["displayName"], api["state"]) == ("models", "ACTIVE")
    assert "nested resources" in fresh.delete(f"{GLOBAL}/apis/models").message


def test_a_config_shows_its_documents_when_all_is_asked_for(fresh, config):
    url = f"/apigateway/v1/{config}"
    short, whole = fresh.get(url).body, fresh.get(f"{url}?view=FULL").body
    assert "openapiDocuments" not in short
    assert whole["openapiDocuments"] == [DOCUMENT]
    assert short["gatewayServiceAccount"].startswith("projects/-/serviceAccounts/")
    assert "openapiDocuments" not in fresh.get(f"{GLOBAL}/apis/models/configs").body["apiConfigs"][0]


def test_a_config_describes_one_api_and_is_never_changed(fresh, config):
    assert fresh.post(f"{GLOBAL}/apis/models/configs?apiConfigId=none", {}).status == 400
    grpc = {"grpcServices": [{"fileDescriptorSet": DOCUMENT["document"]}]}
    assert fresh.post(f"{GLOBAL}/apis/models/configs?apiConfigId=grpc", grpc).status == 400
    url = f"/apigateway/v1/{config}"
    assert fresh.patch(f"{url}?updateMask=openapiDocuments", {"openapiDocuments": []}).status == 400
    renamed = done(fresh, fresh.patch(f"{url}?updateMask=displayName", {"displayName": "renamed"}))
    assert renamed["displayName"] == "renamed"


def test_a_gateway_serves_a_config_that_is_there_and_keeps_it(fresh, config):
    missing = {"apiConfig": f"{config}-missing"}
    assert fresh.post(f"{GATEWAYS}?gatewayId=gateway", missing).status == 404
    gateway = done(fresh, fresh.post(f"{GATEWAYS}?gatewayId=gateway", {"apiConfig": config}))
    assert gateway["defaultHostname"].endswith(".uc.gateway.dev")
    assert gateway["effectiveStreamingMode"] == "EFFECTIVE_STREAMING_MODE_DISABLED"
    assert "is used by the gateway" in fresh.delete(f"/apigateway/v1/{config}").message
    second = fresh.post(f"{GLOBAL}/apis/models/configs?apiConfigId=second", {"openapiDocuments": [DOCUMENT]})
    wanted = {"apiConfig": done(fresh, second)["name"]}
    moved = done(fresh, fresh.patch(f"{GATEWAYS}/gateway?updateMask=apiConfig", wanted))
    assert moved["apiConfig"].endswith("/configs/second")
    assert moved["defaultHostname"] == gateway["defaultHostname"]
    assert fresh.delete(f"/apigateway/v1/{config}").status == 200
