"""Long-running operations: started by a call, ended when they fall due, whoever looks.

How each service names and shows them is a :class:`Style`; the shapes that there are stand in ``operation_styles``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestra_lib.errors import ParameterError
from orchestra_lib.local.control.call import Call
from orchestra_lib.local.control.faults import Fault

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane

_log = logging.getLogger(__name__)
Record = dict[str, Any]
EMPTY = {"@type": "type.googleapis.com/google.protobuf.Empty"}
# Seconds that a call takes on Google Cloud, from its documentation and published experience; what is not named takes
# a second. Compute's own operations take 10 to 20.
_SECONDS: Mapping[str, float] = {
    "alloydb.clusters.create": 60,
    "alloydb.clusters.delete": 30,
    "alloydb.instances.create": 300,
    "alloydb.instances.update": 60,
    "alloydb.instances.delete": 60,
    "apigateway.gateways.create": 120,
    "apigateway.apiConfigs.create": 60,
    "artifactregistry.repositories.create": 10,
    "compute.networks.create": 12,
    "compute.subnetworks.create": 12,
    "compute.routers.create": 6,
    "compute.routers.update": 6,
    "compute.firewalls.create": 6,
    "compute.addresses.create": 4,
    "compute.globalAddresses.create": 4,
    "iam.workloadIdentityPools.create": 3,
    "iam.providers.create": 3,
    "resourcemanager.projects.create": 6,
    "run.services.create": 20,
    "run.services.update": 20,
    "servicenetworking.connections.create": 30,
    "servicenetworking.connections.update": 30,
    "serviceusage.services.batchEnable": 15,
    "serviceusage.services.enable": 8,
    "workstations.workstationClusters.create": 900,
    "workstations.workstationConfigs.create": 30,
    "workstations.workstations.create": 10,
    "workstations.workstations.start": 90,
}
_OTHERWISE = 1.0
REALISTIC = "realistic"


@dataclass(frozen=True)
class Latency:
    """How long operations take: ``scale`` 1 is realistic, 0 ends each one with the first look at it."""

    scale: float

    def seconds(self, permission: str) -> float:
        """The seconds that a call takes."""
        return self.scale * _SECONDS.get(permission, _OTHERWISE)


def latency_of(text: str) -> Latency:
    """``realistic``, ``0`` or a factor of realistic. Raises ParameterError."""
    try:
        scale = 1.0 if text == REALISTIC else float(text)
    except ValueError:
        scale = -1.0
    if not 0 <= scale < float("inf"):
        raise ParameterError(f"latency has to be '{REALISTIC}', 0 or a factor of it such as 0.01, got '{text}'")
    return Latency(scale)


def start(
    call: Call,
    target: str,
    verb: str,
    *,
    message_type: str,
    effect: str,
    answer: Any = None,
    after: Any = None,
    ended: bool = False,
) -> dict[str, Any]:
    """Write a new operation on ``target`` (a key) and return the answer to the call that started it.

    ``effect`` names what its end does (``finish``, ``delete``, ``none``, or one of the service's own), ``answer`` is
    the response when it is not the resource as it is at the end, ``after`` what the effect needs to know. With
    ``ended``, or when the call only wants to be checked, the operation is done in this answer.
    """
    control = call.control
    name = control.style(call.service).name(call, target)
    stored = control.store.get(target)
    record = {
        "name": name,
        "key": f"{call.service}/{control.projects.normal(name)}",
        "service": call.service,
        "version": call.api.version,
        "target": target,
        "target_id": stored.body.get("id") if stored else None,
        "verb": verb,
        "method": call.method.id,
        "short_id": call.method.short_id,
        "type": message_type,
        "answer": answer,
        "effect": "none" if call.validate_only else effect,
        "after": after,
        "user": call.caller,
        "started": call.now,
        "due": call.now + control.latency.seconds(call.method.permission),
        "ended": None,
        "error": None,
        "awaits": not (ended or call.validate_only) and control.awaits(call.method),
        "request": call.body if call.service == "logging" else None,
    }
    if ended or call.validate_only:
        end(control, record, call.now)
    else:
        _write(control, record)
    return shown(control, record, first=True)


def _write(control: ControlPlane, record: Record) -> None:
    ended = record["ended"] is not None
    control.store.put_operation(record["key"], record["target"], record["due"], ended, record)


def settle(control: ControlPlane, now: float) -> None:
    """Do the work of every operation that has fallen due and waits for nobody."""
    for record in control.store.due(now):
        if not record.get("awaits"):
            end(control, record, now)


def release(control: ControlPlane, key: str, error: str | None, outcome: Any = None) -> None:
    """A data plane has done its part of an operation, or says why it could not; nothing for one that has ended.

    ``outcome`` is what the operation's effect needs to know of that part.
    """
    record = control.store.operation(key)
    if record is None or record["ended"] is not None:
        return
    record["awaits"] = False
    record["outcome"] = outcome
    if error is not None:
        record["error"] = {"status": "FAILED_PRECONDITION", "message": error}
    _write(control, record)


def end(control: ControlPlane, record: Record, now: float) -> None:
    """Do the work of one operation and write that it is done, with the error if it failed."""
    fault = _fault_of_its_work(control, record)
    if fault:
        record["error"] = {**fault.rpc_status(), "reason": fault.reason, "http": fault.http_status}
        _leave_what_failed(control, record)
    record["ended"] = now
    _write(control, record)


def _fault_of_its_work(control: ControlPlane, record: Record) -> Fault | None:
    """Do the work; what went wrong, if anything. All or nothing of it is kept."""
    try:
        with control.store.transaction():
            _take_effect(control, record)
    except Fault as fault:
        return fault
    except Exception:  # noqa: BLE001 - logged, and told as the failure of the operation
        # A defect of ours has to end this operation: operations are settled before every call, whoever calls.
        _log.exception("the work of %s failed", record["key"])
        return Fault("INTERNAL", "an internal error has occurred")
    return None


def _leave_what_failed(control: ControlPlane, record: Record) -> None:
    try:
        with control.store.transaction():
            control.effect_failed(record)
    except Exception:  # noqa: BLE001 - logged; the operation has failed already, and has to end
        _log.exception("what the failed work of %s leaves could not be written", record["key"])


def _take_effect(control: ControlPlane, record: Record) -> None:
    if record["error"]:
        raise Fault(**record["error"])
    failure = control.injected.operation_failure(record["method"])
    if failure:
        raise failure
    control.effect(record)


def shown(control: ControlPlane, record: Record, *, first: bool = False) -> dict[str, Any]:
    """The operation as its service answers it; ``first`` in the answer to the call that started it."""
    return control.style(record["service"]).shown(control, record, first)


def cancel(control: ControlPlane, record: Record, now: float) -> None:
    """End an operation that is still running as cancelled; one that has ended stays as it is."""
    if record["ended"] is None:
        record["error"] = {"status": "CANCELLED", "message": "The operation was cancelled."}
        end(control, record, now)


@dataclass(frozen=True)
class Style:
    """How one service names its operations and what it shows of them."""

    name: Callable[[Call, str], str]
    """(call, key of the target) to the operation's name."""
    metadata: Callable[[ControlPlane, Record], dict[str, Any] | None]
    says_not_done: bool = False
    """Whether ``done: false`` is written."""
    first_is_bare: bool = False
    """Whether the first answer holds the name alone."""
    whole: Callable[[ControlPlane, Record], dict[str, Any]] | None = None
    """The whole operation, for a service whose operations are no ``google.longrunning.Operation``."""

    def shown(self, control: ControlPlane, record: Record, first: bool) -> dict[str, Any]:
        """The operation resource."""
        if self.whole:
            return self.whole(control, record)
        result: dict[str, Any] = {"name": record["name"]}
        metadata = self.metadata(control, record)
        if metadata is not None and not (first and self.first_is_bare):
            result["metadata"] = metadata
        if record["ended"] is not None:
            result.update(_result(control, record))
        elif self.says_not_done:
            result["done"] = False
        return result


def _result(control: ControlPlane, record: Record) -> dict[str, Any]:
    if record["error"]:
        return {"done": True, "error": {key: record["error"][key] for key in ("code", "message")}}
    return {"done": True, "response": _response(control, record)}


def _response(control: ControlPlane, record: Record) -> dict[str, Any]:
    if record["answer"] is not None:
        return dict(record["answer"])
    body = control.shown_resource(record["service"], record["version"], record["target"])
    if record["effect"] == "delete" or body is None:
        return dict(EMPTY)
    return {"@type": record["type"], **body}
