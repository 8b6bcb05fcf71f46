"""Metrics scopes: which projects are monitored from which. https://cloud.google.com/monitoring/settings/multiple-projects

A project's scope holds the project itself; what was added is kept below ``locations/global/metricsScopes/<project>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestra_lib.local.control import operations
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body, Handler, not_found
from orchestra_lib.local.control.operations import Record

_SCOPES = "locations/global/metricsScopes"
_MESSAGES = "type.googleapis.com/google.monitoring.metricsscope.v1"


def one_path(control: Any, path: str) -> str:
    """Metrics scopes are named by the id or the number of their project."""
    if not path.startswith(f"{_SCOPES}/"):
        return path
    parts = path.split("/")
    for position in (3, 5):
        if position < len(parts):
            parts[position] = _project(control, parts[position])
    return "/".join(parts)


def _project(control: Any, named: str) -> str:
    known: str = control.projects.adopt(named, control.clock()) if control.permissive else control.projects.id(named)
    return known


def _monitored(control: Any, scope: str, project: str, at: str) -> Body:
    number = control.projects.number
    return {"name": f"{_SCOPES}/{number(scope)}/projects/{number(project)}", "createTime": at}


def _scope(control: Any, project: str) -> Body:
    """The scope of a project: itself and what was added. Raises Fault when there is no such project."""
    row = control.find(f"cloudresourcemanager/projects/{project}")
    if row is None:
        raise Fault("PERMISSION_DENIED", f"Permission denied on resource project {project}.")
    born = row.body["createTime"]
    added = control.rows_in(f"monitoring/{_SCOPES}/{project}/projects")
    return {
        "name": f"{_SCOPES}/{control.projects.number(project)}",
        "createTime": born,
        "updateTime": max([born, *(other.body["createTime"] for other in added)]),
        "monitoredProjects": [
            _monitored(control, project, project, born),
            *(_monitored(control, project, other.key.rsplit("/", 1)[1], other.body["createTime"]) for other in added),
        ],
    }


def _get_scope(call: Call) -> Body:
    return _scope(call.control, call.segments[3])


def _add_to_scope(call: Call) -> Body:
    scope = call.segments[3]
    project = _project(call.control, str(call.body.get("name", "")).rsplit("/", 1)[-1])
    _scope(call.control, scope)
    _scope(call.control, project)
    key = f"{call.key}/{project}"
    if call.control.find(key) or project == scope:
        raise Fault("ALREADY_EXISTS", f"Project {project} is already monitored by {_SCOPES}/{scope}.")
    call.control.store.put(key, {"createTime": call.time})
    answer = {"@type": f"{_MESSAGES}.MonitoredProject"}
    answer |= _monitored(call.control, scope, project, call.time)
    return _scope_operation(call, key, "create", answer)


def _remove_from_scope(call: Call) -> Body:
    if call.control.find(call.key) is None:
        raise not_found(call.control, call.key)
    call.control.store.remove(call.key)
    return _scope_operation(call, call.key, "delete", operations.EMPTY)


def _scope_operation(call: Call, key: str, verb: str, answer: Body) -> Body:
    kind = f"{_MESSAGES}.MonitoredProject"
    return operations.start(call, key, verb, message_type=kind, effect="none", answer=answer, ended=True)


def _scopes_of_project(call: Call) -> Body:
    """The scopes that monitor a project: its own, and those that it was added to."""
    named = call.query.get("monitoredResourceContainer", "").removeprefix("projects/")
    project = _project(call.control, named)
    others = {
        row.key.split("/")[4]
        for row in call.control.store.below(f"monitoring/{_SCOPES}/", "monitoring/projects")
        if row.key.rsplit("/", 1)[1] == project
    }
    return {"metricsScopes": [_scope(call.control, scope) for scope in (project, *sorted(others))]}


def metadata(_control: Any, record: Record) -> Body:
    at = timestamp(record["started"])
    return {
        "@type": f"{_MESSAGES}.OperationMetadata",
        "createTime": at,
        "state": "DONE" if record["ended"] is not None else "RUNNING",
        "updateTime": at,
    }


METHODS: Mapping[str, Handler] = {
    "metricsScopes.get": _get_scope,
    "metricsScopes.listMetricsScopesByMonitoredProject": _scopes_of_project,
    "monitoring.locations.global.metricsScopes.projects.create": _add_to_scope,
    "monitoring.locations.global.metricsScopes.projects.delete": _remove_from_scope,
}
"""Handlers by id."""
