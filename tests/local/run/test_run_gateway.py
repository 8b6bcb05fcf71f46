"""API Gateway in front of a service: the paths of the document alone, called with the gateway's own token."""

from __future__ import annotations

import base64
import json
from itertools import count

import pytest
import yaml
from run_planes import INVOKER, LOCATION, PROJECT, STRANGER, soon

from orchestra_lib.local.run.openapi import DocumentError, routes_of

GLOBAL = f"apigateway/v1/projects/{PROJECT}/locations/global/apis"
GATEWAYS = f"apigateway/v1/{LOCATION}/gateways"
RESPONSES = {"responses": {"200": {"description": "ok"}}}
AUDIENCE = "memory-clients"
_numbers = count(1)


def encoded(document):
    return base64.b64encode(yaml.safe_dump(document).encode()).decode()


def document(backend, **more):
    return {
        "swagger": "2.0",
        "info": {"title": "memory", "version": "1"},
        "x-google-backend": {"address": backend},
        "securityDefinitions": {
            "google": {
                "authorizationUrl": "",
                "flow": "implicit",
                "type": "oauth2",
                "x-google-issuer": "https://accounts.google.com",
                "x-google-jwks_uri": "https://www.googleapis.com/oauth2/v3/certs",
                "x-google-audiences": AUDIENCE,
            }
        },
        "paths": {
            "/headers": {"get": {"operationId": "headers", **RESPONSES}},
            "/path": {"get": {"operationId": "path", **RESPONSES, "security": [{"google": []}]}},
            "/items/{id}": {
                "get": {
                    "operationId": "item",
                    **RESPONSES,
                    "x-google-backend": {"address": f"{backend}/path", "jwt_audience": backend},
                }
            },
            "/die": {"get": {"operationId": "die", **RESPONSES}},
            **more,
        },
    }


def new_config(planes, contents):
    name = f"config-{next(_numbers)}"
    planes.call("POST", f"{GLOBAL}?apiId=memory", {})
    body = {
        "openapiDocuments": [{"document": {"path": "openapi.yaml", "contents": contents}}],
        "gatewayServiceAccount": f"projects/-/serviceAccounts/{INVOKER}",
    }
    made = planes.call("POST", f"{GLOBAL}/memory/configs?apiConfigId={name}", body)
    return planes.done("apigateway/v1", made)["name"]


@pytest.fixture(scope="module")
def gateway(planes, private):
    config = new_config(planes, encoded(document(private.uri)))
    made = planes.call("POST", f"{GATEWAYS}?gatewayId=memory", {"apiConfig": config})
    url = f"http://{planes.done('apigateway/v1', made)['defaultHostname']}"
    soon(lambda: planes.http.get(f"{url}/headers").status_code == 200)  # the service's policy has come through
    return url


def test_a_gateway_calls_with_its_own_token_and_keeps_the_callers(planes, private, gateway):
    seen = planes.http.get(f"{gateway}/headers", headers={"Authorization": "Bearer the-callers"}).json()
    payload = seen["authorization"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert (claims["email"], claims["aud"]) == (INVOKER, private.uri)
    assert seen["x-forwarded-authorization"] == "Bearer the-callers"
    assert seen["host"] == private.uri.removeprefix("http://")
    assert planes.http.get(private.uri).status_code == 403


def test_a_gateway_has_the_paths_and_methods_of_its_document_alone(planes, gateway):
    assert planes.http.get(f"{gateway}/echo").json() == {
        "code": 404,
        "message": "The current request is not defined by this API.",
    }
    assert planes.http.post(f"{gateway}/headers").status_code == 405
    assert planes.http.get(f"{gateway}/items/7?a=b").json() == {"path": "/path", "query": "id=7&a=b"}


def test_an_operation_that_wants_a_callers_token_takes_no_other(planes, gateway):
    def status(token):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return planes.http.get(f"{gateway}/path", headers=headers).status_code

    assert status("") == 401
    assert status("nonsense") == 401
    assert status(planes.id_token(STRANGER, "somebody-else")) == 401
    assert status(planes.id_token(STRANGER, AUDIENCE)) == 200


def test_a_backend_that_dies_is_503(planes, private, gateway):
    assert planes.http.get(f"{gateway}/die").status_code == 503
    assert planes.http.get(f"{gateway}/headers").status_code == 200


def test_another_config_takes_its_place_and_the_former_comes_back(planes, private, gateway):
    former = planes.call("GET", f"{GATEWAYS}/memory").body["apiConfig"]
    more = {"/echo": {"get": {"operationId": "echo", **RESPONSES}}}
    later = new_config(planes, encoded(document(private.uri, **more)))
    for config, status in ((later, 200), (former, 404)):
        patched = planes.call("PATCH", f"{GATEWAYS}/memory?updateMask=apiConfig", {"apiConfig": config})
        planes.done("apigateway/v1", patched)
        assert planes.http.get(f"{gateway}/echo").status_code == status


def test_a_document_that_cannot_be_served_fails_its_gateway(planes):
    keyed = document("http://127.0.0.1:1")
    keyed["securityDefinitions"]["key"] = {"type": "apiKey", "name": "key", "in": "query"}
    keyed["security"] = [{"key": []}]
    config = new_config(planes, encoded(keyed))
    made = planes.call("POST", f"{GATEWAYS}?gatewayId=keyed", {"apiConfig": config})
    assert "no API keys" in planes.ended("apigateway/v1", made)["error"]["message"]


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ("%%%", "no YAML or JSON"),
        (encoded(["a"]), "neither 'swagger' nor 'openapi'"),
        (encoded({"swagger": "2.0"}), "no paths"),
        (encoded({"swagger": "2.0", "paths": {"/a": {"get": RESPONSES}}}), "/a has no x-google-backend"),
    ],
)
def test_a_document_that_is_none_is_told_why(contents, said):
    with pytest.raises(DocumentError, match=said):
        routes_of(contents)


def test_a_path_without_parameters_goes_before_one_with_them():
    backend = {"x-google-backend": {"address": "http://b", "path_translation": "APPEND_PATH_TO_ADDRESS"}}
    paths = {path: {"get": {**RESPONSES, **backend}} for path in ("/a/{x}", "/a/b")}
    found = routes_of(encoded({"openapi": "3.0.4", "paths": paths}))
    assert [route.template for route in found] == ["/a/b", "/a/{x}"]
    assert found[1].url("GET", "/a/c", "q=1") == "http://b/a/c?q=1"
