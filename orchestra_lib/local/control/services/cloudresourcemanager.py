"""Resource Manager: projects, folders, the organisation. https://cloud.google.com/resource-manager/reference/rest

Projects are kept as version 3 writes them; version 1 is a view of that.
"""

from __future__ import annotations

from typing import Any

from orchestra_lib.local.control import checks, operations
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Kind, Service
from orchestra_lib.local.control.operation_styles import bare
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.projects import COLLECTION

_PROJECT_ID = "[a-z][a-z0-9-]{4,28}[a-z0-9]"
_DENIED = "The caller does not have permission"
_TYPES = {"organization": "organizations", "folder": "folders"}


def _metadata(_control: Any, record: Record) -> dict[str, Any]:
    verb, noun = record["method"].rsplit(".", 1)[1], record["type"].rsplit(".", 1)[1]
    word = {"patch": "Update", "undelete": "Undelete"}.get(verb, verb.capitalize())
    if record["short_id"] == "projects.create" and record["version"] == "v1":
        ready = record["ended"] is not None
        name = "type.googleapis.com/google.cloudresourcemanager.v1.ProjectCreationStatus"
        return {"@type": name, "createTime": timestamp(record["started"]), "gettable": ready, "ready": ready}
    return {"@type": f"{record['type'].rsplit('.', 1)[0]}.{word}{noun}Metadata"}


def _shown_project(control: Any, key: str, version: str, body: Body) -> Body:
    identifier = key.rsplit("/", 1)[1]
    number = control.projects.number(identifier)
    if version != "v1":
        return {**body, "name": f"projects/{number}"}
    kind, _, owner = str(body.get("parent", "")).partition("/")
    shown = {"projectNumber": number, "projectId": identifier, "lifecycleState": body["state"]}
    shown |= {name: body[name] for name in ("createTime", "labels") if name in body}
    shown["name"] = body.get("displayName", identifier)
    if owner:
        shown["parent"] = {"type": kind.removesuffix("s"), "id": owner}
    return shown


def _canonical(call: Call) -> Body:
    """A project in a request as version 3 writes it."""
    given: Body = dict(call.body)
    if call.api.version != "v1":
        return given
    result: Body = {name: given[name] for name in ("projectId", "labels") if name in given}
    if "name" in given:
        result["displayName"] = given["name"]
    parent = given.get("parent")
    if parent:
        result["parent"] = f"{_TYPES.get(parent.get('type', ''), parent.get('type', ''))}/{parent.get('id', '')}"
    return result


def _create_project(call: Call) -> Body:
    given = _canonical(call)
    project_id = str(given.get("projectId", ""))
    if not checks.matches(_PROJECT_ID, project_id):
        raise bad_field(
            "project_id", f"project_id contains invalid characters or has an invalid length: '{project_id}'"
        )
    control = call.control
    if control.projects.exists(project_id):
        raise Fault("ALREADY_EXISTS", "Requested entity already exists")
    control.projects.create(project_id, call.now, parent=given.get("parent"))
    key = f"{COLLECTION}/{project_id}"
    row = control.store.get(key)
    if row:
        control.store.put(key, {**row.body, **given})
    return operations.start(call, key, "create", message_type=_message_type(call), effect="none")


def _message_type(call: Call) -> str:
    name = "google.cloudresourcemanager.v1" if call.api.version == "v1" else "google.cloud.resourcemanager.v3"
    return f"type.googleapis.com/{name}.Project"


def _get_project(call: Call) -> Body:
    row = call.control.find(call.key, even_deleted=True)
    if row is None:
        raise Fault("PERMISSION_DENIED", _DENIED)
    return call.control.shown(call.api, row.key, row.body, enums_as_numbers=call.enums_as_numbers)


def _update_project(call: Call) -> Body:
    row = call.control.find(call.key)
    if row is None:
        raise Fault("PERMISSION_DENIED", _DENIED)
    kept = {name: value for name, value in row.body.items() if name not in ("labels", "displayName")}
    call.control.store.put(row.key, {**kept, **_canonical(call), "updateTime": call.time})
    return _get_project(call)


def _delete_project(call: Call) -> Body:
    row = call.control.find(call.key)
    if row is None:
        raise Fault("PERMISSION_DENIED", _DENIED)
    body = {**row.body, "state": "DELETE_REQUESTED", "deleteTime": call.time}
    call.control.store.put(row.key, body)
    call.control.store.mark_deleted(row.key, call.now)
    if not call.method.is_operation:
        return {}
    return operations.start(call, row.key, "delete", message_type=_message_type(call), effect="none", ended=True)


def _organizations(control: Any, _parent: str) -> dict[str, Body]:
    own = control.organization
    return {own.id: {"name": f"organizations/{own.id}", "displayName": own.display_name, "state": "ACTIVE"}}


SERVICE = Service(
    name="cloudresourcemanager",
    kinds=(
        Kind("projects", show=_shown_project, soft_delete="DELETE_REQUESTED", not_found=_DENIED),
        Kind("folders", soft_delete="DELETE_REQUESTED", not_found=_DENIED),
        Kind("organizations", built_in=_organizations, not_found=_DENIED),
    ),
    methods={
        "projects.create": _create_project,
        "projects.get": _get_project,
        "projects.update": _update_project,
        "projects.delete": _delete_project,
    },
    operations=Style(bare(""), _metadata, first_is_bare=True),
    not_in_projects=True,
)
