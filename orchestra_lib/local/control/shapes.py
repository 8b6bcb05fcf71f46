"""What the documents alone tell about a kind of resource: its states, the fields that every service fills, its id."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from orchestra_lib.local.control.call import Call, digits
from orchestra_lib.local.control.catalog import Api, Method, Schema
from orchestra_lib.local.control.kinds import Body, Kind

States = tuple[str, str, str, str]
_CREATING = ("CREATING", "PROVISIONING", "PENDING")
_READY = ("READY", "ACTIVE", "ENABLED", "RUNNING", "AVAILABLE", "SUCCEEDED")
_UPDATING = ("UPDATING", "MAINTENANCE")
_DELETING = ("DELETING",)
_DELETED = ("DELETED", "DELETE_REQUESTED")
_NO_ID = frozenset({"requestId", "projectId", "parentId"})
FAILED = "FAILED"


def states(schema: Schema, kind: Kind) -> States | None:
    """The values of ``state`` while creating, when ready, while updating and while deleting; None without a state."""
    if kind.states:
        return kind.states
    known = schema.properties.get("state")
    if known is None or "enum" not in known.schema:
        return None
    ready = _first(schema, _READY)
    if ready is None:
        return None
    return (
        _first(schema, _CREATING) or ready,
        ready,
        _first(schema, _UPDATING) or ready,
        _first(schema, _DELETING) or ready,
    )


def deleted_state(schema: Schema) -> str | None:
    """What the ``state`` of a soft-deleted resource says."""
    return _first(schema, _DELETED)


def has_state(schema: Schema, name: str) -> bool:
    """Whether ``state`` can have the value."""
    return _first(schema, (name,)) is not None


def _first(schema: Schema, names: tuple[str, ...]) -> str | None:
    known = schema.properties.get("state")
    enum = known.schema.get("enum", ()) if known else ()
    return next((name for name in names if name in enum), None)


def stamp(call: Call, schema: Schema, key: str, body: Body, before: Body | None) -> None:
    """Fill what services fill for every resource: name, uid, times, generation, etag, as far as the schema has them."""
    kind, has = call.control.kind(key), schema.properties
    path = key.split("/", 1)[1]
    old = before or {}
    filled: dict[str, Any] = {}
    if "name" in has:
        filled["name"] = (
            path.rsplit("/", 1)[1]
            if kind.short_name
            else call.control.projects.numbered(path)
            if kind.number_in_name
            else path
        )
    if "uid" in has and kind.uid:
        filled["uid"] = old.get("uid") or str(uuid.uuid4())
    if "uniqueId" in has and has["uniqueId"].read_only:
        filled["uniqueId"] = old.get("uniqueId") or str(uuid.uuid4())
    if "createTime" in has:
        filled["createTime"] = old.get("createTime") or call.time
    if "updateTime" in has:
        filled["updateTime"] = call.time
    if "generation" in has and has["generation"].read_only:
        filled["generation"] = str(int(old.get("generation", 0)) + 1)
    if "creator" in has and has["creator"].read_only:
        filled["creator"] = old.get("creator") or call.caller
    if "lastModifier" in has:
        filled["lastModifier"] = call.caller
    body.update(filled)


def set_etag(schema: Schema, kind: Kind, body: Body) -> None:
    """Give a resource the etag of what it now holds, if its kind has one."""
    if kind.etag and "etag" in schema.properties:
        body["etag"] = etag_of(body)


def etag_of(body: Mapping[str, Any]) -> str:
    """An etag that depends on everything in the resource but its etag."""
    rest = {name: value for name, value in body.items() if name != "etag"}
    return base64.b64encode(hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).digest()[:12]).decode()


def resource_field(api: Api, message: str, resource: str) -> str | None:
    """The field of a request message that holds a resource."""
    fields = api.schema(message).properties
    return next((name for name, known in fields.items() if known.schema.get("$ref") == resource), None)


def list_field(api: Api, method: Method, resource: str | None) -> str | None:
    """The field of a list's answer that holds the resources."""
    if method.response is None:
        return None
    fields = {
        name: known.schema["items"]["$ref"]
        for name, known in api.schema(method.response).properties.items()
        if known.schema.get("type") == "array" and "$ref" in known.schema.get("items", {})
    }
    return next((name for name, reference in fields.items() if reference == resource), next(iter(fields), None))


def new_id(call: Call, kind: Kind, body: Body) -> str:
    """The id of a resource that is to be created: from the query, the row's rule, the body's name, or made up."""
    given = next((call.query[name] for name in id_parameters(call.method) if call.query.get(name)), None)
    if given:
        return given
    if kind.new_id:
        return kind.new_id(call, body)
    in_message = [value for name, value in (call.body or {}).items() if _is_id(name) and isinstance(value, str)]
    if in_message and call.body is not body and "name" not in body:
        return str(in_message[0])
    name = body.get("name")
    if isinstance(name, str) and name:
        return name.rsplit("/", 1)[-1]
    return digits(str(uuid.uuid4()), 19)


def id_parameters(method: Method) -> list[str]:
    """The query parameters that may hold a new resource's id, the likeliest first."""
    names = [name for name in method.query_parameters if _is_id(name)]
    collection = method.template[-1].lower()
    return sorted(names, key=lambda name: not collection.startswith(re.sub("y$", "", name[:-2].lower())))


def _is_id(name: str) -> bool:
    return name.endswith("Id") and name not in _NO_ID
