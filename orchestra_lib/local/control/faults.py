"""Errors as Google's services answer them: the HTTP status, the code word, the sentence, the details.

Sentences follow https://cloud.google.com/apis/design/errors and what the services were seen to answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HTTP_STATUS = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "CONDITION_NOT_MET": 412,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}
_RPC_CODE = {"CANCELLED": 1, "INVALID_ARGUMENT": 3, "NOT_FOUND": 5, "ALREADY_EXISTS": 6, "PERMISSION_DENIED": 7}
_RPC_CODE |= {"RESOURCE_EXHAUSTED": 8, "FAILED_PRECONDITION": 9, "ABORTED": 10, "UNIMPLEMENTED": 12, "INTERNAL": 13}
_RPC_CODE |= {"UNAVAILABLE": 14, "UNAUTHENTICATED": 16}
_REASONS = {
    "CANCELLED": "cancelled",
    "INVALID_ARGUMENT": "invalid",
    "FAILED_PRECONDITION": "failedPrecondition",
    "UNAUTHENTICATED": "authError",
    "PERMISSION_DENIED": "forbidden",
    "NOT_FOUND": "notFound",
    "ALREADY_EXISTS": "alreadyExists",
    "ABORTED": "aborted",
    "CONDITION_NOT_MET": "conditionNotMet",
    "RESOURCE_EXHAUSTED": "rateLimitExceeded",
    "INTERNAL": "backendError",
    "UNIMPLEMENTED": "notImplemented",
    "UNAVAILABLE": "backendError",
}
# Services whose REST front end is the older one: errors[] stands beside (iam) or instead of (compute) the code word.
_WITH_ERRORS = ("compute", "iam")
_WITHOUT_STATUS = ("compute",)


class Fault(Exception):
    """An error answer. ``reason`` is what the older front ends call it, where it is not the usual word."""

    def __init__(
        self,
        status: str,
        message: str,
        *,
        details: Sequence[Mapping[str, Any]] = (),
        reason: str | None = None,
        http_status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.details = status, message, list(details)
        self.http_status = http_status or HTTP_STATUS[status]
        self.reason = reason or _REASONS[status]

    def body(self, service: str) -> dict[str, Any]:
        """The JSON answer, in the form that the service uses."""
        error: dict[str, Any] = {"code": self.http_status, "message": self.message}
        if service in _WITH_ERRORS:
            error["errors"] = [{"domain": "global", "message": self.message, "reason": self.reason}]
        if service not in _WITHOUT_STATUS:
            error["status"] = self.status
        if self.details:
            error["details"] = self.details
        return {"error": error}

    def rpc_status(self) -> dict[str, Any]:
        """The ``google.rpc.Status`` that stands in a failed operation."""
        return {"code": _RPC_CODE.get(self.status, 2), "message": self.message}


def bad_field(field: str, description: str) -> Fault:
    """400 for one field of the body, with the ``BadRequest`` detail that names it."""
    violation = {"field": field, "description": description} if field else {"description": description}
    detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}
    return Fault("INVALID_ARGUMENT", description, details=[detail])


def permission_denied(permission: str, service: str, path: str) -> Fault:
    """403 for a permission that the caller lacks."""
    if service == "compute":
        return Fault("PERMISSION_DENIED", f"Required '{permission}' permission for '{path}'")
    detail = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "IAM_PERMISSION_DENIED",
        "domain": "iam.googleapis.com",
        "metadata": {"permission": permission, "resource": path},
    }
    message = f"Permission '{permission}' denied on resource '//{service}.googleapis.com/{path}' (or it may not exist)."
    return Fault("PERMISSION_DENIED", message, details=[detail])


def service_disabled(host: str, title: str, project_number: str) -> Fault:
    """403 for an API that is not enabled in the project."""
    activation = f"https://console.developers.google.com/apis/api/{host}/overview?project={project_number}"
    detail = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "SERVICE_DISABLED",
        "domain": "googleapis.com",
        "metadata": {
            "service": host,
            "serviceTitle": title,
            "containerInfo": project_number,
            "consumer": f"projects/{project_number}",
            "activationUrl": activation,
        },
    }
    message = (
        f"{title} has not been used in project {project_number} before or it is disabled. Enable it by visiting "
        f"{activation} then retry. If you enabled this API recently, wait a few minutes for the action to propagate "
        "to our systems and retry."
    )
    return Fault("PERMISSION_DENIED", message, details=[detail], reason="accessNotConfigured")


def policy_violated(constraint: str, resource: str, wrong: str) -> Fault:
    """400 for what an organisation policy forbids."""
    message = f"Operation denied by org policy on resource '{resource}': [\"{constraint}\": {wrong}]."
    violation = {"type": constraint, "subject": f"orgpolicy:{resource}", "description": wrong}
    detail = {"@type": "type.googleapis.com/google.rpc.PreconditionFailure", "violations": [violation]}
    return Fault("FAILED_PRECONDITION", message, details=[detail], reason="conditionNotMet")


def bad_id(service: str, identifier: str, pattern: str) -> Fault:
    """400 for an id that the service does not take."""
    if service == "compute":
        message = f"Invalid value for field 'resource.name': '{identifier}'. Must be a match of regex '{pattern}'"
        return Fault("INVALID_ARGUMENT", message)
    return bad_field("id", f"Invalid resource id '{identifier}': it has to match the pattern '{pattern}'.")


def unknown_project(service: str, project: str) -> Fault:
    """403 for a project that does not exist, or that the caller may not see: Google does not say which."""
    detail = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "CONSUMER_INVALID",
        "domain": "googleapis.com",
        "metadata": {"service": f"{service}.googleapis.com", "consumer": f"projects/{project}"},
    }
    return Fault("PERMISSION_DENIED", f"Permission denied on resource project {project}.", details=[detail])


def unauthenticated(*, given: bool) -> Fault:
    """401 for a call without a token, or with a wrong one."""
    had = (
        "Request had invalid authentication credentials."
        if given
        else ("Request is missing required authentication credential.")
    )
    message = (
        f"{had} Expected OAuth 2 access token, login cookie or other valid authentication credential. "
        "See https://developers.google.com/identity/sign-in/web/devconsole-project."
    )
    return Fault("UNAUTHENTICATED", message)


def quota_exceeded(metric: str, limit: float, scope: str) -> Fault:
    """What a resource quota that is used up answers (compute's wording and status)."""
    message = f"Quota '{metric}' exceeded.  Limit: {limit:.1f} {scope}."
    return Fault("PERMISSION_DENIED", message, reason="quotaExceeded")
