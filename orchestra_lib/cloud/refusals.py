"""What Google Cloud refused, why, and what to do about it: its error answers as one clear line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from orchestra_lib.errors import OrchestraError

_TRANSIENT_HTTP = frozenset({408, 429, 500, 502, 503, 504})
# google.rpc.Code of operations that failed for no fault of the request: ABORTED, INTERNAL, UNAVAILABLE.
_TRANSIENT_RPC = frozenset({10, 13, 14})
_TRANSIENT_REASONS = frozenset(
    {
        "backendError",
        "INTERNAL_ERROR",
        "rateLimitExceeded",
        "RESOURCE_NOT_READY",
        "RESOURCE_OPERATION_RATE_EXCEEDED",
        "resourceNotReady",
        "SERVICE_UNAVAILABLE",
    }
)
_NOT_THERE_YET = frozenset({"CONSUMER_INVALID", "SERVICE_DISABLED", "accessNotConfigured"})
NOT_VISIBLE = "notVisible"
"""Our own reason: what was just changed does not show yet."""


class CloudRefused(OrchestraError):
    """Google Cloud refused a call, or an operation failed. ``status`` is the HTTP status, ``reason`` Google's word."""

    def __init__(self, message: str, *, status: int, reason: str, transient: bool = False) -> None:
        super().__init__(message)
        self.status, self.reason, self.transient = status, reason, transient

    @property
    def is_final(self) -> bool:
        """Whether it says for certain that the call was not carried out, or that its operation has failed."""
        return self.status < 500 and self.reason != NOT_VISIBLE

    @property
    def is_absence(self) -> bool:
        """Whether it says that the resource does not exist."""
        return self.status == 404

    @property
    def is_nothing_yet(self) -> bool:
        """Whether it says that the resource does not exist, nor the API or the project that it would lie in."""
        return self.is_absence or self.reason in _NOT_THERE_YET

    @property
    def is_conflict(self) -> bool:
        """Whether it says that the resource exists already, or was changed meanwhile."""
        return self.status in (409, 412)


def refusal(what: str, status: int, content: bytes) -> CloudRefused:
    """The error for an HTTP answer; ``what`` names the call and the resource."""
    error = _error(content)
    reason, metadata = _reason(error)
    text = str(error.get("message") or f"HTTP {status}").strip()
    remedy = _remedy(status, reason, text, metadata)
    return CloudRefused(
        f"{what}: {text}" + (f" {remedy}" if remedy else ""),
        status=status,
        reason=reason,
        transient=status in _TRANSIENT_HTTP or reason in _TRANSIENT_REASONS,
    )


def failed_operation(what: str, error: Mapping[str, Any]) -> CloudRefused:
    """The error for an operation that ended with one, in the form of compute or of google.rpc.Status."""
    first: Mapping[str, Any] = error["errors"][0] if error.get("errors") else error
    code, text = first.get("code"), str(first.get("message", "the operation failed without a message")).strip()
    reason = str(code)
    remedy = _remedy(0, reason, text, {})
    return CloudRefused(
        f"{what}: {text}" + (f" {remedy}" if remedy else ""),
        status={5: 404, 6: 409, 7: 403}.get(code, 400) if isinstance(code, int) else 400,
        reason=reason,
        transient=code in _TRANSIENT_RPC or reason in _TRANSIENT_REASONS,
    )


def _error(content: bytes) -> Mapping[str, Any]:
    try:
        loaded = json.loads(content)
    except ValueError:
        return {"message": content.decode(errors="replace")[:200]}
    error = loaded.get("error", {}) if isinstance(loaded, dict) else {}
    return error if isinstance(error, dict) else {"message": str(error)}


def _reason(error: Mapping[str, Any]) -> tuple[str, Mapping[str, str]]:
    for detail in error.get("details", []):
        if detail.get("reason"):
            return str(detail["reason"]), detail.get("metadata", {})
    older = error.get("errors") or [{}]
    return str(older[0].get("reason") or error.get("status") or error.get("code") or ""), {}


def _remedy(status: int, reason: str, text: str, metadata: Mapping[str, str]) -> str:
    if "constraints/" in text or reason == "CUSTOM_ORG_POLICY_VIOLATION":
        constraint = re.search(r"constraints/[\w.]+", text)
        return f"An organisation policy forbids it; ask for an exception of {constraint[0] if constraint else 'it'}."
    if reason in ("SERVICE_DISABLED", "accessNotConfigured"):
        service = metadata.get("service", "the API")
        return f"Enable {service} in the project first: runbook 01 does it."
    if reason in ("quotaExceeded", "QUOTA_EXCEEDED") or "Quota '" in text:
        metric = re.search(r"Quota '([^']+)'", text)
        return f"Ask for a higher quota{f' of {metric[1]}' if metric else ''}, or free what is not needed."
    if status == 401:
        return "Log in again: gcloud auth application-default login."
    if status == 403 and metadata.get("permission"):
        return f"Ask for a role that holds {metadata['permission']} on {metadata.get('resource', 'it')}."
    if status == 403:
        return "Ask for the role that this call needs, or check that the name is right."
    if status == 429:
        return "The rate limit was met at every attempt; wait a minute and run it again."
    return ""
