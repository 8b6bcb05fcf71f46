"""The shapes in which the services name and show their operations. Facts from recorded exchanges and documentation."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchestra_lib.local.control.call import Call, compute_timestamp, digits, timestamp
from orchestra_lib.local.control.catalog import snake
from orchestra_lib.local.control.operations import Record, Style

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

COMPUTE_BASE = "https://www.googleapis.com/compute/v1"
Metadata = Callable[["ControlPlane", Record], dict[str, Any] | None]


# --- names --------------------------------------------------------------------------------------------------------


def in_location(call: Call, _target: str) -> str:
    """``projects/p/locations/l/operations/operation-...``"""
    place = call.path.split("/locations/")[0] + f"/locations/{call.location}"
    return f"{place}/operations/{_random_id(call)}"


def in_numbered_location(call: Call, target: str) -> str:
    """The same with the project's number."""
    return call.control.projects.numbered(in_location(call, target))


def below_target(call: Call, target: str) -> str:
    """``<the resource, with the project's number>/operations/<uuid>``"""
    return f"{call.control.projects.numbered(target.split('/', 1)[1])}/operations/{uuid.uuid4()}"


def bare(prefix: str) -> Callable[[Call, str], str]:
    """``operations/<prefix>-<project number>-<uuid>``; ``operations/<verb>.<number>`` without a prefix."""

    def name(call: Call, target: str) -> str:
        if prefix:
            return f"operations/{prefix}-{call.project_number or digits(target, 12)}-{uuid.uuid4()}"
        return f"operations/{call.method.verb or call.method.name}.{digits(str(uuid.uuid4()), 19)}"

    return name


def in_scope(_call: Call, target: str) -> str:
    """Compute: global, or in the target's region or zone."""
    parts = target.split("/")[1:]
    scope = parts[:4] if parts[2:3] and parts[2] in ("regions", "zones") else [*parts[:2], "global"]
    return "/".join((*scope, "operations", _random_id(_call)))


def _random_id(call: Call) -> str:
    return f"operation-{int(call.now * 1000)}-{uuid.uuid4().hex[:13]}-{uuid.uuid4().hex[:8]}-{uuid.uuid4().hex[:8]}"


# --- metadata -----------------------------------------------------------------------------------------------------


def full(*, cancellation: bool = False) -> Metadata:
    """What the common control plane writes: target, verb, version, times. https://google.aip.dev/151"""

    def metadata(_control: ControlPlane, record: Record) -> dict[str, Any]:
        result = {
            "@type": f"{record['type'].rsplit('.', 1)[0]}.OperationMetadata",
            "apiVersion": record["version"],
            "createTime": timestamp(record["started"]),
            "target": record["target"].split("/", 1)[1],
            "verb": record["verb"],
        }
        if cancellation:
            result["requestedCancellation"] = False
        if record["ended"] is not None:
            result["endTime"] = timestamp(record["ended"])
        return result

    return metadata


def nothing(_control: ControlPlane, _record: Record) -> None:
    """No metadata."""
    return


def type_only(suffix: str) -> Metadata:
    """Nothing but ``@type``."""

    def metadata(_control: ControlPlane, record: Record) -> dict[str, Any]:
        return {"@type": f"{record['type'].rsplit('.', 1)[0]}.{suffix}"}

    return metadata


def generic(_control: ControlPlane, record: Record) -> dict[str, Any]:
    """AI Platform's: a ``genericMetadata`` with the times."""
    noun = record["type"].rsplit(".", 1)[1]
    times = {"createTime": timestamp(record["started"]), "updateTime": timestamp(record["ended"] or record["started"])}
    return {
        "@type": f"{record['type'].rsplit('.', 1)[0]}.{record['verb'].capitalize()}{noun}OperationMetadata",
        "genericMetadata": times,
    }


# --- compute ------------------------------------------------------------------------------------------------------

_COMPUTE_CODES = {"backendError": "INTERNAL_ERROR"}
_HTTP_WORDS = {400: "BAD REQUEST", 403: "FORBIDDEN", 404: "NOT FOUND", 409: "CONFLICT", 500: "INTERNAL SERVER ERROR"}


def compute_operation(_control: ControlPlane, record: Record) -> dict[str, Any]:
    """A ``compute#operation``."""
    ended = record["ended"] is not None
    scope, _, name = record["name"].partition("/operations/")
    result = {
        "kind": "compute#operation",
        "id": digits(record["name"], 19),
        "name": name,
        "operationType": record["verb"],
        "progress": 100 if ended else 0,
        "status": "DONE" if ended else "RUNNING",
        "user": record["user"],
        "insertTime": compute_timestamp(record["started"]),
        "startTime": compute_timestamp(record["started"]),
        "selfLink": f"{COMPUTE_BASE}/{record['name']}",
        "targetId": record["target_id"] or digits(record["target"], 19),
        "targetLink": f"{COMPUTE_BASE}/{record['target'].split('/', 1)[1]}",
    }
    for word in ("region", "zone"):
        if f"/{word}s/" in scope:
            result[word] = f"{COMPUTE_BASE}/{scope}"
    if ended:
        result["endTime"] = compute_timestamp(record["ended"])
    if record["error"]:
        status = record["error"]["http"]
        reason = record["error"]["reason"]
        code = _COMPUTE_CODES.get(reason) or snake(reason).upper()
        result["error"] = {"errors": [{"code": code, "message": record["error"]["message"]}]}
        result["httpErrorStatusCode"] = status
        result["httpErrorMessage"] = _HTTP_WORDS.get(status, "BAD REQUEST")
    return result


STANDARD = Style(in_location, full())
