"""Cloud Run: services, jobs, worker pools. https://cloud.google.com/run/docs/reference/rest"""

from __future__ import annotations

from typing import Any

from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.kinds import Body, Kind, Service, fill_missing
from orchestra_lib.local.control.operation_styles import in_location
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.store import Stored

_LIMITS = {"cpu": "1000m", "memory": "512Mi"}
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "failureThreshold": 3}
_STARTUP_BY_PORT = {"timeoutSeconds": 240, "periodSeconds": 240, "failureThreshold": 1}
_PORT = 8080
_CONCURRENCY = 80
_JOB: Body = {
    "launchStage": "GA",
    "latestCreatedExecution": {},
    "template": {
        "taskCount": 1,
        "template": {"executionEnvironment": "EXECUTION_ENVIRONMENT_GEN2", "maxRetries": 3, "timeout": "600s"},
    },
}
_SERVICE: Body = {
    "launchStage": "GA",
    "ingress": "INGRESS_TRAFFIC_ALL",
    "template": {"timeout": "300s", "maxInstanceRequestConcurrency": _CONCURRENCY},
    "traffic": [{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST", "percent": 100}],
}
_WORKER_POOL: Body = {"launchStage": "GA", "template": {}}


# --- what is filled in --------------------------------------------------------------------------------------------


def _fill_job(call: Call, body: Body, before: Body | None) -> None:
    _fill_template(call, body["template"]["template"])
    _wait(body, before)


def _fill_service(call: Call, body: Body, before: Body | None) -> None:
    template = body["template"]
    _fill_template(call, template)
    if template["containers"]:
        _serve(template["containers"])
    name = body["name"].rsplit("/", 1)[1]
    body["uri"] = f"https://{name}-{call.project_number}.{call.location}.run.app"
    body["urls"] = [body["uri"]]
    _wait(body, before)


def _fill_worker_pool(call: Call, body: Body, before: Body | None) -> None:
    _fill_template(call, body["template"])
    _wait(body, before)


def _fill_template(call: Call, template: Body) -> None:
    """The account, and for each container its limits and what a probe leaves out."""
    account = f"{call.project_number}-compute@developer.gserviceaccount.com"
    fill_missing(template, {"serviceAccount": account, "containers": []})
    for container in template["containers"]:
        fill_missing(container, {"resources": {"limits": _LIMITS}})
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            if name in container:
                fill_missing(container[name], _PROBE)


def _serve(containers: list[Body]) -> None:
    """The container that takes requests has a port, and starts when the port answers."""
    ingress = next((container for container in containers if container.get("ports")), containers[0])
    fill_missing(ingress, {"ports": [{"name": "http1", "containerPort": _PORT}]})
    port = ingress["ports"][0].setdefault("containerPort", _PORT)
    ingress["ports"][0].setdefault("name", "http1")
    fill_missing(ingress, {"startupProbe": {**_STARTUP_BY_PORT, "tcpSocket": {"port": port}}})


def _wait(body: Body, before: Body | None) -> None:
    """What was never ready has no time of its last transition."""
    body["terminalCondition"] = {**(before or {}).get("terminalCondition", {}), "state": "CONDITION_PENDING"}


def _be_ready(control: Any, _key: str, body: Body) -> None:
    at = timestamp(control.clock())
    body["terminalCondition"] = {"type": "Ready", "state": "CONDITION_SUCCEEDED", "lastTransitionTime": at}


def _count_deletion(_call: Call, row: Stored) -> None:
    row.body["generation"] = str(int(row.body.get("generation", "1")) + 1)


# --- operations ---------------------------------------------------------------------------------------------------


def _metadata(control: Any, record: Record) -> Body:
    """The resource itself, with what it is still waiting for."""
    body = record["answer"] or control.shown_resource(record["service"], record["version"], record["target"]) or {}
    result = {"@type": record["type"], **body}
    if record["ended"] is None:
        result["reconciling"] = True
        result["terminalCondition"] = {**body.get("terminalCondition", {}), "state": "CONDITION_PENDING"}
    return result


def _row(collection: str, noun: str, **more: Any) -> Kind:
    named = f"Resource '{{id}}' of kind '{noun}' in region '{{location}}' in project '{{project}}'"
    return Kind(
        collection,
        delete_answers="resource",
        applied_at_once=True,
        finish=_be_ready,
        before_delete=_count_deletion,
        not_found=f"{named} does not exist.",
        exists=f"{named} already exists.",
        **more,
    )


SERVICE = Service(
    name="run",
    every=Kind("", delete_answers="resource", applied_at_once=True),
    kinds=(
        _row("jobs", "JOB", defaults=_JOB, fill=_fill_job),
        _row("services", "SERVICE", defaults=_SERVICE, fill=_fill_service),
        _row("workerPools", "WORKER_POOL", defaults=_WORKER_POOL, fill=_fill_worker_pool),
    ),
    operations=Style(in_location, _metadata),
)
