"""Whether a call may be made at all: the project exists, the service is enabled there, the caller is permitted."""

from __future__ import annotations

from orchestra_lib.local.control import faults
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault


def check(call: Call) -> None:
    """Raise Fault (403, or compute's 404) for a call that is not let in."""
    project = call.project
    if project and not call.rows.not_in_projects:
        _check_project(call, project)
    permission = call.rows.permissions.get(call.method.short_id, call.method.permission)
    if call.control.injected.lacks(call.caller, permission, call.path):
        raise faults.permission_denied(permission, call.service, call.path)


def _check_project(call: Call, project: str) -> None:
    control = call.control
    if not control.projects.exists(project):
        if call.service == "compute":
            raise Fault("NOT_FOUND", f"The resource 'projects/{project}' was not found")
        raise faults.unknown_project(call.service, project)
    if control.injected.disabled(project, call.service) or not control.projects.enabled(project, call.service):
        raise faults.service_disabled(call.api.host, call.api.title, control.projects.number(project))
