"""Who is calling: the operator by the token of the state file, others by tokens that the service issued."""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING

from orchestra_lib.local.control.faults import unauthenticated

if TYPE_CHECKING:
    from orchestra_lib.local.control.store import Store

_BYTES = 32
_COLLECTION = "_local/tokens"
_PATH_PREFIX = "/_token/"


class Tokens:
    """Bearer tokens. ``operator_token`` None lets everybody in as the operator (the permissive mode of tests)."""

    def __init__(self, store: Store, operator: str, operator_token: str | None) -> None:
        self._store, self._operator, self._operator_token = store, operator, operator_token

    def caller(self, authorization: str | None, now: float) -> str:
        """The caller's e-mail address. Raises Fault (401) without a valid token."""
        if self._operator_token is None:
            return self._operator
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthenticated(given=False)
        if hmac.compare_digest(token.encode(), self._operator_token.encode()):
            return self._operator
        row = self._store.get(f"{_COLLECTION}/{token}")
        if row is None or float(row.body["expires"]) <= now:
            raise unauthenticated(given=True)
        return str(row.body["email"])

    def issue(self, email: str, expires: float) -> str:
        """A new token that speaks for an account until a moment (seconds since 1970)."""
        token = f"ya29.local-{secrets.token_urlsafe(_BYTES)}"
        self._store.put(f"{_COLLECTION}/{token}", {"email": email, "expires": expires})
        return token


def new_token() -> str:
    """A random operator token."""
    return secrets.token_urlsafe(_BYTES)


def path_with(token: str) -> str:
    """What an endpoint's path begins with for a client that sends no token of its own: ``/_token/TOKEN``."""
    return f"{_PATH_PREFIX}{token}"


def taken_from(path: str) -> tuple[str, str | None]:
    """A path without the token that it carries, and the token; None if it carries none."""
    if not path.startswith(_PATH_PREFIX):
        return path, None
    token, slash, rest = path.removeprefix(_PATH_PREFIX).partition("/")
    return slash + rest, token
