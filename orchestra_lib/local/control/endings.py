"""How changes end: a resource becomes ready, goes, or stays as a failed operation leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestra_lib.local.control import operations, references, shapes
from orchestra_lib.local.control.call import timestamp
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body, not_found, worded

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

SOFT_DELETED_FOR_SECONDS = 30 * 24 * 3600


def finish(control: ControlPlane, record: operations.Record) -> None:
    """The end of a create or an update: the resource is ready."""
    row = control.find(record["target"])
    if row is None:
        raise not_found(control, record["target"])
    make_ready(control, record["version"], record["target"], dict(record["after"] or row.body))


def delete_in_operation(control: ControlPlane, record: operations.Record) -> None:
    """The end of a delete."""
    if control.kind(record["target"]).in_use == "operation":
        refuse_in_use(control, record["target"])
    remove(control, record["target"], record["due"])


def nothing(_control: ControlPlane, _record: operations.Record) -> None:
    """The end of an operation that changes nothing more."""


def failed(control: ControlPlane, record: operations.Record) -> None:
    """What a failed operation leaves: no new resource (or one in state FAILED), else the resource as it was.

    A resource whose delete failed stays in its state of being deleted, as AlloyDB was seen to leave it; compute's
    goes on as before.
    """
    key, row = record["target"], control.store.get(record["target"])
    api = control.catalog.apis[record["service"], record["version"]]
    if row is None or record["effect"] == "none":
        return
    kind = control.kind(key)
    if kind.fail and record["verb"] not in ("delete", "undelete"):
        kind.fail(control, record)
        return
    body = {field: value for field, value in row.body.items() if field != "reconciling"}
    if record["verb"] in ("create", "insert"):
        if not shapes.has_state(control.schema(api, key), shapes.FAILED):
            control.store.remove(key)
            return
        body["state"] = shapes.FAILED
    elif record["effect"] == "finish" and "state" in body and (states := shapes.states(control.schema(api, key), kind)):
        body["state"] = states[1]
    control.store.put(key, body)


def make_ready(control: ControlPlane, version: str, key: str, body: Body) -> None:
    """Keep a body as that of a resource at which nothing is being done."""
    kind = control.kind(key)
    schema = control.schema(control.catalog.apis[key.split("/", 1)[0], version], key)
    states = shapes.states(schema, kind)
    if states:
        body["state"] = states[1]
    body.pop("reconciling", None)
    if "observedGeneration" in schema.properties and "generation" in body:
        body["observedGeneration"] = body["generation"]
    if kind.finish:
        kind.finish(control, key, body)
    shapes.set_etag(schema, kind, body)
    control.store.put(key, body)


def remove(control: ControlPlane, key: str, now: float) -> Body:
    """Carry out a delete; returns the last state of the resource."""
    state = soft_deleted_state(control, key)
    row = control.find(key)
    if row is None:
        return {}
    if not state:
        control.store.remove(key)
        return row.body
    body = {**row.body}
    api = control.api_of(key)
    properties = control.schema(api, key).properties if api else {}
    if "state" in properties:
        body["state"] = state
    if "deleted" in properties:
        body["deleted"] = True
    for name, at in (("deleteTime", now), ("expireTime", now + SOFT_DELETED_FOR_SECONDS)):
        if name in properties and properties[name].read_only:
            body[name] = timestamp(at)
    body.pop("reconciling", None)
    control.store.put(key, body)
    control.store.mark_deleted(key, now)
    return body


def refuse_in_use(control: ControlPlane, key: str) -> None:
    """Raise Fault when another resource refers to this one."""
    user = next(references.users_of(control, key), None)
    if user:
        words = worded(control, control.kind(key).in_use_words, key, user=user.split("/", 1)[1])
        raise Fault("FAILED_PRECONDITION", words, reason="resourceInUseByAnotherResource")


def soft_deleted_state(control: ControlPlane, key: str) -> str | None:
    """The ``state`` of a deleted resource that is still shown; None when a deleted one is gone."""
    kind = control.kind(key)
    if kind.soft_delete is not None:
        return kind.soft_delete
    service, _, path = key.partition("/")
    api = control.api_of(key)
    found = control.catalog.find(service, "POST", (*api.prefix, *(path + ":undelete").split("/"))) if api else None
    return (shapes.deleted_state(control.schema(found[0].api, key)) or "DELETED") if found else None


EFFECTS = {"finish": finish, "delete": delete_in_operation, "none": nothing}
