"""Resource Manager: projects, folders, the organisation. https://cloud.google.com/resource-manager/reference/rest

Projects are kept as version 3 writes them; version 1 is a view of that. What does not exist is answered like what the
caller may not see: 403.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from orchestra_lib.local.control import checks, filters, operations, shapes, standard
from orchestra_lib.local.control.call import Call, digits, timestamp
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body, Handler, Kind, Service
from orchestra_lib.local.control.operation_styles import bare
from orchestra_lib.local.control.operations import Record, Style
from orchestra_lib.local.control.pages import page
from orchestra_lib.local.control.projects import COLLECTION
from orchestra_lib.local.control.services import cloudresourcemanager_tags as tags
from orchestra_lib.local.control.services.cloudresourcemanager_tags import DENIED, SERVICE_NAME
from orchestra_lib.local.control.store import Stored

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_PROJECT_ID = "[a-z][a-z0-9-]{4,28}[a-z0-9]"
_FOLDER_NAME = r"[^\W_](?:[\w -]{1,28}[^\W_])"
_TYPES = {"organization": "organizations", "folder": "folders"}
_FOLDER_ID_DIGITS = 12
_DELETED = "DELETE_REQUESTED"
_DELETE_PERMISSION = "resourcemanager.projects.delete"


# --- operations ---------------------------------------------------------------------------------------------------


def _metadata(_control: ControlPlane, record: Record) -> Body | None:
    """What an operation says of itself; the first answer to a create is its name alone."""
    verb, ready = record["method"].rsplit(".", 1)[1], record["ended"] is not None
    package, noun = record["type"].rsplit(".", 1)
    if verb == "create" and not ready:
        return None
    if record["short_id"] == "projects.create" and record["version"] == "v1":
        name = "type.googleapis.com/google.cloudresourcemanager.v1.ProjectCreationStatus"
        return {"@type": name, "createTime": timestamp(record["started"]), "gettable": ready, "ready": ready}
    word = {"patch": "Update"}.get(verb, verb.capitalize())
    return {"@type": f"{package}.{word}{noun}Metadata"}


def _message_type(call: Call, noun: str) -> str:
    package = "google.cloudresourcemanager.v1" if call.api.version == "v1" else "google.cloud.resourcemanager.v3"
    return f"type.googleapis.com/{package}.{noun}"


def _changed(call: Call, row: Stored, body: Body, noun: str, verb: str) -> Body:
    """Keep a new body of a project or folder and answer as the method does: with it, or with an operation."""
    body = {**body, "updateTime": call.time}
    if "etag" in body:
        body["etag"] = shapes.etag_of(body)
    call.control.store.put(row.key, body)
    if not call.method.is_operation:
        return call.control.shown(call.api, row.key, body) if call.method.response == noun else {}
    return operations.start(call, row.key, verb, message_type=_message_type(call, noun), effect="none")


# --- what is there ------------------------------------------------------------------------------------------------


def _row(call: Call) -> Stored:
    row = call.control.find(call.key, even_deleted=True)
    if row is None:
        raise Fault("PERMISSION_DENIED", DENIED)
    return row


def _seen(handler: Handler) -> Handler:
    """The handler, for what exists; anything else is denied."""

    def handle(call: Call) -> Body:
        _row(call)
        return handler(call)

    return handle


def _get(call: Call) -> Body:
    row = _row(call)
    return call.control.shown(call.api, row.key, row.body, enums_as_numbers=call.enums_as_numbers)


def _require_parent(call: Call, parent: str) -> None:
    """Raise Fault (403) for a parent that there is not. In the permissive mode, a folder exists when it is named."""
    control, key = call.control, f"{SERVICE_NAME}/{parent}"
    kind, _, identifier = parent.partition("/")
    if kind not in _TYPES.values() or not identifier:
        raise bad_field("parent", f"parent '{parent}' has to be folders/ID or organizations/ID.")
    if control.find(key) is not None:
        return
    if not control.permissive:
        raise Fault("PERMISSION_DENIED", DENIED)
    if kind == "folders":
        own = f"organizations/{control.organization.id}"
        body = {"name": parent, "displayName": identifier, "parent": own, "state": "ACTIVE", "createTime": call.time}
        body["updateTime"] = call.time
        control.store.put(key, {**body, "etag": shapes.etag_of(body)})


def _children(control: ControlPlane, parent: str) -> list[Stored]:
    """The active projects and folders below a folder or the organisation."""
    rows = [*control.rows_in(COLLECTION), *control.rows_in(f"{SERVICE_NAME}/folders")]
    return [row for row in rows if row.body.get("parent") == parent and row.body.get("state") == "ACTIVE"]


def _listed(call: Call, rows: list[Stored]) -> Body:
    """One page of resources, in the field of the method's answer that holds such."""
    collection = call.path.split("/", 1)[0]
    resource = call.control.catalog.resource_schema(call.api, f"{collection}/any")
    field = shapes.list_field(call.api, call.method, resource)
    query = {**call.query, **{k: str(v) for k, v in (call.body or {}).items() if isinstance(v, str | int)}}
    part, token = page([call.control.shown(call.api, row.key, row.body) for row in rows], query)
    answer: Body = {str(field): part} if part else {}
    return {**answer, "nextPageToken": token} if token else answer


def _list_below(call: Call) -> Body:
    """The resources of the collection below the parent that the query names."""
    parent = call.query.get("parent", "")
    if not parent:
        raise bad_field("parent", "parent is required.")
    parent = call.control.projects.normal(parent)
    rows = call.control.rows_in(call.key, even_deleted=call.flag("showDeleted"))
    return _listed(call, [row for row in rows if call.control.projects.normal(row.body.get("parent", "")) == parent])


def _search(call: Call) -> Body:
    """The resources of the collection that match a query, or version 1's filter."""
    body = call.body or {}
    text = call.query.get("query") or call.query.get("filter") or body.get("filter", "")
    matches = filters.compiled(text)
    rows = call.control.rows_in(f"{SERVICE_NAME}/{call.path.partition(':')[0]}", even_deleted="state" in text.lower())
    return _listed(call, [row for row in rows if matches(_searchable(call, row))])


def _searchable(call: Call, row: Stored) -> Body:
    """What filters may speak of: the resource in the version of the call, its state, its number."""
    shown = call.control.shown(call.api, row.key, row.body)
    state = {"state": row.body.get("state"), "lifecycleState": row.body.get("state")}
    return {**shown, **state, "id": shown.get("projectId"), "displayName": row.body.get("displayName")}


# --- projects -----------------------------------------------------------------------------------------------------


def _shown_project(control: ControlPlane, key: str, version: str, body: Body) -> Body:
    identifier = key.rsplit("/", 1)[1]
    number = control.projects.number(identifier)
    if version != "v1":
        return {**body, "name": f"projects/{number}", "etag": shapes.etag_of(body)}
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
    project_id, control = str(given.get("projectId", "")), call.control
    if not checks.matches(_PROJECT_ID, project_id):
        words = f"project_id contains invalid characters or has an invalid length: '{project_id}'"
        raise bad_field("project_id", words)
    if control.projects.exists(project_id):
        raise Fault("ALREADY_EXISTS", "Requested entity already exists")
    if "parent" in given:
        _require_parent(call, given["parent"])
    control.projects.create(project_id, call.now, parent=given.get("parent"))
    key = f"{COLLECTION}/{project_id}"
    row = control.store.get(key)
    if row:
        control.store.put(key, {**row.body, **given})
    owner = {"version": 1, "bindings": [{"role": "roles/owner", "members": [_member(call.caller)]}]}
    control.store.put_policy(key, {**owner, "etag": shapes.etag_of(owner)})
    return operations.start(call, key, "create", message_type=_message_type(call, "Project"), effect="none")


def _member(email: str) -> str:
    """How a policy names an account."""
    return f"{'serviceAccount' if email.endswith('.gserviceaccount.com') else 'user'}:{email}"


def _list_projects(call: Call) -> Body:
    """Version 1 lists what a filter matches, version 3 what lies below a parent."""
    return _search(call) if call.api.version == "v1" else _list_below(call)


def _update_project(call: Call) -> Body:
    """PUT of version 1: name and labels are what was given, or go; another parent moves the project."""
    row, given = _row(call), _canonical(call)
    if "parent" in given and given["parent"] != row.body.get("parent"):
        _require_parent(call, given["parent"])
    kept = {name: value for name, value in row.body.items() if name not in ("labels", "displayName")}
    return _changed(call, row, {**kept, **given, "projectId": row.body["projectId"]}, "Project", "update")


def _delete_project(call: Call) -> Body:
    row, control = _row(call), call.control
    if row.deleted_at is not None:
        raise Fault("FAILED_PRECONDITION", "The project is not active: its deletion was requested before.")
    for lien in control.rows_in(f"{SERVICE_NAME}/liens"):
        holds = control.projects.normal(lien.body.get("parent", "")) == call.path
        if holds and _DELETE_PERMISSION in lien.body.get("restrictions", ()):
            words = f"A lien to prevent deletion was placed on the project by [{lien.body.get('origin', '')}]."
            raise Fault("FAILED_PRECONDITION", f"{words} Remove the lien to allow deletion.")
    return _mark_deleted(call, row, "Project")


def _mark_deleted(call: Call, row: Stored, noun: str) -> Body:
    body = {**row.body, "state": _DELETED, "deleteTime": call.time}
    call.control.store.put(row.key, body)
    call.control.store.mark_deleted(row.key, call.now)
    if not call.method.is_operation:
        return {}
    return operations.start(call, row.key, "delete", message_type=_message_type(call, noun), effect="none", ended=True)


def _undelete(noun: str) -> Handler:
    def handler(call: Call) -> Body:
        row = _row(call)
        if row.deleted_at is None:
            raise Fault("FAILED_PRECONDITION", f"The {noun.lower()} is active: there is no deletion to take back.")
        body = {name: value for name, value in row.body.items() if name != "deleteTime"}
        return _changed(call, row, {**body, "state": "ACTIVE"}, noun, "undelete")

    return handler


def _move(noun: str) -> Handler:
    def handler(call: Call) -> Body:
        row, target = _row(call), str(call.body.get("destinationParent", ""))
        _require_parent(call, target)
        if call.path in _lineage(call.control, target):
            raise Fault("FAILED_PRECONDITION", f"{call.path} cannot be moved below itself.")
        return _changed(call, row, {**row.body, "parent": target}, noun, "move")

    return handler


def _lineage(control: ControlPlane, name: str) -> list[str]:
    """A resource and those above it, up to the organisation."""
    found: list[str] = []
    while name and name not in found:
        found.append(name)
        row = control.find(f"{SERVICE_NAME}/{name}")
        name = str(row.body.get("parent", "")) if row else ""
    return found


def _ancestry(call: Call) -> Body:
    _row(call)
    parts = [name.split("/") for name in _lineage(call.control, call.path)]
    return {
        "ancestor": [{"resourceId": {"type": kind.removesuffix("s"), "id": identifier}} for kind, identifier in parts]
    }


# --- folders and the organisation ---------------------------------------------------------------------------------


def _create_folder(call: Call) -> Body:
    parent, name = str(call.body.get("parent", "")), str(call.body.get("displayName", ""))
    _require_parent(call, parent)
    if not checks.matches(_FOLDER_NAME, name):
        raise bad_field("display_name", f"display_name contains invalid characters or has an invalid length: '{name}'")
    siblings = _children(call.control, parent)
    if any(row.body.get("displayName") == name and "/folders/" in row.key for row in siblings):
        raise Fault("FAILED_PRECONDITION", f"There is already a folder '{name}' below {parent}.")
    identifier = digits(str(uuid.uuid4()), _FOLDER_ID_DIGITS)
    return standard.create_at(call, f"{call.key}/{identifier}", dict(call.body))


def _delete_folder(call: Call) -> Body:
    row = _row(call)
    if _children(call.control, call.path):
        raise Fault("FAILED_PRECONDITION", "The folder has active projects or folders. Delete or move them first.")
    return _mark_deleted(call, row, "Folder")


def _organizations(control: ControlPlane, _parent: str) -> dict[str, Body]:
    own = control.organization
    return {own.id: {"name": f"organizations/{own.id}", "displayName": own.display_name, "state": "ACTIVE"}}


def _shown_organization(_control: ControlPlane, _key: str, version: str, body: Body) -> Body:
    return {**body, "lifecycleState": body["state"]} if version == "v1" else body


_FOLDER_METHODS = {
    "folders.create": _create_folder,
    "folders.get": _get,
    "folders.list": _list_below,
    "folders.search": _search,
    "folders.patch": _seen(standard.update),
    "folders.move": _move("Folder"),
    "folders.delete": _delete_folder,
    "folders.undelete": _undelete("Folder"),
}
_PROJECT_METHODS = {
    "projects.create": _create_project,
    "projects.get": _get,
    "projects.list": _list_projects,
    "projects.search": _search,
    "projects.update": _update_project,
    "projects.patch": _seen(standard.update),
    "projects.move": _move("Project"),
    "projects.delete": _delete_project,
    "projects.undelete": _undelete("Project"),
    "projects.getAncestry": _ancestry,
}
_OTHER_METHODS = {
    "organizations.get": _get,
    "organizations.search": _search,
    "liens.list": _list_below,
    "tagKeys.list": _list_below,
    "tagValues.list": _list_below,
    "tagKeys.getNamespaced": tags.namespaced,
    "tagValues.getNamespaced": tags.namespaced,
}

SERVICE = Service(
    name=SERVICE_NAME,
    kinds=(
        Kind("projects", show=_shown_project, soft_delete=_DELETED, not_found=DENIED),
        Kind("folders", soft_delete=_DELETED, not_found=DENIED),
        Kind("organizations", built_in=_organizations, show=_shown_organization, not_found=DENIED),
        Kind("liens", new_id=tags.lien_id, check=tags.check_lien, not_found=DENIED),
        Kind(
            "tagKeys",
            new_id=tags.tag_id,
            fill=tags.complete_tag,
            before_delete=tags.refuse_key_with_values,
            not_found=DENIED,
        ),
        Kind("tagValues", new_id=tags.tag_id, fill=tags.complete_tag, not_found=DENIED),
    ),
    methods={**_FOLDER_METHODS, **_PROJECT_METHODS, **_OTHER_METHODS},
    operations=Style(bare(""), _metadata),
    not_in_projects=True,
)
