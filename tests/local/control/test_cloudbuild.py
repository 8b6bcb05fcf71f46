"""Cloud Build: triggers by id and by name, builds, worker pools and their operations, connections."""

from __future__ import annotations

from itertools import count

import pytest
from control_plane import PROJECT

LOCATION = f"/cloudbuild/v1/projects/{PROJECT}/locations/us-central1"
TRIGGERS, POOLS = f"{LOCATION}/triggers", f"{LOCATION}/workerPools"
GLOBAL = f"/cloudbuild/v1/projects/{PROJECT}"
CONNECTIONS = f"/cloudbuild/v2/projects/{PROJECT}/locations/us-central1/connections"
STEP = {"name": "gcr.io/cloud-builders/docker", "args": ["build", "."]}
PUSH = {"github": {"owner": "o", "name": "r", "push": {"branch": "^main$"}}, "build": {"steps": [STEP]}}
_numbers = count(1)


def done(server, operation, version="v1"):
    assert operation.status == 200, operation.body
    polled = server.get(f"/cloudbuild/{version}/{operation.body['name']}").body
    assert polled["done"], polled
    return polled


def new_trigger(server, **more):
    made = server.post(TRIGGERS, {**PUSH, "name": f"trigger-{next(_numbers)}", **more})
    assert made.status == 200, made.body
    return made.body


# --- triggers and builds ---


def test_a_trigger_has_an_id_of_the_servers_and_a_name_of_the_callers(server):
    trigger = new_trigger(server)
    assert trigger["resourceName"].endswith(f"/locations/us-central1/triggers/{trigger['id']}")
    assert server.get(f"{TRIGGERS}/{trigger['id']}").body == trigger
    assert server.get(f"{TRIGGERS}/{trigger['name']}").body == trigger
    renamed = server.patch(f"{TRIGGERS}/{trigger['name']}", {**PUSH, "name": "renamed", "description": "d"}).body
    assert (renamed["id"], renamed["name"]) == (trigger["id"], "renamed")
    masked = server.patch(f"{TRIGGERS}/renamed?updateMask=disabled", {"name": "ignored", "disabled": True}).body
    assert (masked["name"], masked["disabled"], masked["description"]) == ("renamed", True, "d")
    assert server.delete(f"{TRIGGERS}/renamed").body == {}
    assert server.get(f"{TRIGGERS}/{trigger['id']}").status == 404


def test_a_name_is_taken_once(server):
    trigger = new_trigger(server)
    assert server.post(TRIGGERS, {**PUSH, "name": trigger["name"]}).status == 409


def test_the_path_without_a_location_is_the_global_one(server):
    made = server.post(f"{GLOBAL}/triggers", {**PUSH, "name": f"trigger-{next(_numbers)}"}).body
    assert server.get(f"{GLOBAL}/locations/global/triggers/{made['id']}").body == made
    assert made in server.get(f"{GLOBAL}/triggers").body["triggers"]
    assert made not in server.get(TRIGGERS).body.get("triggers", [])


@pytest.mark.parametrize(
    "body",
    [
        {"github": PUSH["github"]},
        {"build": PUSH["build"]},
        {**PUSH, "substitutions": {"REGION": "us-central1"}},
    ],
)
def test_a_trigger_that_can_build_nothing_is_refused(server, body):
    assert server.post(TRIGGERS, {**body, "name": f"trigger-{next(_numbers)}"}).status == 400


def test_running_a_trigger_makes_a_build(server):
    trigger = new_trigger(server, substitutions={"_REGION": "us-central1"})
    build = done(server, server.post(f"{TRIGGERS}/{trigger['name']}:run", {}))["response"]
    assert build["buildTriggerId"] == trigger["id"]
    assert build["substitutions"] == {"_REGION": "us-central1", "TRIGGER_NAME": trigger["name"]}


def test_a_disabled_trigger_does_not_run(server):
    trigger = new_trigger(server, disabled=True)
    assert server.post(f"{TRIGGERS}/{trigger['id']}:run", {}).status == 400


def test_a_build_says_that_nothing_was_run(server):
    started = server.post(f"{LOCATION}/builds", {"steps": [STEP]})
    queued = started.body["metadata"]["build"]
    assert (queued["status"], queued["timeout"], queued["projectId"]) == ("QUEUED", "600s", PROJECT)
    build = done(server, started)["response"]
    assert build["status"] == "SUCCESS"
    assert build["statusDetail"].startswith("No step was run")
    assert server.get(f"{LOCATION}/builds/{build['id']}").body["finishTime"] == build["finishTime"]
    again = done(server, server.post(f"{LOCATION}/builds/{build['id']}:retry", {}))["response"]
    assert again["id"] != build["id"]
    assert server.post(f"{LOCATION}/builds/{build['id']}:cancel", {}).status == 400


def test_a_build_needs_a_step(server):
    assert server.post(f"{LOCATION}/builds", {"steps": []}).status == 400


# --- worker pools ---


def test_a_pools_operations_lie_below_the_pool(server):
    name = f"pool-{next(_numbers)}"
    operation = server.post(f"{POOLS}?workerPoolId={name}", {"displayName": "p"})
    path = server.control.projects.numbered(f"{POOLS}/{name}".removeprefix("/cloudbuild/v1/"))
    assert operation.body["name"].startswith(f"{path}/operations/")
    assert operation.body["metadata"]["workerPool"] == path
    pool = done(server, operation)["response"]
    assert (pool["name"], pool["state"]) == (path, "RUNNING")
    assert pool["privatePoolV1Config"]["networkConfig"]["egressOption"] == "PUBLIC_EGRESS"
    deleted = server.delete(f"{POOLS}/{name}").body
    assert deleted["done"] is True
    assert server.get(f"{POOLS}/{name}").message == "Requested entity was not found."
    assert server.delete(f"{POOLS}/{name}").status == 404
    assert server.delete(f"{POOLS}/{name}?allowMissing=true").status == 200


def test_a_pool_needs_the_network_that_it_is_peered_with(server):
    network = {"peeredNetwork": f"projects/{PROJECT}/global/networks/no-such-network"}
    body = {"privatePoolV1Config": {"networkConfig": network}}
    assert server.post(f"{POOLS}?workerPoolId=pool-{next(_numbers)}", body).status == 404


# --- connections ---


def test_a_connection_waits_for_its_user_and_then_takes_repositories(server):
    name = f"connection-{next(_numbers)}"
    connection = done(server, server.post(f"{CONNECTIONS}?connectionId={name}", {"githubConfig": {}}), "v2")["response"]
    assert connection["installationState"]["stage"] == "PENDING_USER_OAUTH"
    assert name in connection["installationState"]["actionUri"]
    secret = f"projects/{PROJECT}/secrets/s/versions/1"
    github = {"authorizerCredential": {"oauthTokenSecretVersion": secret}, "appInstallationId": "1"}
    done(server, server.patch(f"{CONNECTIONS}/{name}?updateMask=githubConfig", {"githubConfig": github}), "v2")
    assert server.get(f"{CONNECTIONS}/{name}").body["installationState"] == {"stage": "COMPLETE"}
    requests = [
        {
            "parent": "p",
            "repositoryId": f"r{number}",
            "repository": {"remoteUri": f"https://github.com/o/r{number}.git"},
        }
        for number in range(2)
    ]
    batch = server.post(f"{CONNECTIONS}/{name}/repositories:batchCreate", {"requests": requests})
    assert len(done(server, batch, "v2")["response"]["repositories"]) == 2
    listed = server.get(f"{CONNECTIONS}/{name}/repositories").body["repositories"]
    assert [repository["remoteUri"] for repository in listed] == [r["repository"]["remoteUri"] for r in requests]


def test_a_repository_needs_an_address_that_git_takes(server):
    name = f"connection-{next(_numbers)}"
    done(server, server.post(f"{CONNECTIONS}?connectionId={name}", {"githubConfig": {}}), "v2")
    refused = server.post(f"{CONNECTIONS}/{name}/repositories?repositoryId=r", {"remoteUri": "git@github.com:o/r"})
    assert refused.status == 400


def test_builds_run_as_the_account_of_compute_engine_by_default(server):
    number = server.control.projects.number(PROJECT)
    account = server.get(f"{LOCATION}/defaultServiceAccount").body["serviceAccountEmail"]
    assert account.endswith(f"/{number}-compute@developer.gserviceaccount.com")
