"""What Cloud Run's services, jobs and worker pools share: containers, conditions, names, the words of errors.

https://cloud.google.com/run/docs/reference/rest
"""

from __future__ import annotations

import re
import secrets
import string
from typing import TYPE_CHECKING

from orchestra_lib.local.control.call import Call, timestamp
from orchestra_lib.local.control.faults import bad_field
from orchestra_lib.local.control.kinds import Body, fill_missing

if TYPE_CHECKING:
    from orchestra_lib.local.control.control import ControlPlane
    from orchestra_lib.local.control.store import Stored

PENDING, SUCCEEDED, FAILED = "CONDITION_PENDING", "CONDITION_SUCCEEDED", "CONDITION_FAILED"
EXISTS = "Resource '{id}' already exists."
LIMITS = {"cpu": "1000m", "memory": "512Mi"}
_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
_PROBE = {"failureThreshold": 3, "periodSeconds": 10, "timeoutSeconds": 1}
_LONGEST_STARTUP_SECONDS = 240
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_CPUS = frozenset({1, 2, 4, 6, 8})
# https://cloud.google.com/run/docs/configuring/services/memory-limits
_LEAST_MEMORY_OF_CPUS = {4: 2 * 2**30, 6: 4 * 2**30, 8: 4 * 2**30}
_LETTERS = string.ascii_lowercase + string.digits
# The annotations that mean something to the service are fields of their own in this version of its API.
_RESERVED = ("run.googleapis.com", "cloud.googleapis.com", "serving.knative.dev", "autoscaling.knative.dev")


def not_found(noun: str) -> str:
    """The words for a resource that is not there."""
    return f"Resource '{{id}}' of kind '{noun}' in region '{{location}}' in project '{{project}}' does not exist."


def suffix(length: int) -> str:
    """A random end of a name that the service chooses."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def service_account(call: Call) -> str:
    """Who a container runs as when nobody says."""
    return f"{call.project_number}-compute@developer.gserviceaccount.com"


# --- conditions ---------------------------------------------------------------------------------------------------


def condition(control: ControlPlane, kind: str, state: str = SUCCEEDED, message: str = "") -> Body:
    """One condition, from now on."""
    body = {"type": kind, "state": state, "lastTransitionTime": timestamp(control.clock())}
    return {**body, "message": message} if message else body


def shown(control: ControlPlane, key: str, _version: str, body: Body) -> Body:
    """A resource with the condition that follows from what is being done to it, or was not done."""
    now = body.get("terminalCondition", {})
    if control.store.open_operation_on(key):
        return {**body, "terminalCondition": {**now, "state": PENDING}}
    if body.get("observedGeneration") != body.get("generation"):
        return {**body, "terminalCondition": {"type": "Ready", **now, "state": FAILED}}
    return body


def observe_validated(call: Call, body: Body) -> None:
    """What is only checked is not behind what is wanted."""
    if call.validate_only:
        body["observedGeneration"] = body["generation"]


def count_deletion(_call: Call, row: Stored) -> None:
    """A delete is a change of what is wanted, too."""
    row.body["generation"] = str(int(row.body["generation"]) + 1)


# --- containers ---------------------------------------------------------------------------------------------------


def complete_containers(template: Body) -> None:
    """What a probe is made of when it says only a part."""
    for container in template.get("containers", ()):
        port = next((known.get("containerPort") for known in container.get("ports", ())), None)
        for name in _PROBES:
            probe = container.get(name)
            if probe is None:
                continue
            fill_missing(probe, _PROBE)
            if "httpGet" in probe:
                fill_missing(probe["httpGet"], {"path": "/"})
            for action in ("httpGet", "tcpSocket", "grpc"):
                if action in probe and port:
                    fill_missing(probe[action], {"port": port})


def check_template(template: Body, at: str, body: Body) -> None:
    """Raise Fault (400) for containers that the service does not run, or annotations that it keeps for itself."""
    for name in (*body.get("annotations", {}), *template.get("annotations", {})):
        if name.partition("/")[0].endswith(_RESERVED):
            raise bad_field("annotations", f"Annotation '{name}' is not supported by version 2 of the API.")
    containers = template.get("containers", ())
    if not containers:
        raise bad_field(f"{at}.containers", "At least one container is required.")
    for index, container in enumerate(containers):
        _check_container(container, f"{at}.containers[{index}]")
    ports = [port for container in containers for port in container.get("ports", ())]
    if len(ports) > 1:
        raise bad_field(f"{at}.containers.ports", "Only one port of one container can receive requests.")


def _check_container(container: Body, at: str) -> None:
    limits = {**LIMITS, **container.get("resources", {}).get("limits", {})}
    count, size = cpus(limits["cpu"], at), _bytes(limits["memory"], at)
    if count >= 1 and count not in _CPUS:
        raise bad_field(
            f"{at}.resources.limits.cpu", f"Invalid value {limits['cpu']}: use less than 1, or 1, 2, 4, 6 or 8."
        )
    least = _LEAST_MEMORY_OF_CPUS.get(int(count), 0)
    if size < least:
        words = f"Invalid value {limits['memory']}: {limits['cpu']} CPU need at least {least // 2**30}Gi of memory."
        raise bad_field(f"{at}.resources.limits.memory", words)
    for name in _PROBES:
        probe = {**_PROBE, **container.get(name, {})}
        if probe["timeoutSeconds"] > probe["periodSeconds"]:
            raise bad_field(f"{at}.{name}.timeout_seconds", "A probe has to time out within its period.")
        wait = max(probe["periodSeconds"], probe.get("initialDelaySeconds", 0))
        if name == "startupProbe" and wait > _LONGEST_STARTUP_SECONDS:
            raise bad_field(f"{at}.{name}", f"A startup probe waits at most {_LONGEST_STARTUP_SECONDS} seconds.")


def cpus(text: str, at: str = "") -> float:
    """The number of CPUs that a limit (``1000m``, ``2``) means."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text)
    if found is None:
        raise bad_field(f"{at}.resources.limits.cpu", f"Invalid value '{text}': a number of CPUs is expected.")
    return float(found[1]) / (1000 if found[2] else 1)


def _bytes(text: str, at: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]i?|Ki)?", text)
    if found is None:
        raise bad_field(
            f"{at}.resources.limits.memory", f"Invalid value '{text}': an amount such as 512Mi is expected."
        )
    return float(found[1]) * _UNITS[found[2] or ""]
