"""The gateway's document on the local API Gateway, before a private service: who gets through, and to what."""

from __future__ import annotations

import base64

import yaml
from run_planes import INVOKER, LOCATION, PROJECT, STRANGER, soon

from orchestra_lib.blueprint.api import gateway_document, path_of
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import make_plan
from orchestra_lib.cloud.resource import JsonFile, Resource
from orchestra_lib.cloud.rollback import rollback_plan
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


def test_callers_get_another_config_and_after_a_rollback_the_one_before(bench, tmp_path):
    planes, client, journal = bench.planes, bench.client, Journal(tmp_path / "05.jsonl")
    service = planes.service("behind-two-configs", template=bench.template())
    service.allow(f"serviceAccount:{INVOKER}")

    def front(*paths: str) -> list[Resource]:
        found = {path: {"get": {"operationId": path.strip("/")}} for path in paths}
        interface = {"info": {"title": "Two", "version": "1"}, "paths": found}
        api = Resource("gateway api", f"projects/{PROJECT}/locations/global", "two")
        body = {
            "openapiDocuments": [
                {"document": {"path": "o.json", "contents": JsonFile(gateway_document(interface, service.uri, "a"))}}
            ],
            "gatewayServiceAccount": f"projects/{PROJECT}/serviceAccounts/{INVOKER}",
        }
        config = Resource("gateway config", path_of(api), f"two-{len(paths)}", body, (api.key,))
        return [api, config, Resource("gateway", LOCATION, "two", {"apiConfig": path_of(config)}, (config.key,))]

    def known(path: str) -> bool:
        return planes.http.get(f"{url}{path}").status_code != 404

    apply(client, make_plan(client, front("/one")), journal, "run-1")
    live = client.call("apigateway.v1", "apigateway.projects.locations.gateways.get", f"{LOCATION}/gateways/two")
    url = f"http://{live['defaultHostname']}"
    soon(lambda: known("/one"))
    assert not known("/two")
    apply(client, make_plan(client, front("/one", "/two"), journal.applied()), journal, "run-2")
    assert known("/two"), "the gateway serves its config when the change is done"
    apply(client, rollback_plan(client, journal, "run-2"), journal, "run-3", undoing=True)
    assert known("/one")
    assert not known("/two")
    apply(client, rollback_plan(client, journal), journal, "run-4", undoing=True)
