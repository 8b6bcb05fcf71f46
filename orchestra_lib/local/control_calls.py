"""Calls of a data plane to the control plane: plain HTTP on loopback, with the control plane's own REST interface.

Nothing is remembered between two calls, so it does not matter which of the two was restarted.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestra_lib.errors import TargetUnreachable

_TIMEOUT_SECONDS = 30
# A proxy of the environment must not see calls to this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ControlFault(Exception):
    """The control plane answered with an error: its code word (``NOT_FOUND``) and its sentence."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class ControlCalls:
    """Calls of the control plane at ``url`` (no trailing slash), with the token that its file holds at that moment."""

    def __init__(self, url: str, token_file: Path) -> None:
        self._url, self._token_file = url, token_file

    def principal(self, token: str) -> str:
        """The e-mail address of a token's holder. Raises ControlFault (UNAUTHENTICATED) when it does not count."""
        return str(self.call("GET", "_local/caller", token=token)["email"])

    def call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, token: str | None = None
    ) -> dict[str, Any]:
        """The answer to one call. Raises ControlFault for an error, TargetUnreachable when nobody answers."""
        token = self.own_token() if token is None else token
        request = urllib.request.Request(  # noqa: S310 - the URL is the control plane's own, http on loopback
            f"{self._url}/{quote(path, safe='/:?=&@-._~')}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                found: dict[str, Any] = json.loads(answer.read())
                return found
        except urllib.error.HTTPError as error:
            raise _fault(error) from error
        except OSError as error:
            raise TargetUnreachable(
                f"the local control plane does not answer at {self._url}: {error}; "
                "start it with: python -m orchestra_lib local up"
            ) from error

    def own_token(self) -> str:
        """The operator's token. Raises TargetUnreachable when it cannot be read."""
        try:
            return self._token_file.read_text().strip()
        except OSError as error:
            raise TargetUnreachable(
                f"the local control plane's token cannot be read from {self._token_file}: {error.strerror}; "
                "start it with: python -m orchestra_lib local up"
            ) from error


def _fault(error: urllib.error.HTTPError) -> ControlFault:
    text = error.read().decode(errors="replace")
    try:
        told = json.loads(text)["error"]
        return ControlFault(told["status"], told["message"])
    except (ValueError, KeyError, TypeError):
        return ControlFault("INTERNAL", f"the control plane answered {error.code}: {text[:200]}")
