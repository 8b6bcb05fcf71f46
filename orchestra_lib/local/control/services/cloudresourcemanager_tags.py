"""Resource Manager's liens and tags. https://cloud.google.com/resource-manager/docs/tags/tags-overview"""

from __future__ import annotations

import uuid

from orchestra_lib.local.control.call import Call, digits
from orchestra_lib.local.control.faults import Fault, bad_field
from orchestra_lib.local.control.kinds import Body
from orchestra_lib.local.control.store import Stored

SERVICE_NAME = "cloudresourcemanager"
DENIED = "The caller does not have permission"
_TAG_ID_DIGITS = 15


def lien_id(call: Call, body: Body) -> str:
    """``p<project number>-l<uuid>``, as liens are named."""
    number = call.control.projects.number(
        call.control.projects.id(str(body.get("parent", "")).removeprefix("projects/"))
    )
    return f"p{number}-l{uuid.uuid4()}"


def check_lien(call: Call, body: Body, _before: Body | None) -> None:
    """Raise Fault for a lien on nothing (403) or without a restriction (400)."""
    parent = call.control.projects.normal(str(body.get("parent", "")))
    if call.control.find(f"{SERVICE_NAME}/{parent}") is None:
        raise Fault("PERMISSION_DENIED", DENIED)
    if not body.get("restrictions"):
        raise bad_field("restrictions", "A lien needs at least one restriction.")


def tag_id(_call: Call, _body: Body) -> str:
    """The number of a new tag key or value."""
    return digits(str(uuid.uuid4()), _TAG_ID_DIGITS)


def complete_tag(call: Call, body: Body, before: Body | None) -> None:
    """The name of a tag key or value with its owner's in front. Raises Fault for a parent that there is not."""
    if before is not None:
        return
    control = call.control
    parent = control.projects.normal(str(body.get("parent", "")))
    owner = control.find(f"{SERVICE_NAME}/{parent}")
    if owner is None:
        raise Fault("PERMISSION_DENIED", DENIED)
    prefix = owner.body.get("namespacedName") or parent.rsplit("/", 1)[1]
    body["namespacedName"] = f"{prefix}/{body['shortName']}"
    rows = control.rows_in(call.key)
    if any(row.body.get("namespacedName") == body["namespacedName"] for row in rows):
        raise Fault("ALREADY_EXISTS", f"A tag '{body['namespacedName']}' already exists.")


def refuse_key_with_values(call: Call, row: Stored) -> None:
    """Raise Fault (400) for the delete of a tag key that has values."""
    name = row.key.split("/", 1)[1]
    if any(value.body.get("parent") == name for value in call.control.rows_in(f"{SERVICE_NAME}/tagValues")):
        raise Fault("FAILED_PRECONDITION", f"Cannot delete {name}: it still has tag values.")


def namespaced(call: Call) -> Body:
    """The tag key or value of a namespaced name. Raises Fault (403) when there is none."""
    wanted, collection = call.query.get("name", ""), call.path.split("/", 1)[0]
    for row in call.control.rows_in(f"{SERVICE_NAME}/{collection}"):
        if row.body.get("namespacedName") == wanted:
            return call.control.shown(call.api, row.key, row.body)
    raise Fault("PERMISSION_DENIED", DENIED)
