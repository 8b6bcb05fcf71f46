"""The methods on operations: get, list, wait, cancel, delete. https://google.aip.dev/151"""

from __future__ import annotations

from orchestra_lib.local.control import filters, operations
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.catalog import Method
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.kinds import Body, Handler, not_found
from orchestra_lib.local.control.operations import Record
from orchestra_lib.local.control.pages import page

COLLECTION = "operations"


def handler(method: Method) -> Handler | None:
    """The handler of a method on operations; None when it is about something else."""
    return _METHODS.get(method.name) if is_about_operations(method) else None


def is_about_operations(method: Method) -> bool:
    """Whether a method's path names operations: ``operations``, ``operations/*`` or compute's ``operations/*/wait``."""
    return COLLECTION in method.template[-3:]


def _get(call: Call) -> Body:
    return operations.shown(call.control, _record(call))


def _list(call: Call) -> Body:
    records = call.control.store.operations(f"{call.key}/")
    matches = filters.compiled(call.query.get("filter", ""))
    shown = [body for record in records if matches(body := operations.shown(call.control, record))]
    part, token = page(shown, call.query)
    answer: Body = {"items" if call.service == "compute" else COLLECTION: part} if part else {}
    if token:
        answer["nextPageToken"] = token
    return answer


def _cancel(call: Call) -> Body:
    operations.cancel(call.control, _record(call), call.now)
    return {}


def _delete(call: Call) -> Body:
    call.control.store.remove_operation(_record(call)["key"])
    return {}


def _record(call: Call) -> Record:
    record = call.control.store.operation(call.key) or _meant(call)
    if record is None:
        if call.service == "compute":
            raise not_found(call.control, call.key)
        raise Fault("NOT_FOUND", f"Operation '{call.path}' was not found.")
    return record


def _meant(call: Call) -> Record | None:
    """In the permissive mode, the newest operation of a service that names them without a project.

    Recordings mask such a name in one place and not in another, so that nothing tells which operation it was.
    """
    collection = call.key.rpartition("/")[0]
    if not call.control.permissive or collection != f"{call.service}/{COLLECTION}":
        return None
    return next(reversed(call.control.store.operations(f"{collection}/")), None)


# A wait may end before the operation does (the caller waits again), so the present state is a right answer.
_METHODS = {"get": _get, "list": _list, "wait": _get, "cancel": _cancel, "delete": _delete}
