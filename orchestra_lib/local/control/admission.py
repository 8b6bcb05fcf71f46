"""Whether a call may be made at all: project and place exist, the service is enabled, the caller is permitted."""

from __future__ import annotations

from orchestra_lib.local.control import faults, places
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault


def check(call: Call) -> None:
    """Raise Fault (403, or compute's 404) for a call that is not let in."""
    project = call.project
    if project and not call.rows.not_in_projects:
        _check_project(call, project)
    _check_place(call)
    permission = call.rows.permissions.get(call.method.short_id, call.method.permission)
    if call.control.injected.lacks(call.caller, permission, call.path):
        raise faults.permission_denied(permission, call.service, call.path)


def _check_place(call: Call) -> None:
    """A place that there is not. Compute and the newer services say it in their own way."""
    for word, known in (("locations", places.LOCATIONS), ("regions", places.REGIONS), ("zones", places.ALL_ZONES)):
        parts = call.segments
        if word not in parts[:-1]:
            continue
        name = parts[parts.index(word) + 1]
        if name in known or name == "-":
            continue
        if call.service == "compute" and parts[-2] != word:
            field = word.removesuffix("s")
            raise Fault("INVALID_ARGUMENT", f"Invalid value for field '{field}': '{name}'. Unknown {field}.")
        if call.service != "compute":
            raise Fault("PERMISSION_DENIED", f"Location {name} is not found or access is unauthorized.")


def _check_project(call: Call, project: str) -> None:
    control = call.control
    if not control.projects.exists(project):
        if call.service == "compute":
            raise Fault("NOT_FOUND", f"The resource 'projects/{project}' was not found")
        raise faults.unknown_project(call.service, project)
    if control.injected.disabled(project, call.service) or not control.projects.enabled(project, call.service):
        raise faults.service_disabled(call.api.host, call.api.title, control.projects.number(project))
