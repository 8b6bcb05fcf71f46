"""Projects: made, found by id and by number, closed to what is not enabled, or made by naming them."""

from __future__ import annotations

import pytest
from control_plane import PROJECT, serving

V1, V3 = "/cloudresourcemanager/v1", "/cloudresourcemanager/v3"
ORGANIZATION = "organizations/873291114285"


def test_a_project_is_made_and_found_by_id_and_number(fresh):
    started = fresh.post(f"{V3}/projects", {"projectId": "another-project", "parent": ORGANIZATION})
    assert started.status == 200
    assert fresh.get(f"{V3}/{started.body['name']}").body["done"] is True
    by_id = fresh.get(f"{V3}/projects/another-project").body
    assert by_id["parent"] == ORGANIZATION
    assert fresh.get(f"{V3}/{by_id['name']}").body == by_id
    old = fresh.get(f"{V1}/projects/another-project").body
    assert old["projectNumber"] == by_id["name"].split("/")[1]
    assert old["parent"] == {"type": "organization", "id": "873291114285"}


@pytest.mark.parametrize("project_id", ["Capital-Letters", "short", "ends-with-hyphen-", "1-digit-first"])
def test_an_impossible_project_id_is_refused(fresh, project_id):
    assert fresh.post(f"{V3}/projects", {"projectId": project_id}).status == 400


def test_a_project_id_is_given_once(fresh):
    assert fresh.post(f"{V3}/projects", {"projectId": PROJECT}).status == 409


def test_an_unknown_project_is_forbidden_not_missing(fresh):
    for version in (V1, V3):
        refused = fresh.get(f"{version}/projects/unknown-project")
        assert (refused.status, refused.message) == (403, "The caller does not have permission")
    refused = fresh.get("/alloydb/v1/projects/unknown-project/locations/us-central1/clusters")
    assert (refused.status, refused.message) == (403, "Permission denied on resource project unknown-project.")
    assert fresh.get("/compute/v1/projects/unknown-project/global/networks").status == 404


def test_the_organisation_exists(fresh):
    assert fresh.get(f"{V3}/{ORGANIZATION}").body["state"] == "ACTIVE"
    assert fresh.get(f"{V3}/organizations/1").status == 403


def test_a_service_that_is_not_enabled_is_closed(fresh):
    refused = fresh.get(f"/workstations/v1/projects/{PROJECT}/locations/us-central1/workstationClusters")
    assert refused.status == 200
    fresh.new_project("bare-project")
    refused = fresh.get("/workstations/v1/projects/bare-project/locations/us-central1/workstationClusters")
    assert (refused.status, refused.body["error"]["details"][0]["reason"]) == (403, "SERVICE_DISABLED")


def test_paths_and_references_may_hold_the_number(fresh):
    number = fresh.get(f"{V1}/projects/{PROJECT}").body["projectNumber"]
    fresh.post(f"/compute/v1/projects/{PROJECT}/global/networks", {"name": "net"})
    assert fresh.get(f"/compute/v1/projects/{number}/global/networks/net").status == 200
    body = {"networkConfig": {"network": f"projects/{number}/global/networks/net"}}
    path = f"/alloydb/v1/projects/{number}/locations/us-central1/clusters"
    assert fresh.post(f"{path}?clusterId=c", body).status == 200
    assert fresh.get(f"{path.replace(number, PROJECT)}/c").status == 200


def test_in_the_permissive_mode_a_project_exists_once_it_is_named(tmp_path):
    with serving(tmp_path, permissive=True) as server:
        assert server.get(f"{V1}/projects/named-one").status == 403
        assert server.get("/alloydb/v1/projects/named-one/locations/us-central1/clusters/none").status == 404
        assert server.get(f"{V1}/projects/named-one").body["lifecycleState"] == "ACTIVE"


def test_in_the_permissive_mode_an_unknown_number_is_the_project_named_last(tmp_path):
    with serving(tmp_path, permissive=True) as server:
        server.post("/secretmanager/v1/projects/first-one/secrets?secretId=s", {"replication": {"automatic": {}}})
        assert server.get("/secretmanager/v1/projects/900000000007/secrets/s").status == 200
        assert server.get(f"{V1}/projects/first-one").body["projectNumber"] == "900000000007"
        server.get("/secretmanager/v1/projects/second-one/secrets")
        assert server.get("/secretmanager/v1/projects/900000000007/secrets/s").status == 200, "known by now"
        assert server.get("/secretmanager/v1/projects/900000000008/secrets/s").status == 404
