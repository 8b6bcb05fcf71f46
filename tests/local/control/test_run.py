"""Cloud Run: what a job, a service and a worker pool have when nothing was said, and when they are ready."""

from __future__ import annotations

from itertools import count

import pytest
from control_plane import PROJECT

LOCATION = f"/run/v2/projects/{PROJECT}/locations/us-central1"
CONTAINERS = {"containers": [{"image": "us-docker.pkg.dev/cloudrun/container/hello"}]}
TEMPLATES = {"jobs": {"template": CONTAINERS}, "services": CONTAINERS, "workerPools": CONTAINERS}
IDS = {"jobs": "jobId", "services": "serviceId", "workerPools": "workerPoolId"}
_numbers = count(1)


def create(server, collection, **body):
    name = f"r-{next(_numbers)}"
    path = f"{LOCATION}/{collection}"
    operation = server.post(f"{path}?{IDS[collection]}={name}", {"template": TEMPLATES[collection], **body})
    assert operation.status == 200, operation.body
    return operation.body, f"{path}/{name}"


@pytest.mark.parametrize("collection", TEMPLATES)
def test_the_operation_shows_the_resource_until_it_is_ready(server, collection):
    operation, path = create(server, collection)
    assert operation["metadata"]["reconciling"] is True
    assert operation["metadata"]["terminalCondition"] == {"state": "CONDITION_PENDING"}
    ready = server.get(f"/run/v2/{operation['name']}").body["response"]
    assert ready["terminalCondition"]["state"] == "CONDITION_SUCCEEDED"
    assert (ready["generation"], ready["observedGeneration"], ready["launchStage"]) == ("1", "1", "GA")
    assert server.get(path).body["terminalCondition"]["lastTransitionTime"]


def test_a_job_has_its_defaults(server):
    job = server.get(create(server, "jobs")[1]).body["template"]
    task = job["template"]
    number = server.control.projects.number(PROJECT)
    assert (job["taskCount"], task["maxRetries"], task["timeout"]) == (1, 3, "600s")
    assert task["serviceAccount"] == f"{number}-compute@developer.gserviceaccount.com"
    assert task["containers"][0]["resources"] == {"limits": {"cpu": "1000m", "memory": "512Mi"}}
    assert "ports" not in task["containers"][0]


def test_a_service_takes_requests(server):
    service = server.get(create(server, "services")[1]).body
    container = service["template"]["containers"][0]
    assert container["ports"] == [{"name": "http1", "containerPort": 8080}]
    assert container["startupProbe"]["tcpSocket"] == {"port": 8080}
    assert service["template"]["maxInstanceRequestConcurrency"] == 80
    assert service["traffic"] == [{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}]
    assert service["uri"].endswith(".us-central1.run.app")


def test_what_was_said_stays(server):
    container = {"image": "i", "ports": [{"containerPort": 9000}], "resources": {"limits": {"cpu": "4"}}}
    template = {"containers": [container], "timeout": "5s", "serviceAccount": "a@x.example"}
    kept = server.get(create(server, "services", template=template)[1]).body["template"]
    assert kept["containers"][0]["resources"]["limits"] == {"cpu": "4", "memory": "512Mi"}
    assert kept["containers"][0]["startupProbe"]["tcpSocket"] == {"port": 9000}
    assert (kept["timeout"], kept["serviceAccount"]) == ("5s", "a@x.example")


def test_a_delete_answers_the_resource_and_when_it_goes(server):
    _, path = create(server, "jobs")
    operation = server.delete(path).body
    gone = server.get(f"/run/v2/{operation['name']}").body["response"]
    assert gone["generation"] == "2"
    assert gone["expireTime"] > gone["deleteTime"]
    name = path.rsplit("/", 1)[1]
    words = f"Resource '{name}' of kind 'JOB' in region 'us-central1' in project '{PROJECT}' does not exist."
    assert server.get(path).message == words
