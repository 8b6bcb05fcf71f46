"""Who may call a service: what a request's token says of its sender, against the policy of the service.

https://cloud.google.com/run/docs/authenticating/overview
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local import id_tokens
from orchestra_lib.local.control_calls import ControlFault
from orchestra_lib.local.run.control_client import ControlClient, Service

SERVERLESS_HEADER = "X-Serverless-Authorization"
"""Counts instead of ``Authorization``, which the service then gets as it is."""
_REMEMBERED_SECONDS = 5.0
"""How long a token of the control plane counts after it was asked for: that is how late a revocation is seen."""
_MOST_REMEMBERED = 10_000
_EVERYBODY, _EVERY_ACCOUNT = "allUsers", "allAuthenticatedUsers"


@dataclass(frozen=True)
class Refusal:
    """What a request is answered that is not let in."""

    status: int
    message: str
    challenge: str


_FORBIDDEN = Refusal(403, "The request was not authenticated, or its sender may not invoke this service.", "")
_INVALID = Refusal(
    401,
    "The access token could not be verified.",
    'Bearer error="invalid_token" error_description="The access token could not be verified"',
)


@dataclass(frozen=True)
class _Known:
    """A token that was looked at: whose it is, for whom it was made (None: anybody), until when that is believed."""

    email: str
    audience: str | None
    until: float
    """Seconds since 1970."""


class Invokers:
    """Remembers the tokens that it has seen for a while."""

    def __init__(self, directory: Path, control: ControlClient) -> None:
        self._directory, self._control = directory, control
        self._known: dict[str, _Known] = {}

    async def refusal(self, headers: Mapping[str, str], service: Service) -> Refusal | None:
        """Why the sender of a request is not let in; None if it is."""
        if not service.checks_invokers or _EVERYBODY in service.invokers:
            return None
        scheme, _, token = (headers.get(SERVERLESS_HEADER) or headers.get("Authorization") or "").partition(" ")
        if not token:
            return _FORBIDDEN
        known = await self._sender(token) if scheme.lower() == "bearer" else None
        if known is None:
            return _INVALID
        if known.audience is not None and known.audience.rstrip("/") not in service.audiences:
            return _INVALID
        kind = "serviceAccount" if known.email.endswith(".gserviceaccount.com") else "user"
        members = {f"{kind}:{known.email}", _EVERY_ACCOUNT, f"domain:{known.email.rpartition('@')[2]}"}
        return None if members & service.invokers else _FORBIDDEN

    async def _sender(self, token: str) -> _Known | None:
        now = time.time()
        known = self._known.get(token)
        if known is not None and known.until > now:
            return known
        known = self._identity(token) if token.count(".") == 2 else await self._principal(token, now)
        if known is not None:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[token] = known
        return known

    def _identity(self, token: str) -> _Known | None:
        found = id_tokens.verified(self._directory, token)
        return _Known(found.email, found.audience, found.expires) if found else None

    async def _principal(self, token: str, now: float) -> _Known | None:
        try:
            email = await asyncio.to_thread(self._control.principal, token)
        except (ControlFault, TargetUnreachable):
            return None
        return _Known(email, None, now + _REMEMBERED_SECONDS)
