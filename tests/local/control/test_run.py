"""Cloud Run: defaults, revisions and traffic of services, worker pools, executions of jobs, what is refused."""

from __future__ import annotations

from itertools import count

import pytest
from control_plane import PROJECT, serving

PARENT = f"projects/{PROJECT}/locations/us-central1"
LOCATION = f"/run/v2/{PARENT}"
IMAGE = "us-docker.pkg.dev/cloudrun/container/hello"
LATEST = {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}
_numbers = count(1)


def done(server, operation):
    assert operation.status == 200, operation.body
    polled = server.get(f"/run/v2/{operation.body['name']}").body
    assert polled["done"], polled
    return polled


def response(server, operation):
    polled = done(server, operation)
    assert "response" in polled, polled
    return polled["response"]


def template(**more):
    return {"containers": [{"image": IMAGE}], **more}


def to(revision, percent, **more):
    return {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": revision, "percent": percent, **more}


def create_service(server, name="", **body):
    name = name or f"service-{next(_numbers)}"
    return server.post(f"{LOCATION}/services?serviceId={name}", {"template": template(), **body})


def new_service(server, name="", **body):
    return response(server, create_service(server, name, **body))


def url(resource):
    return f"/run/v2/{resource['name']}"


def short(path):
    return path.rsplit("/", 1)[1]


def new_job(server, **body):
    name = f"job-{next(_numbers)}"
    wanted = {"template": {"template": template()}, **body}
    return response(server, server.post(f"{LOCATION}/jobs?jobId={name}", wanted))


# --- services ---


def test_a_service_has_its_defaults(server):
    service = new_service(server)
    made = service["template"]
    assert made["containers"][0]["resources"]["limits"] == {"cpu": "1000m", "memory": "512Mi"}
    assert made["containers"][0]["ports"] == [{"name": "http1", "containerPort": 8080}]
    assert made["containers"][0]["startupProbe"]["tcpSocket"] == {"port": 8080}
    assert (made["timeout"], made["maxInstanceRequestConcurrency"]) == ("300s", 80)
    number = server.control.projects.number(PROJECT)
    assert made["serviceAccount"] == f"{number}-compute@developer.gserviceaccount.com"
    assert (service["ingress"], service["launchStage"]) == ("INGRESS_TRAFFIC_ALL", "GA")
    assert service["traffic"] == service["trafficStatuses"] == [LATEST]
    assert service["generation"] == service["observedGeneration"] == "1"
    assert service["terminalCondition"]["state"] == "CONDITION_SUCCEEDED"
    assert service["uri"].endswith("-uc.a.run.app")
    assert server.get(f"/run/v2/{service['latestReadyRevision']}").body["service"] == service["name"]


def test_the_metadata_of_an_operation_is_the_resource_that_waits(tmp_path):
    with serving(tmp_path, latency=1000) as slow:
        slow.new_project(PROJECT, "run")
        started = create_service(slow, "waiting").body
        assert started["metadata"]["reconciling"] is True
        assert started["metadata"]["terminalCondition"]["state"] == "CONDITION_PENDING"
        assert "uid" not in started["metadata"]
        service = slow.get(f"{LOCATION}/services/waiting").body
        assert service["terminalCondition"]["state"] == "CONDITION_PENDING"
        assert "latestReadyRevision" not in service


def test_a_missing_service_is_named_with_its_kind_and_place(server):
    assert server.get(f"{LOCATION}/services/none").message == (
        f"Resource 'none' of kind 'SERVICE' in region 'us-central1' in project '{PROJECT}' does not exist."
    )


def test_what_was_said_of_a_container_stays(server):
    container = {"image": IMAGE, "ports": [{"containerPort": 9000}], "resources": {"limits": {"cpu": "2"}}}
    kept = new_service(server, template={"containers": [container], "serviceAccount": "a@x.example"})["template"]
    assert kept["containers"][0]["resources"] == {"limits": {"cpu": "2", "memory": "512Mi"}}
    assert kept["containers"][0]["ports"] == [{"name": "http1", "containerPort": 9000}]
    assert kept["containers"][0]["startupProbe"]["tcpSocket"] == {"port": 9000}
    assert kept["serviceAccount"] == "a@x.example"


def test_less_than_one_cpu_serves_one_request_at_a_time(server):
    small = {"resources": {"limits": {"cpu": "500m", "memory": "256Mi"}}}
    service = new_service(server, template={"containers": [{"image": IMAGE, **small}]})
    assert service["template"]["maxInstanceRequestConcurrency"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {"template": {}},
        {"template": template(maxInstanceRequestConcurrency=1001)},
        {"template": template(timeout="3601s")},
        {"template": template(scaling={"minInstanceCount": 5, "maxInstanceCount": 4})},
        {"template": template(annotations={"run.googleapis.com/x": "y"})},
        {"template": {"containers": [{"image": IMAGE, "resources": {"limits": {"cpu": "3"}}}]}},
        {"template": {"containers": [{"image": IMAGE, "resources": {"limits": {"cpu": "4", "memory": "1Gi"}}}]}},
        {"template": {"containers": [{"image": IMAGE, "resources": {"limits": {"memory": "much"}}}]}},
        {"template": {"containers": [{"image": IMAGE, "startupProbe": {"timeoutSeconds": 20}}]}},
        {"template": {"containers": [{"image": IMAGE, "startupProbe": {"periodSeconds": 241}}]}},
        {"template": {"containers": [{"image": IMAGE, "ports": [{"containerPort": 1}]}] * 2}},
        {"template": template(revision="another-name")},
        {"traffic": [{**LATEST, "percent": 99}]},
        {"traffic": [to("", 100)]},
        {"traffic": [to("missing-00001-abc", 100)]},
        {"traffic": [{**LATEST, "tag": "a"}, {**LATEST, "tag": "a", "percent": 0}]},
        {"traffic": [{**LATEST, "percent": 150}, {**LATEST, "percent": -50}]},
        {"traffic": [{**LATEST, "tag": "Green_1"}]},
    ],
)
def test_a_service_that_could_not_be_rolled_out_is_refused(server, body):
    assert create_service(server, "refused", **body).status == 400
    assert server.get(f"{LOCATION}/services/refused").status == 404


# --- revisions and traffic ---


def test_only_a_new_template_makes_a_new_revision(server):
    service = new_service(server)
    labelled = response(server, server.patch(f"{url(service)}?updateMask=labels", {"labels": {"a": "b"}}))
    assert labelled["generation"] == "2"
    assert labelled["latestReadyRevision"] == service["latestReadyRevision"]
    changed = response(
        server, server.patch(f"{url(service)}?updateMask=template", {"template": template(timeout="10s")})
    )
    assert changed["latestReadyRevision"] != service["latestReadyRevision"]
    assert len(server.get(f"{url(service)}/revisions").body["revisions"]) == 2
    old = server.get(f"/run/v2/{service['latestReadyRevision']}").body
    assert old["timeout"] == "300s"
    forced = response(server, server.patch(f"{url(service)}?forceNewRevision=true&updateMask=labels", {"labels": {}}))
    assert forced["latestReadyRevision"] != changed["latestReadyRevision"]


def test_traffic_is_divided_among_revisions_and_goes_back(server):
    service = new_service(server)
    first = short(service["latestReadyRevision"])
    traffic = [{**LATEST, "percent": 10, "tag": "candidate"}, to(first, 90)]
    wanted = {"template": template(timeout="10s"), "traffic": traffic}
    divided = response(server, server.patch(url(service), wanted))
    statuses = divided["trafficStatuses"]
    assert [status["percent"] for status in statuses] == [10, 90]
    assert statuses[0]["uri"] == divided["uri"].replace("https://", "https://candidate---")
    back = response(server, server.patch(f"{url(service)}?updateMask=traffic", {"traffic": [to(first, 100)]}))
    assert back["trafficStatuses"] == [to(first, 100)]
    assert back["latestReadyRevision"] == divided["latestReadyRevision"]


def test_a_revision_in_use_is_not_deleted(server):
    service = new_service(server)
    first = service["latestReadyRevision"]
    assert server.delete(f"/run/v2/{first}").status == 400
    wanted = {"template": template(timeout="10s"), "traffic": [to(short(first), 100)]}
    done(server, server.patch(url(service), wanted))
    assert "in use" in server.delete(f"/run/v2/{first}").message
    done(server, server.patch(f"{url(service)}?updateMask=traffic", {"traffic": [LATEST]}))
    done(server, server.delete(f"/run/v2/{first}"))
    assert server.get(f"/run/v2/{first}").status == 404


def test_a_name_of_a_revision_belongs_to_one_template(server):
    service = new_service(server, "named", template=template(revision="named-one"))
    assert short(service["latestReadyRevision"]) == "named-one"
    same = response(server, server.patch(url(service), {"template": template(revision="named-one")}))
    assert same["latestReadyRevision"] == service["latestReadyRevision"]
    other = {"template": template(revision="named-one", timeout="10s")}
    assert server.patch(url(service), other).status == 409


def test_a_service_whose_roll_out_failed_says_so_and_keeps_its_revision(server):
    service = new_service(server)
    server.inject(faults=[{"method": "run.projects.locations.services.patch", "answer": "operation", "message": "no"}])
    failed = done(server, server.patch(url(service), {"template": template(timeout="10s")}))
    assert failed["error"]["message"] == "no"
    assert failed["metadata"]["terminalCondition"]["message"] == "no"
    found = server.get(url(service)).body
    assert found["terminalCondition"]["state"] == "CONDITION_FAILED"
    assert found["latestReadyRevision"] == service["latestReadyRevision"]
    assert (found["generation"], found["observedGeneration"]) == ("2", "1")


def test_what_is_only_validated_is_not_there(server):
    validated = server.post(f"{LOCATION}/services?serviceId=imagined&validateOnly=true", {"template": template()}).body
    assert validated["response"]["template"]["timeout"] == "300s"
    assert server.get(f"{LOCATION}/services/imagined").status == 404
    service = new_service(server)
    changed = server.patch(f"{url(service)}?validateOnly=true", {"template": template(timeout="10s")}).body
    assert changed["response"]["template"]["timeout"] == "10s"
    assert changed["response"]["terminalCondition"]["state"] == "CONDITION_SUCCEEDED"
    assert server.get(url(service)).body["template"]["timeout"] == "300s"


def test_a_deleted_service_takes_its_revisions_along(server):
    service = new_service(server)
    deleted = response(server, server.delete(url(service)))
    assert deleted["expireTime"] > deleted["deleteTime"]
    assert deleted["generation"] == "2"
    assert server.get(f"/run/v2/{service['latestReadyRevision']}").status == 404


def test_enums_are_numbers_in_the_metadata_of_a_call_that_asks_for_them(server):
    asked = server.post(f"{LOCATION}/services?serviceId=numbers&$alt=json;enum-encoding=int", {"template": template()})
    assert asked.body["metadata"]["launchStage"] == 4
    assert asked.body["metadata"]["terminalCondition"]["state"] == 1


def test_a_probe_of_the_callers_stays_as_it_was(server):
    probe = {"httpGet": {"path": "/readyz"}, "periodSeconds": 1}
    service = new_service(server, template={"containers": [{"image": IMAGE, "startupProbe": probe}]})
    kept = service["template"]["containers"][0]["startupProbe"]
    wanted = {
        "failureThreshold": 3,
        "periodSeconds": 1,
        "timeoutSeconds": 1,
        "httpGet": {"path": "/readyz", "port": 8080},
    }
    assert kept == wanted


def test_a_service_whose_first_roll_out_failed_is_there_and_says_so(server):
    server.inject(faults=[{"method": "run.projects.locations.services.create", "answer": "operation", "message": "no"}])
    assert done(server, create_service(server, "first-failed"))["error"]["message"] == "no"
    server.inject()
    found = server.get(f"{LOCATION}/services/first-failed").body
    assert (found["terminalCondition"]["state"], found["terminalCondition"]["message"]) == ("CONDITION_FAILED", "no")
    assert "latestReadyRevision" not in found
    again = response(server, server.patch(url(found), {"template": template(timeout="10s")}))
    assert again["terminalCondition"]["state"] == "CONDITION_SUCCEEDED"


# --- worker pools ---


def test_a_worker_pool_splits_its_instances_among_revisions(server):
    made = server.post(f"{LOCATION}/workerPools?workerPoolId=pool", {"template": template()})
    pool = response(server, made)
    latest = {"type": "INSTANCE_SPLIT_ALLOCATION_TYPE_LATEST", "percent": 100}
    assert pool["instanceSplits"] == pool["instanceSplitStatuses"] == [latest]
    first = short(pool["latestReadyRevision"])
    split = {"type": "INSTANCE_SPLIT_ALLOCATION_TYPE_REVISION", "revision": first, "percent": 100}
    changed = response(
        server, server.patch(url(pool), {"template": template(labels={"a": "b"}), "instanceSplits": [split]})
    )
    assert changed["instanceSplitStatuses"] == [split]
    assert changed["latestReadyRevision"] != pool["latestReadyRevision"]
    assert server.patch(url(pool), {"instanceSplits": [{**split, "percent": 50}]}).status == 400


# --- jobs ---


def test_a_job_has_its_defaults(server):
    probe = {"httpGet": {"port": 8081}}
    job = new_job(server, template={"template": {"containers": [{"image": IMAGE, "startupProbe": probe}]}})
    task = job["template"]["template"]
    assert job["template"]["taskCount"] == 1
    assert (task["maxRetries"], task["timeout"]) == (3, "600s")
    assert task["executionEnvironment"] == "EXECUTION_ENVIRONMENT_GEN2"
    wanted = {"failureThreshold": 3, "periodSeconds": 10, "timeoutSeconds": 1, "httpGet": {"path": "/", "port": 8081}}
    assert task["containers"][0]["startupProbe"] == wanted
    assert "ports" not in task["containers"][0]


@pytest.mark.parametrize(
    "body",
    [
        {"taskCount": 0, "template": template()},
        {"taskCount": 2, "parallelism": 3, "template": template()},
        {"template": template(maxRetries=11)},
        {"template": template(timeout="0s")},
        {"template": {}},
    ],
)
def test_a_job_that_could_not_be_executed_is_refused(server, body):
    assert server.post(f"{LOCATION}/jobs?jobId=refused", {"template": body}).status == 400


def test_an_execution_counts_its_tasks_and_says_that_nothing_was_run(server):
    job = new_job(server, template={"taskCount": 2, "template": template()})
    started = server.post(f"{url(job)}:run", {"overrides": {"taskCount": 3, "timeout": "60s"}})
    assert started.body["metadata"]["runningCount"] == 3
    execution = response(server, started)
    assert (execution["succeededCount"], execution["template"]["timeout"]) == (3, "60s")
    assert execution["conditions"][0]["message"].startswith("No container was run")
    tasks = server.get(f"{url(execution)}/tasks").body["tasks"]
    assert [task.get("index", 0) for task in tasks] == [0, 1, 2]
    assert server.get(url(tasks[2])).body == tasks[2]
    again = server.get(url(job)).body
    assert again["executionCount"] == 1
    assert again["latestCreatedExecution"]["completionStatus"] == "EXECUTION_SUCCEEDED"
    assert again["latestCreatedExecution"]["name"] == execution["name"]
    assert again["template"]["taskCount"] == 2


def test_an_execution_overrides_what_a_container_is_given(server):
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    job = new_job(server, template={"template": {"containers": [{"image": IMAGE, "env": env, "args": ["x"]}]}})
    overrides = {"containerOverrides": [{"env": [{"name": "B", "value": "3"}], "clearArgs": True}]}
    execution = response(server, server.post(f"{url(job)}:run", {"overrides": overrides}))
    container = execution["template"]["containers"][0]
    assert container["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}]
    assert container["args"] == []
    assert server.post(f"{url(job)}:run", {"overrides": {"taskCount": 10_001}}).status == 400
    assert server.post(f"{url(job)}:run", {"validateOnly": True}).body["done"]
    assert server.get(url(job)).body["executionCount"] == 1


def test_a_running_execution_is_cancelled(tmp_path):
    with serving(tmp_path) as slow:
        slow.new_project(PROJECT, "run")
        job = new_job(slow)
        slow.control.latency = type(slow.control.latency)(1000)
        execution = slow.post(f"{url(job)}:run", {}).body["metadata"]
        assert slow.delete(url(execution)).status in (400, 409)
        assert slow.post(f"{url(execution)}:cancel", {}).status == 200
        cancelled = slow.get(url(execution)).body
        assert cancelled["cancelledCount"] == 1
        assert cancelled["conditions"][0]["executionReason"] == "CANCELLED"
        assert "runningCount" not in cancelled


def test_an_execution_that_has_ended_is_not_cancelled(server):
    execution = response(server, server.post(f"{url(new_job(server))}:run", {}))
    assert server.post(f"{url(execution)}:cancel", {}).status == 400
    done(server, server.delete(url(execution)))
    assert server.get(url(execution)).status == 404
