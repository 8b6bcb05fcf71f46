"""The methods that all services share: create, get, list, update, delete, undelete. https://google.aip.dev/130

Each takes a :class:`Call` inside the request's transaction and returns the answer's body. What differs between
resources comes from the document and from the row of their :class:`Kind`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control import (
    checks,
    constraints,
    endings,
    filters,
    masks,
    operation_styles,
    operations,
    places,
    references,
    shapes,
)
from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.catalog import Schema
from orchestra_lib.local.control.faults import Fault, bad_field, bad_id
from orchestra_lib.local.control.kinds import Body, Kind, already_exists, fill_missing, not_found, worded
from orchestra_lib.local.control.pages import page
from orchestra_lib.local.control.store import Stored

if TYPE_CHECKING:
    pass

_PLACES = frozenset({"projects", "locations", "regions", "zones", "global", "organizations", "folders"})
_SCOPES = (
    ("global",),
    tuple(f"regions/{name}" for name in places.REGIONS),
    tuple(f"zones/{name}" for name in sorted(places.ALL_ZONES)),
)


# --- create -------------------------------------------------------------------------------------------------------


def create(call: Call) -> Body:
    """A new resource in the collection of the path."""
    kind = call.control.kind(f"{call.key}/new")
    body = _resource_in(call, f"{call.key}/new")
    identifier = shapes.new_id(call, kind, body)
    if kind.id_pattern and not checks.matches(kind.id_pattern, identifier):
        raise bad_id(call.service, identifier, kind.id_pattern)
    _require_parent(call)
    return create_at(call, f"{call.key}/{identifier}", body)


def create_at(call: Call, key: str, body: Body) -> Body:
    """A new resource at a key, for methods that create in their own way. Returns the answer of the call."""
    control, kind = call.control, call.control.kind(key)
    if control.find(key, even_deleted=True):
        raise already_exists(control, key)
    schema = control.schema(call.api, key)
    checks.require(call.api, schema.name, body, kind.optional, call.method.id)
    body = checks.writable(call.api, schema.name, body)
    _admit(call, key, kind, body, None)
    constraints.check_quota(call, key)
    if call.validate_only:
        return _validated(call, key, schema, body)
    states = shapes.states(schema, kind)
    if call.method.is_operation:
        if states:
            body["state"] = states[0]
        if "reconciling" in schema.properties and not kind.operation_done:
            body["reconciling"] = True
        control.store.put(key, body)
        return _operation(call, key, schema, "create", "finish", ended=kind.operation_done)
    control.store.put(key, body)
    endings.make_ready(control, call.api.version, key, body)
    return control.shown(call.api, key, body, enums_as_numbers=call.enums_as_numbers)


def _admit(call: Call, key: str, kind: Kind, body: Body, before: Body | None) -> None:
    """Check a body that is to be kept and complete it."""
    project = call.project
    references.require_existing(call.control, kind, body, before, project)
    constraints.check_policies(call, key, body)
    if kind.check:
        kind.check(call, body, before)
    fill_missing(body, kind.defaults)
    shapes.stamp(call, call.control.schema(call.api, key), key, body, before)
    if call.rows.stamp:
        call.rows.stamp(call, key, body, before)
    if kind.fill:
        kind.fill(call, body, before)
    shapes.set_etag(call.control.schema(call.api, key), kind, body)


def _resource_in(call: Call, key: str) -> Body:
    """The resource in the request, which is the body or, in a request message, the field of its type."""
    body: Body = dict(call.body or {})
    schema = call.control.schema(call.api, key)
    if call.method.request in (None, schema.name):
        return body
    field = shapes.resource_field(call.api, str(call.method.request), schema.name)
    return dict(body.get(field) or {}) if field else body


def _require_parent(call: Call) -> None:
    parent_path = call.path.rpartition("/")[0]
    collection = parent_path.split("/")[-2:-1]
    if not parent_path or not collection or collection[0] in _PLACES:
        return
    if call.control.catalog.creates(call.api, parent_path.rpartition("/")[0]):
        parent = f"{call.service}/{parent_path}"
        if call.control.find(parent) is None:
            raise not_found(call.control, parent)


# --- get and list -------------------------------------------------------------------------------------------------


def get(call: Call) -> Body:
    """The resource at the path; a soft-deleted one too, where the service still shows it."""
    row = call.control.find(call.key, even_deleted=True)
    if row is None or (row.deleted_at is not None and endings.soft_deleted_state(call.control, call.key) is None):
        raise not_found(call.control, call.key)
    return call.control.shown(call.api, row.key, row.body, enums_as_numbers=call.enums_as_numbers)


def list_(call: Call) -> Body:
    """One page of the collection of the path, filtered and ordered as asked."""
    rows = call.control.rows_in(call.key, even_deleted=call.flag("showDeleted"))
    shown, token = page(_chosen(call, rows), call.query)
    resource = call.control.catalog.resource_schema(call.api, f"{call.path}/any")
    field = shapes.list_field(call.api, call.method, resource)
    if field is None:
        raise unsupported(call)
    if call.enums_as_numbers and resource:
        shown = [checks.shown(call.api, resource, body, enums_as_numbers=True) for body in shown]
    answer = _list_header(call)
    if shown:
        answer[field] = shown
    if token:
        answer["nextPageToken"] = token
    return answer


def _list_header(call: Call) -> Body:
    """What a list of the older APIs says of itself."""
    properties = call.api.schema(str(call.method.response)).properties
    kind = properties["kind"].schema.get("default") if "kind" in properties else None
    if kind is None:
        return {}
    header: Body = {"kind": kind}
    if "id" in properties:
        header["id"] = call.path
    if "selfLink" in properties:
        header["selfLink"] = f"{operation_styles.COMPUTE_BASE}/{call.path}"
    return header


def aggregated_list(call: Call) -> Body:
    """Compute: the resources of a project by region or zone, with those that are global; every place is named."""
    project, collection = f"projects/{call.project}", call.segments[-1]
    scopes: dict[str, Body] = {}
    for scope in _scopes(call, project, collection):
        chosen = _chosen(call, call.control.rows_in(f"{call.service}/{project}/{scope}/{collection}"))
        scopes[scope] = {collection: chosen} if chosen else {"warning": _no_results(scope)}
    return {**_list_header(call), "items": scopes}


def _scopes(call: Call, project: str, collection: str) -> list[str]:
    """Where resources of a collection can be: ``global``, ``regions/us-central1``, ``zones/us-central1-a``."""
    find = call.control.catalog.resource_schema
    kinds = [scopes for scopes in _SCOPES if find(call.api, f"{project}/{scopes[0]}/{collection}/any")]
    return [scope for scopes in kinds for scope in scopes]


def _no_results(scope: str) -> Body:
    return {
        "code": "NO_RESULTS_ON_PAGE",
        "message": f"There are no results for scope '{scope}' on this page.",
        "data": [{"key": "scope", "value": scope}],
    }


def _chosen(call: Call, rows: list[Stored]) -> list[Body]:
    matches = filters.compiled(call.query.get("filter", ""))
    shown = [call.control.shown(call.api, row.key, row.body) for row in rows]
    chosen = [body for body in shown if matches(body)]
    for order in reversed(call.query.get("orderBy", "").split(",")):
        field, _, direction = order.strip().partition(" ")
        if field:
            name = masks.camel(field)
            chosen.sort(key=lambda body: str(body.get(name, "")), reverse=direction.strip().lower() == "desc")
    return chosen


# --- update -------------------------------------------------------------------------------------------------------


def update(call: Call) -> Body:
    """PATCH and PUT: the resource with the fields of the mask (or of the body) changed."""
    control, key, kind = call.control, call.key, call.kind
    row = control.find(key)
    given = _resource_in(call, key)
    if row is None:
        if kind.upsert or call.flag("allowMissing"):
            return create_at(call, key, given)
        raise not_found(control, key)
    schema = control.schema(call.api, key)
    require_idle(call, key)
    require_etag(call, row, given.get("etag"))
    after = _updated(call, schema, row.body, checks.writable(call.api, schema.name, given))
    return update_to(call, row, after)


def update_to(call: Call, row: Stored, after: Body, verb: str = "update") -> Body:
    """Change a resource to a new body, for methods that change it in their own way. Returns the answer of the call."""
    control, key = call.control, row.key
    kind, schema = control.kind(key), control.schema(call.api, key)
    changed = checks.immutable_change(call.api, schema.name, row.body, after, kind.mutable)
    if changed:
        raise bad_field(changed, f"Field '{changed}' is immutable and cannot be changed.")
    _admit(call, key, kind, after, row.body)
    if call.validate_only:
        return _validated(call, key, schema, after)
    if not call.method.is_operation:
        control.store.put(key, after)
        endings.make_ready(control, call.api.version, key, after)
        return control.shown(call.api, key, after, enums_as_numbers=call.enums_as_numbers)
    states = shapes.states(schema, kind)
    meanwhile = dict(after if kind.applied_at_once else row.body)
    if states and "state" in meanwhile:
        meanwhile["state"] = states[2]
    if "reconciling" in schema.properties:
        meanwhile["reconciling"] = True
    control.store.put(key, meanwhile)
    return _operation(call, key, schema, verb, "finish", after=after, ended=kind.operation_done)


def _updated(call: Call, schema: Schema, before: Body, given: Body) -> Body:
    mask = call.query.get("updateMask") or (call.body or {}).get("updateMask")
    if isinstance(mask, str) and mask:
        paths = masks.paths_of(mask, call.api, schema.name)
        if ("*",) in paths:
            return masks.replace(before, given, call.api, schema.name)
        return masks.apply(before, given, paths)
    if call.method.http_method == "PUT":
        return masks.replace(before, given, call.api, schema.name)
    if call.rows.merge_patch:
        return masks.merge(before, given)
    return masks.apply(before, given, tuple((name,) for name in given))


def require_etag(call: Call, row: Stored, given: object) -> None:
    """Raise Fault (ABORTED) when the caller speaks of another state of the resource than the present one."""
    current = row.body.get("etag")
    if call.control.compares_etags and given and current and given != current:
        raise Fault("ABORTED", f"The etag '{given}' does not match the current etag '{current}' of {call.path}.")


def require_idle(call: Call, key: str) -> None:
    """Raise Fault while an operation on the resource is running."""
    if call.control.store.open_operation_on(key):
        words = worded(call.control, call.control.kind(key).busy, key)
        if call.service == "compute":
            raise Fault("INVALID_ARGUMENT", words, reason="resourceNotReady")
        raise Fault("ABORTED", words)


# --- delete -------------------------------------------------------------------------------------------------------


def delete(call: Call) -> Body:
    """Remove the resource at the path with what lies below it, or mark it as deleted."""
    control, key, kind = call.control, call.key, call.kind
    row = control.find(key)
    if row is None:
        if call.flag("allowMissing"):
            return {}
        raise not_found(control, key)
    require_idle(call, key)
    require_etag(call, row, call.query.get("etag"))
    if kind.children_block and not call.flag("force") and control.store.below(f"{key}/"):
        raise Fault(
            "FAILED_PRECONDITION", f"Resource '{call.path}' has nested resources. Use force to delete them too."
        )
    if kind.before_delete:
        kind.before_delete(call, row)
    if kind.in_use == "call":
        endings.refuse_in_use(control, key)
    schema = control.schema(call.api, key)
    if call.validate_only:
        return _validated(call, key, schema, row.body)
    if not call.method.is_operation:
        gone = endings.remove(control, key, call.now)
        return (
            {} if call.method.response in (None, "Empty", "GoogleProtobufEmpty") else control.shown(call.api, key, gone)
        )
    states = shapes.states(schema, kind)
    meanwhile = dict(row.body)
    if states and "state" in meanwhile:
        meanwhile["state"] = states[3]
    if "reconciling" in schema.properties:
        meanwhile["reconciling"] = True
    if kind.delete_answers == "resource" and "deleteTime" in schema.properties:
        meanwhile["deleteTime"] = call.time
        if "expireTime" in schema.properties:
            meanwhile["expireTime"] = timestamp(call.now + endings.SOFT_DELETED_FOR_SECONDS)
    control.store.put(key, meanwhile)
    answer = None
    if kind.delete_answers == "resource":
        answer = {"@type": call.api.message_type(schema.name), **control.shown(call.api, key, meanwhile)}
        answer.pop("reconciling", None)
    return _operation(call, key, schema, "delete", "delete", answer=answer, ended=kind.operation_done)


def undelete(call: Call) -> Body:
    """Bring a soft-deleted resource back."""
    control, key = call.control, call.key
    row = control.store.get(key, even_deleted=True)
    if row is None:
        raise not_found(control, key)
    if row.deleted_at is None:
        raise Fault("FAILED_PRECONDITION", f"Resource '{call.path}' is not deleted.")
    schema, kind = control.schema(call.api, key), control.kind(key)
    states = shapes.states(schema, kind)
    body = {name: value for name, value in row.body.items() if name not in ("deleteTime", "expireTime", "purgeTime")}
    if states:
        body["state"] = states[1]
    body.pop("deleted", None)
    shapes.set_etag(schema, kind, body)
    control.store.put(key, body)
    if call.method.is_operation:
        return _operation(call, key, schema, "undelete", "finish", ended=kind.operation_done)
    return control.shown(call.api, key, body)


# --- shared -------------------------------------------------------------------------------------------------------


def _operation(call: Call, key: str, schema: Schema, verb: str, effect: str, **more: Any) -> Body:
    word = {"create": "insert", "update": "patch" if call.method.http_method == "PATCH" else "update"}
    verb = word.get(verb, verb) if call.service == "compute" else verb
    return operations.start(call, key, verb, message_type=call.api.message_type(schema.name), effect=effect, **more)


def _validated(call: Call, key: str, schema: Schema, body: Body) -> Body:
    """The answer to a call that only wanted to be checked: what it would have left."""
    shown = call.control.shown(call.api, key, body, enums_as_numbers=call.enums_as_numbers)
    if not call.method.is_operation:
        return shown if call.method.response != "Empty" else {}
    answer = {"@type": call.api.message_type(schema.name), **shown}
    return _operation(call, key, schema, call.method.name, "none", answer=answer)


def unsupported(call: Call) -> Fault:
    """501, naming the method."""
    return Fault("UNIMPLEMENTED", f"Method '{call.method.id}' is not supported by the local Google Cloud.")


METHODS = {
    "create": create,
    "insert": create,
    "get": get,
    "list": list_,
    "aggregatedList": aggregated_list,
    "patch": update,
    "update": update,
    "delete": delete,
    "undelete": undelete,
}
