"""The standard methods over HTTP, on kinds of resources that no service's code has to know."""

from __future__ import annotations

from itertools import count

from control_plane import PROJECT

REGION = f"projects/{PROJECT}/locations/us-central1"
REPOSITORIES = f"/artifactregistry/v1/{REGION}/repositories"
SECRETS = f"/secretmanager/v1/projects/{PROJECT}/secrets"
NETWORKS = f"/compute/v1/projects/{PROJECT}/global/networks"
SUBNETWORKS = f"/compute/v1/projects/{PROJECT}/regions/us-central1/subnetworks"
POOLS = f"/iam/v1/projects/{PROJECT}/locations/global/workloadIdentityPools"
_numbers = count(1)


def new_name(prefix="r"):
    return f"{prefix}-{next(_numbers)}"


def new_repository(server, **body):
    name = new_name()
    made = server.post(f"{REPOSITORIES}?repositoryId={name}", {"format": "DOCKER", **body})
    assert made.status == 200, made.body
    return name


def new_secret(server, **body):
    name = new_name("s")
    assert server.post(f"{SECRETS}?secretId={name}", {"replication": {"automatic": {}}, **body}).status == 200
    return name


def test_what_was_created_is_got_listed_and_filtered(server):
    name = new_secret(server, labels={"only": "this"})
    got = server.get(f"{SECRETS}/{name}").body
    assert got["labels"] == {"only": "this"}
    assert got["createTime"].endswith("Z")
    assert got in server.get(SECRETS).body["secrets"]
    assert server.get(f"{SECRETS}?filter=labels.only=this").body["secrets"] == [got]


def test_a_list_comes_in_pages(fresh):
    names = [new_secret(fresh) for _ in range(5)]
    first = fresh.get(f"{SECRETS}?pageSize=3").body
    second = fresh.get(f"{SECRETS}?pageSize=3&pageToken={first['nextPageToken']}").body
    assert "nextPageToken" not in second
    shown = [secret["name"].rsplit("/", 1)[1] for secret in first["secrets"] + second["secrets"]]
    assert shown == sorted(names)
    assert fresh.get(f"{SECRETS}?pageToken=nonsense").status == 400


def test_an_empty_list_is_an_empty_object(fresh):
    assert fresh.get(REPOSITORIES).body == {}
    assert fresh.get(NETWORKS).body["kind"] == "compute#networkList"


def test_creating_it_again_is_refused(server):
    name = new_repository(server)
    again = server.post(f"{REPOSITORIES}?repositoryId={name}", {"format": "DOCKER"})
    assert (again.status, again.body["error"]["status"]) == (409, "ALREADY_EXISTS")


def test_below_a_parent_that_does_not_exist_nothing_is_created(server):
    made = server.post(f"/alloydb/v1/{REGION}/clusters/none/instances?instanceId=i", {"instanceType": "PRIMARY"})
    assert made.status == 404
    assert f"{REGION}/clusters/none" in made.message


def test_an_update_touches_what_its_mask_names(server):
    name = new_repository(server, description="old", labels={"a": "1"})
    path = f"{REPOSITORIES}/{name}"
    after = server.patch(f"{path}?updateMask=description", {"description": "new", "labels": {"b": "2"}}).body
    assert (after["description"], after["labels"]) == ("new", {"a": "1"})
    after = server.patch(f"{path}?update_mask=labels", {"description": "ignored"}).body
    assert after["description"] == "new"
    assert "labels" not in after
    assert server.patch(f"{path}?updateMask=colour", {}).status == 400


def test_read_only_fields_in_a_request_are_ignored(server):
    name = new_secret(server, createTime="2001-01-01T00:00:00Z")
    assert not server.get(f"{SECRETS}/{name}").body["createTime"].startswith("2001")


def test_immutable_fields_do_not_change(server):
    name = new_secret(server)
    changed = server.patch(
        f"{SECRETS}/{name}?updateMask=replication",
        {"replication": {"userManaged": {"replicas": [{"location": "us-east1"}]}}},
    )
    assert changed.status == 400
    assert "immutable" in changed.message


def test_unknown_fields_parameters_and_values_are_refused(server):
    assert server.post(f"{SECRETS}?secretId=x", {"colour": "red"}).status == 400
    refused = server.post(f"{SECRETS}?secretId=x&colour=red", {})
    assert (refused.status, "Cannot bind query parameter" in refused.message) == (400, True)
    assert server.post(f"{REPOSITORIES}?repositoryId=x", {"format": "PAPER"}).status == 400
    assert server.get(f"{SECRETS}/x").status == 404, "none of them was created"


def test_what_is_not_json_is_refused(server):
    assert server.send("POST", f"{SECRETS}?secretId=x", b"{not json").status == 400


def test_an_old_etag_is_refused(server):
    name = new_secret(server)
    path = f"{SECRETS}/{name}"
    etag = server.get(path).body["etag"]
    assert server.patch(f"{path}?updateMask=labels", {"labels": {"a": "1"}, "etag": etag}).status == 200
    stale = server.patch(f"{path}?updateMask=labels", {"labels": {"a": "2"}, "etag": etag})
    assert (stale.status, stale.body["error"]["status"]) == (409, "ABORTED")
    assert server.delete(f"{path}?etag={etag.replace('+', '%2B')}").status == 409
    assert server.get(path).body["labels"] == {"a": "1"}


def test_a_call_that_only_validates_changes_nothing(server):
    name = new_name("c")
    path = f"/workstations/v1/{REGION}/workstationClusters"
    body = {"network": "n", "subnetwork": "s"}
    checked = server.post(f"{path}?workstationClusterId={name}&validateOnly=true", body)
    assert (checked.status, checked.body["done"]) == (200, True)
    assert checked.body["response"]["network"] == "n"
    assert server.get(f"{path}/{name}").status == 404
    assert server.post(f"{path}?workstationClusterId={name}&validateOnly=true", {"colour": 1}).status == 400


def test_the_same_request_id_is_carried_out_once(server):
    name = new_name("c")
    path = f"/alloydb/v1/{REGION}/clusters?clusterId={name}&requestId=aaaa-{name}"
    body = {"pscConfig": {"pscEnabled": True}}
    first, second = server.post(path, body), server.post(path, body)
    assert first.status == second.status == 200
    assert first.body["name"] == second.body["name"]


def test_a_delete_takes_what_lies_below_along(server):
    name = new_repository(server)
    assert server.post(f"{REPOSITORIES}/{name}/rules?ruleId=rule", {"action": "DENY"}).status == 200
    assert server.get(f"{REPOSITORIES}/{name}/rules/rule").status == 200
    assert server.delete(f"{REPOSITORIES}/{name}").status == 200
    assert server.get(f"{REPOSITORIES}/{name}").status == 404
    assert server.get(f"{REPOSITORIES}/{name}/rules/rule").status == 404


def test_a_soft_deleted_resource_is_shown_keeps_its_id_and_comes_back(server):
    name = new_name("pool")
    assert server.post(f"{POOLS}?workloadIdentityPoolId={name}", {"displayName": "d"}).status == 200
    assert server.delete(f"{POOLS}/{name}").status == 200
    assert server.get(f"{POOLS}/{name}").body["state"] == "DELETED"
    listed = {pool["name"] for pool in server.get(POOLS).body.get("workloadIdentityPools", [])}
    assert not any(pool.endswith(f"/{name}") for pool in listed)
    with_deleted = server.get(f"{POOLS}?showDeleted=true").body["workloadIdentityPools"]
    assert any(pool["name"].endswith(f"/{name}") for pool in with_deleted)
    assert server.post(f"{POOLS}?workloadIdentityPoolId={name}", {}).status == 409
    assert server.post(f"{POOLS}/{name}:undelete").status == 200
    assert server.get(f"{POOLS}/{name}").body["state"] == "ACTIVE"


def test_a_wildcard_lists_every_place(server):
    name = new_name()
    other = f"/artifactregistry/v1/projects/{PROJECT}/locations/europe-west1/repositories"
    assert server.post(f"{other}?repositoryId={name}", {"format": "DOCKER"}).status == 200
    new_repository(server)
    everywhere = server.get(f"/artifactregistry/v1/projects/{PROJECT}/locations/-/repositories").body["repositories"]
    assert {repository["name"].split("/")[3] for repository in everywhere} >= {"europe-west1", "us-central1"}


def test_a_place_that_there_is_not_is_said(server):
    assert (
        "Location mars-north1" in server.get(f"/alloydb/v1/projects/{PROJECT}/locations/mars-north1/clusters").message
    )
    refused = server.get(f"/compute/v1/projects/{PROJECT}/zones/mars-north1-a/disks/d")
    assert (refused.status, refused.message) == (400, "Invalid value for field 'zone': 'mars-north1-a'. Unknown zone.")
    places = server.get(f"/alloydb/v1/projects/{PROJECT}/locations").body["locations"]
    assert any(place["locationId"] == "us-central1" for place in places)


def test_versions_of_a_service_show_the_same_resources(server):
    name = new_name("c")
    path = f"{REGION}/clusters"
    assert server.post(f"/alloydb/v1/{path}?clusterId={name}", {"pscConfig": {"pscEnabled": True}}).status == 200
    assert server.get(f"/alloydb/v1beta/{path}/{name}").body["name"] == f"{path}/{name}"


def test_compute_names_its_errors_in_its_own_words(server):
    missing = server.get(f"{NETWORKS}/none")
    assert missing.status == 404
    assert missing.message == f"The resource 'projects/{PROJECT}/global/networks/none' was not found"
    assert missing.body["error"]["errors"][0]["reason"] == "notFound"
    assert "status" not in missing.body["error"]
    bad = server.post(NETWORKS, {"name": "Not_A_Name"})
    assert "Must be a match of regex" in bad.message


def test_a_reference_to_nothing_is_refused(server):
    body = {"name": new_name(), "network": f"projects/{PROJECT}/global/networks/none", "ipCidrRange": "10.0.0.0/24"}
    assert server.post(SUBNETWORKS, body).status == 404


def test_delete_of_a_network_in_use_fails_in_its_operation(server):
    network = new_name("net")
    assert server.post(NETWORKS, {"name": network, "autoCreateSubnetworks": False}).status == 200
    url = f"projects/{PROJECT}/global/networks/{network}"
    body = {"name": new_name("sub"), "network": url, "ipCidrRange": "10.0.0.0/24"}
    assert server.post(SUBNETWORKS, body).status == 200
    started = server.delete(f"{NETWORKS}/{network}")
    assert started.status == 200
    ended = server.get(f"/compute/v1/projects/{PROJECT}/global/operations/{started.body['name']}").body
    assert ended["status"] == "DONE"
    error = ended["error"]["errors"][0]
    assert error["code"] == "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"
    assert error["message"].startswith(f"The network resource '{url}' is already being used by 'projects/{PROJECT}/")
    assert server.get(f"{NETWORKS}/{network}").status == 200
    assert server.delete(f"{SUBNETWORKS}/{body['name']}").status == 200
    assert server.delete(f"{NETWORKS}/{network}").status == 200
    assert server.get(f"{NETWORKS}/{network}").status == 404


def test_compute_lists_by_region(server):
    network = new_name("net")
    server.post(NETWORKS, {"name": network, "autoCreateSubnetworks": False})
    url = f"projects/{PROJECT}/global/networks/{network}"
    name = new_name("sub")
    server.post(SUBNETWORKS, {"name": name, "network": url, "ipCidrRange": "10.1.0.0/24"})
    found = server.get(f"/compute/v1/projects/{PROJECT}/aggregated/subnetworks?filter=name={name}").body["items"]
    assert [subnet["name"] for subnet in found["regions/us-central1"]["subnetworks"]] == [name]
    assert found["regions/us-east1"]["warning"]["code"] == "NO_RESULTS_ON_PAGE"
    assert not {scope for scope in found if not scope.startswith("regions/")}


def test_compute_lists_everywhere_what_nobody_created(server):
    path = f"/compute/v1/projects/{PROJECT}/aggregated/machineTypes"
    found = server.get(f"{path}?filter=name=e2-standard-4").body["items"]
    assert [kind["name"] for kind in found["zones/us-central1-a"]["machineTypes"]] == ["e2-standard-4"]


def test_compute_lists_take_the_parameter_that_the_document_lacks(server):
    query = "returnPartialSuccess=True&maxResults=5"
    assert server.get(f"/compute/v1/projects/{PROJECT}/aggregated/routers?{query}").status == 200
    assert server.get(f"{NETWORKS}?{query}").status == 200
    assert server.get(f"/compute/v1/projects/{PROJECT}?{query}").status == 400


def test_enums_are_numbers_for_clients_that_ask_for_them(server):
    name = new_repository(server)
    numbered = server.get(f"{REPOSITORIES}/{name}?%24alt=json%3Benum-encoding%3Dint").body
    assert numbered["format"] == 1
    assert server.get(f"{REPOSITORIES}/{name}").body["format"] == "DOCKER"


def test_what_is_not_supported_is_said_with_the_method(server):
    refused = server.get(f"/compute/v1/projects/{PROJECT}/global/interconnects/i/getDiagnostics")
    assert refused.status == 501
    assert "compute.interconnects.getDiagnostics" in refused.message


def test_a_path_that_is_no_call_is_not_found(server):
    assert server.get("/alloydb/v1/nothing").message == "Method not found."
    assert server.get("/nothing/v1/x").status == 404
