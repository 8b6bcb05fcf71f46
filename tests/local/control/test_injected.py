"""What a test makes go wrong goes wrong, as often as it said, and nothing else does."""

from __future__ import annotations

import http.client

import pytest
from control_plane import PROJECT

pytestmark = pytest.mark.slow

REGION = f"projects/{PROJECT}/locations/us-central1"
CLUSTERS = f"/alloydb/v1/{REGION}/clusters"
SECRETS = f"/secretmanager/v1/projects/{PROJECT}/secrets"
SECRET = {"replication": {"automatic": {}}}
NETWORKS = f"/compute/v1/projects/{PROJECT}/global/networks"
PSC = {"pscConfig": {"pscEnabled": True}}


@pytest.mark.parametrize(("status", "word"), [(429, "RESOURCE_EXHAUSTED"), (503, "UNAVAILABLE"), (500, "INTERNAL")])
def test_a_call_fails_as_often_as_it_was_told(fresh, status, word):
    fresh.inject(faults=[{"method": "secretmanager.projects.secrets.list", "answer": status, "count": 2}])
    assert [fresh.get(SECRETS).status for _ in range(3)] == [status, status, 200]
    fresh.inject(faults=[{"method": "secretmanager.*", "answer": status}])
    assert fresh.get(SECRETS).body["error"]["status"] == word


@pytest.mark.parametrize(("when", "created"), [("drop_before", False), ("drop_after", True)])
def test_a_connection_is_dropped_before_or_after_the_work(fresh, when, created):
    fresh.inject(faults=[{"method": "secretmanager.projects.secrets.create", "answer": when}])
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        fresh.post(f"{SECRETS}?secretId=s", SECRET)
    assert (fresh.get(f"{SECRETS}/s").status == 200) is created


def test_an_operation_fails_at_its_end(fresh):
    fresh.inject(faults=[{"method": "alloydb.*.delete", "answer": "operation"}])
    fresh.post(f"{CLUSTERS}?clusterId=c", PSC)
    started = fresh.delete(f"{CLUSTERS}/c")
    assert started.status == 200
    ended = fresh.get(f"/alloydb/v1/{started.body['name']}").body
    assert ended["error"] == {"code": 13, "message": "an internal error has occurred"}
    assert fresh.get(f"{CLUSTERS}/c").body["state"] == "DELETING"
    fresh.delete(f"{CLUSTERS}/c")
    assert fresh.get(f"{CLUSTERS}/c").status == 404, "the next attempt succeeds"


def test_a_failed_create_leaves_no_ready_resource(fresh):
    fresh.inject(
        faults=[
            {"method": "alloydb.*.create", "answer": "operation", "status": "RESOURCE_EXHAUSTED", "message": "no room"},
            {"method": "compute.networks.insert", "answer": "operation"},
        ]
    )
    started = fresh.post(f"{CLUSTERS}?clusterId=c", PSC).body
    assert fresh.get(f"/alloydb/v1/{started['name']}").body["error"] == {"code": 8, "message": "no room"}
    assert fresh.get(f"{CLUSTERS}/c").body["state"] == "FAILED"
    fresh.post(NETWORKS, {"name": "net"})
    assert fresh.get(f"{NETWORKS}/net").status == 404


def test_a_missing_permission_is_named(fresh):
    fresh.inject(missing_permissions=[{"permissions": ["alloydb.clusters.*"], "resource": REGION}])
    denied = fresh.post(f"{CLUSTERS}?clusterId=c", PSC)
    assert denied.status == 403
    assert denied.body["error"]["details"][0]["metadata"]["permission"] == "alloydb.clusters.create"
    elsewhere = CLUSTERS.replace("us-central1", "us-east1")
    assert fresh.post(f"{elsewhere}?clusterId=c", PSC).status == 200
    fresh.inject(missing_permissions=[{"permissions": ["compute.networks.create"]}])
    denied = fresh.post(NETWORKS, {"name": "net"})
    assert denied.message == f"Required 'compute.networks.create' permission for 'projects/{PROJECT}/global/networks'"


def test_the_permissions_that_one_has_are_told(fresh):
    fresh.inject(missing_permissions=[{"permissions": ["secretmanager.versions.access"]}])
    fresh.post(f"{SECRETS}?secretId=s", SECRET)
    asked = ["secretmanager.secrets.get", "secretmanager.versions.access"]
    told = fresh.post(f"{SECRETS}/s:testIamPermissions", {"permissions": asked}).body
    assert told == {"permissions": ["secretmanager.secrets.get"]}


def test_a_disabled_service_says_how_to_enable_it(fresh):
    fresh.inject(disabled_services=[{"service": "alloydb"}])
    refused = fresh.get(CLUSTERS)
    error = refused.body["error"]
    assert (refused.status, error["details"][0]["reason"]) == (403, "SERVICE_DISABLED")
    assert error["details"][0]["metadata"]["service"] == "alloydb.googleapis.com"
    assert "AlloyDB API has not been used in project" in error["message"]


def test_a_quota_that_is_used_up_refuses(fresh):
    fresh.inject(quotas=[{"metric": "NETWORKS", "limit": 1}])
    assert fresh.post(NETWORKS, {"name": "one"}).status == 200
    refused = fresh.post(NETWORKS, {"name": "two"})
    assert refused.status == 403
    assert refused.message == "Quota 'NETWORKS' exceeded.  Limit: 1.0 globally."
    assert refused.body["error"]["errors"][0]["reason"] == "quotaExceeded"


@pytest.mark.parametrize(
    ("policy", "service", "path", "body"),
    [
        (
            {"constraint": "constraints/gcp.resourceLocations", "allowed": ["in:us-east1-locations"]},
            "alloydb",
            f"{CLUSTERS}?clusterId=c",
            PSC,
        ),
        (
            {"constraint": "constraints/run.allowedIngress", "allowed": ["INGRESS_TRAFFIC_INTERNAL_ONLY"]},
            "run",
            f"/run/v2/{REGION}/services?serviceId=api",
            {"ingress": "INGRESS_TRAFFIC_ALL", "template": {"containers": [{"image": "i"}]}},
        ),
        (
            {"constraint": "constraints/iam.workloadIdentityPoolProviders", "allowed": ["https://issuer.example"]},
            "iam",
            f"/iam/v1/projects/{PROJECT}/locations/global/workloadIdentityPools/pool/providers"
            "?workloadIdentityPoolProviderId=github",
            {
                "attributeMapping": {"google.subject": "assertion.sub"},
                "attributeCondition": "assertion.repository_owner_id == '1'",
                "oidc": {"issuerUri": "https://token.actions.githubusercontent.com"},
            },
        ),
    ],
    ids=["locations", "ingress", "issuers"],
)
def test_an_organisation_policy_forbids_the_create(fresh, policy, service, path, body):
    if service == "iam":
        fresh.post(path.split("/pool/")[0] + "?workloadIdentityPoolId=pool", {})
    fresh.inject(organization_policies=[policy])
    refused = fresh.post(path, body)
    assert (refused.status, refused.body["error"]["status"]) == (400, "FAILED_PRECONDITION")
    assert policy["constraint"] in refused.message
    fresh.inject(organization_policies=[{**policy, "project": "another"}])
    assert fresh.post(path, body).status == 200


def test_a_policy_that_was_set_through_the_api_is_in_force(fresh):
    name = f"projects/{PROJECT}/policies/gcp.resourceLocations"
    spec = {"rules": [{"values": {"allowedValues": ["us-east1"]}}]}
    assert fresh.post(f"/orgpolicy/v2/projects/{PROJECT}/policies", {"name": name, "spec": spec}).status == 200
    assert fresh.post(f"{CLUSTERS}?clusterId=c", PSC).status == 400


def test_what_cannot_be_injected_is_refused(fresh):
    assert fresh.post("/_local/faults", {"faults": [{"method": "x", "answer": 418}]}).status == 400
    assert fresh.post("/_local/faults", {"colour": "red"}).status == 400


def test_what_was_set_can_be_read(fresh):
    fresh.inject(quotas=[{"metric": "NETWORKS", "limit": 1}])
    state = fresh.get("/_local/state").body
    assert state["injected"]["quotas"] == [{"metric": "NETWORKS", "limit": 1, "project": "*"}]
    assert f"cloudresourcemanager/projects/{PROJECT}" in state["resources"]


def test_what_was_written_is_counted_by_method_and_reads_and_checks_are_not(fresh):
    before = fresh.get("/_local/state").body["writes"]
    fresh.get(SECRETS)
    assert fresh.post(f"{CLUSTERS}?clusterId=c&validateOnly=true", PSC).status == 200
    assert fresh.post(f"{SECRETS}?secretId=not%20allowed", SECRET).status == 400
    assert fresh.get("/_local/state").body["writes"] == before
    assert fresh.post(f"{SECRETS}?secretId=s", SECRET).status == 200
    assert fresh.post(f"{CLUSTERS}?clusterId=c", PSC).status == 200
    counted = fresh.get("/_local/state").body["writes"]
    created = {"secretmanager.projects.secrets.create": 1, "alloydb.projects.locations.clusters.create": 1}
    assert counted == {**before, **created}
