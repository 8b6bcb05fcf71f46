"""The gateway's document on the local API Gateway, before a private service: who gets through, and to what."""

from __future__ import annotations

import base64

import yaml
from run_planes import INVOKER, LOCATION, PROJECT, STRANGER, soon

from orchestra_lib.blueprint.api import gateway_document
from orchestra_lib.service.app import create_app
from orchestra_lib.service.settings import ServiceSettings

AUDIENCE = "orchestra-memory"
APIS = f"apigateway/v1/projects/{PROJECT}/locations/global/apis"
WHO = {"jwt_issuer": "https://a", "jwt_audience": AUDIENCE, "jwt_certificates_url": "https://a/keys"}


def test_the_gateway_calls_a_private_service_for_those_whom_it_knows(bench):
    planes = bench.planes
    service = planes.service("behind-gateway", template=bench.template())
    service.allow(f"serviceAccount:{INVOKER}")
    interface = create_app(ServiceSettings.model_validate({**WHO, "dsn": "dbname=never-opened"})).openapi()
    document = yaml.safe_dump(gateway_document(interface, service.uri, AUDIENCE)).encode()
    planes.done("apigateway/v1", planes.call("POST", f"{APIS}?apiId=memory", {}))
    contents = base64.b64encode(document).decode()
    config = {
        "openapiDocuments": [{"document": {"path": "openapi.yaml", "contents": contents}}],
        "gatewayServiceAccount": f"projects/-/serviceAccounts/{INVOKER}",
    }
    made = planes.call("POST", f"{APIS}/memory/configs?apiConfigId=one", config)
    name = planes.done("apigateway/v1", made)["name"]
    made = planes.call("POST", f"apigateway/v1/{LOCATION}/gateways?gatewayId=memory", {"apiConfig": name})
    url = f"http://{planes.done('apigateway/v1', made)['defaultHostname']}"
    soon(lambda: planes.http.get(f"{url}/ready").status_code == 200)  # the service's policy has come through

    def status(method: str, path: str, audience: str = "") -> int:
        headers = {"Authorization": f"Bearer {planes.id_token(STRANGER, audience)}"} if audience else {}
        return planes.http.request(method, f"{url}{path}", headers=headers).status_code

    assert status("POST", "/v1/search", AUDIENCE) == 200
    assert status("GET", "/v1/memories/some-id", AUDIENCE) == 200
    assert status("POST", "/v1/search") == 401
    assert status("POST", "/v1/search", "somebody-else") == 401
    assert status("GET", "/v1/search", AUDIENCE) == 405
    assert status("GET", "/healthz") == status("GET", "/metrics") == 404
    assert planes.http.post(f"{service.uri}/v1/search").status_code == 403, "nobody goes round it"
