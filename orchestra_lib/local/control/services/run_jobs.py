"""Cloud Run's jobs: their executions and tasks. There are no containers here: an execution ends at once and says so.

https://cloud.google.com/run/docs/execute/jobs
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestra_lib.local.control import operations, standard
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Each, not_found
from orchestra_lib.local.control.services import run_templates as templates
from orchestra_lib.local.control.shapes import etag_of
from orchestra_lib.local.control.store import Stored

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_NOTHING_RUN = "No container was run: the local Google Cloud keeps none."
_SHARED_WITH_TASKS: tuple[str, ...] = ("createTime", "startTime", "completionTime", "job", "conditions")
_MOST_TASKS = 10_000
_MOST_RETRIES = 10
_LONGEST_TASK_SECONDS = 7 * 24 * 3600

DEFAULTS: Body = {
    "launchStage": "GA",
    "template": {
        "taskCount": 1,
        "template": {
            "containers": Each({"resources": {"limits": templates.LIMITS}}),
            "executionEnvironment": "EXECUTION_ENVIRONMENT_GEN2",
            "maxRetries": 3,
            "timeout": "600s",
        },
    },
}


def check(_call: Call, body: Body, _before: Body | None) -> None:
    """Raise Fault (400) for a job that could not be executed."""
    execution = body["template"]
    task = execution.get("template", {})
    templates.check_template(task, "template.template", body)
    _check_tasks(execution.get("taskCount", 1), execution.get("parallelism", 0), task.get("timeout", "600s"))
    if not 0 <= task.get("maxRetries", 0) <= _MOST_RETRIES:
        raise bad_field("template.template.max_retries", f"A task is retried at most {_MOST_RETRIES} times.")


def _check_tasks(count: int, parallelism: int, timeout: str) -> None:
    if not 1 <= count <= _MOST_TASKS:
        raise bad_field("template.task_count", f"An execution has 1 to {_MOST_TASKS} tasks, not {count}.")
    if not 0 <= parallelism <= count:
        raise bad_field("template.parallelism", f"At most all of the {count} tasks can run at a time.")
    if not 0 < float(timeout.removesuffix("s")) <= _LONGEST_TASK_SECONDS:
        raise bad_field("template.template.timeout", f"A task takes at most {_LONGEST_TASK_SECONDS}s, not {timeout}.")


def fill(call: Call, body: Body, before: Body | None) -> None:
    """Who a task runs as, and its probes."""
    task = body["template"]["template"]
    task.setdefault("serviceAccount", templates.service_account(call))
    templates.complete_containers(task)
    body.setdefault("latestCreatedExecution", {})
    if before:
        body["executionCount"] = before.get("executionCount", 0)
    templates.observe_validated(call, body)


def finish(control: ControlPlane, _key: str, body: Body) -> None:
    """A job that is ready can be executed."""
    if not body.get("executionCount"):
        body.pop("executionCount", None)
    body["terminalCondition"] = templates.condition(control, "Ready")


# --- executions ---------------------------------------------------------------------------------------------------


def run(call: Call) -> Body:
    """``jobs.run``: a new execution, with what the caller overrides."""
    row = call.control.find(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    standard.require_etag(call, row, call.body.get("etag"))
    template = _overridden(copy.deepcopy(row.body["template"]), call.body.get("overrides", {}))
    name = f"{row.body['name'].rsplit('/', 1)[1]}-{templates.suffix(5)}"
    key = f"{call.key}/executions/{name}"
    execution = _execution(call, row.body, template, name)
    message_type = call.api.message_type("GoogleCloudRunV2Execution")
    if call.validate_only:
        answer = {"@type": message_type, **execution}
        return operations.start(call, call.key, "run", message_type=message_type, effect="none", answer=answer)
    call.control.store.put(key, execution)
    reference = {"name": execution["name"], "createTime": call.time, "completionStatus": "EXECUTION_RUNNING"}
    job = {**row.body, "executionCount": row.body.get("executionCount", 0) + 1, "latestCreatedExecution": reference}
    call.control.store.put(row.key, job)
    return operations.start(call, key, "run", message_type=message_type, effect="finish")


def _overridden(template: Body, overrides: Body) -> Body:
    task = template["template"]
    template["taskCount"] = overrides.get("taskCount", template["taskCount"])
    task["timeout"] = overrides.get("timeout", task["timeout"])
    parallelism = min(template.get("parallelism", 0), template["taskCount"])
    _check_tasks(template["taskCount"], parallelism, task["timeout"])
    named = {container.get("name", ""): container for container in task["containers"]}
    for override in overrides.get("containerOverrides", ()):
        container = named.get(override.get("name", "")) or (task["containers"][0] if len(named) == 1 else None)
        if container is None:
            raise bad_field(
                "overrides.container_overrides.name", f"There is no container '{override.get('name', '')}'."
            )
        if "args" in override or override.get("clearArgs"):
            container["args"] = override.get("args", [])
        changed = {entry["name"]: entry for entry in override.get("env", ())}
        kept = [entry for entry in container.get("env", ()) if entry["name"] not in changed]
        if changed:
            container["env"] = [*kept, *changed.values()]
    return template


def _execution(call: Call, job: Body, template: Body, name: str) -> Body:
    count = template["taskCount"]
    body: Body = {
        "name": f"{job['name']}/executions/{name}",
        "uid": str(uuid.uuid4()),
        "creator": call.caller,
        "generation": "1",
        "createTime": call.time,
        "startTime": call.time,
        "updateTime": call.time,
        "launchStage": job["launchStage"],
        "job": job["name"],
        "parallelism": template.get("parallelism") or count,
        "taskCount": count,
        "runningCount": count,
        "template": template["template"],
        "reconciling": True,
        "conditions": [templates.condition(call.control, "Completed", templates.PENDING)],
    }
    body["etag"] = etag_of(body)
    return body


def finish_execution(control: ControlPlane, key: str, body: Body) -> None:
    """The end of an execution."""
    _end(control, key, body, "succeededCount", "EXECUTION_SUCCEEDED")
    body["conditions"] = [templates.condition(control, "Completed", message=_NOTHING_RUN)]


def cancel(call: Call) -> Body:
    """``executions.cancel``."""
    row = call.control.find(call.key)
    if row is None:
        raise not_found(call.control, call.key)
    running = call.control.store.open_operation_on(call.key)
    if running is None:
        raise Fault("FAILED_PRECONDITION", f"Execution '{call.path}' has ended.")
    if not call.validate_only:
        operations.cancel(call.control, running, call.now)
        body = dict(row.body)
        _end(call.control, call.key, body, "cancelledCount", "EXECUTION_CANCELLED")
        ended = templates.condition(call.control, "Completed", templates.FAILED, "The execution was cancelled.")
        body["conditions"] = [{**ended, "executionReason": "CANCELLED"}]
        call.control.store.put(call.key, body)
    message_type = call.api.message_type("GoogleCloudRunV2Execution")
    return operations.start(call, call.key, "cancel", message_type=message_type, effect="none")


def _end(control: ControlPlane, key: str, body: Body, counted: str, status: str) -> None:
    now = timestamp(control.clock())
    body.pop("runningCount", None)
    body.pop("reconciling", None)
    body.update(completionTime=now, updateTime=now, observedGeneration=body["generation"])
    body[counted] = body["taskCount"]
    job = control.find(key.rpartition("/executions/")[0])
    if job and job.body["latestCreatedExecution"].get("name") == body["name"]:
        reference = {**job.body["latestCreatedExecution"], "completionTime": now, "completionStatus": status}
        control.store.put(job.key, {**job.body, "latestCreatedExecution": reference})


def before_delete_execution(call: Call, row: Stored) -> None:
    """Raise Fault (400) for an execution that has not ended."""
    if "completionTime" not in row.body:
        raise Fault("FAILED_PRECONDITION", f"Execution '{call.path}' is running; cancel it first.")


def tasks(control: ControlPlane, parent: str) -> Mapping[str, Body]:
    """The tasks of an execution (a key): they follow from it."""
    row = control.store.get(parent)
    if row is None:
        return {}
    execution, name = row.body, parent.rsplit("/", 1)[1]
    shared = {field: execution[field] for field in _SHARED_WITH_TASKS if field in execution}
    return {
        f"{name}-task{index}": {
            **execution["template"],
            **shared,
            "name": f"{execution['name']}/tasks/{name}-task{index}",
            "execution": execution["name"],
            **({"index": index} if index else {}),
        }
        for index in range(execution["taskCount"])
    }
