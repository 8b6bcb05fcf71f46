"""What a test makes go wrong: permissions, disabled services, quotas, organisation policies, faults of single calls.

``POST /_local/faults`` replaces all of it; it is forgotten when the server ends.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestra_lib.local.control.faults import HTTP_STATUS, Fault

DROP_BEFORE, DROP_AFTER = "drop_before", "drop_after"
_STATUS = {429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE"}
_MESSAGES = {
    429: "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute' of service '{service}'.",
    500: "Internal error encountered.",
    503: "The service is currently unavailable.",
}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MissingPermission(_Model):
    """Permissions (patterns: ``compute.*``) that a caller lacks on a resource path and all below it."""

    permissions: list[str]
    caller: str = "*"
    resource: str = ""


class DisabledService(_Model):
    """A service (``alloydb``) that is not enabled in a project."""

    service: str
    project: str = "*"


class Quota(_Model):
    """The limit of a metric (``NETWORKS``) in a project, for each region if the metric is regional."""

    metric: str
    limit: int = Field(ge=0)
    project: str = "*"


class OrganizationPolicy(_Model):
    """An effective constraint: ``enforced`` for a boolean one, ``allowed`` values for a list."""

    constraint: str
    project: str = "*"
    enforced: bool = False
    allowed: list[str] | None = None


class CallFault(_Model):
    """What happens to the next ``count`` calls of a method (a pattern over the document's ids).

    ``answer``: an HTTP status; ``drop_before`` or ``drop_after`` the work is done (the connection is closed without
    an answer); ``operation``: the call succeeds and its operation fails.
    """

    method: str
    answer: Literal[429, 500, 503, "drop_before", "drop_after", "operation"]
    count: int = Field(default=1, ge=1)
    message: str = ""
    status: str = "INTERNAL"
    """The code word of a failing operation."""


class Injected(_Model):
    """Everything that is set at the moment."""

    missing_permissions: list[MissingPermission] = []
    disabled_services: list[DisabledService] = []
    quotas: list[Quota] = []
    organization_policies: list[OrganizationPolicy] = []
    faults: list[CallFault] = []

    def lacks(self, caller: str, permission: str, path: str) -> bool:
        """Whether the caller lacks a permission on the resource at a path."""
        return any(
            fnmatchcase(caller, row.caller)
            and any(fnmatchcase(permission, pattern) for pattern in row.permissions)
            and (not row.resource or path == row.resource or path.startswith(f"{row.resource}/"))
            for row in self.missing_permissions
        )

    def disabled(self, project: str, service: str) -> bool:
        """Whether a service is not enabled in a project."""
        return any(row.service == service and fnmatchcase(project, row.project) for row in self.disabled_services)

    def quota(self, project: str, metric: str) -> int | None:
        """The limit of a metric in a project; None when there is none."""
        return next((q.limit for q in self.quotas if q.metric == metric and fnmatchcase(project, q.project)), None)

    def policy(self, project: str, constraint: str) -> OrganizationPolicy | None:
        """The effective policy for a constraint in a project."""
        rows = self.organization_policies
        return next((p for p in rows if p.constraint == constraint and fnmatchcase(project, p.project)), None)

    def take(self, method: str, service: str) -> str | Fault | None:
        """What happens to this call of a method: a dropped connection, a Fault, or nothing. Uses one up."""
        row = self._use(method, lambda answer: answer != "operation")
        if row is None:
            return None
        if isinstance(row.answer, str):
            return row.answer
        message = row.message or _MESSAGES[row.answer].format(service=f"{service}.googleapis.com")
        return Fault(_STATUS[row.answer], message)

    def operation_failure(self, method: str) -> Fault | None:
        """Why this operation fails, if it has to. Uses one up."""
        row = self._use(method, lambda answer: answer == "operation")
        if row is None:
            return None
        status = row.status if row.status in HTTP_STATUS else "INTERNAL"
        return Fault(status, row.message or "an internal error has occurred")

    def _use(self, method: str, wanted: Callable[[int | str], bool]) -> CallFault | None:
        for row in self.faults:
            if fnmatchcase(method, row.method) and wanted(row.answer):
                row.count -= 1
                if row.count == 0:
                    self.faults.remove(row)
                return row
        return None
