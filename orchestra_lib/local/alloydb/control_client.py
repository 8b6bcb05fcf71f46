"""What the data plane asks the control plane: which instances there are, who their users are, whether a token counts.

Plain HTTP on loopback with the control plane's own REST interface; nothing is remembered between two questions.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.alloydb.roles import User

_TIMEOUT_SECONDS = 30
API = "alloydb/v1beta"
_PAGE_SIZE = 1000
_SERVING = frozenset({"READY", "UPDATING", "MAINTENANCE"})
# A proxy of the environment must not see calls to this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ControlFault(Exception):
    """The control plane answered with an error: its code word (``NOT_FOUND``) and its sentence."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def database_user(principal: str) -> str:
    """The name that an IAM principal, given by its e-mail address, has in the database.

    https://cloud.google.com/alloydb/docs/database-users/manage-iam-auth
    """
    return principal.removesuffix(".gserviceaccount.com")


@dataclass(frozen=True)
class Instance:
    """An instance as the data plane needs it. ``name`` is the full resource name."""

    name: str
    uid: str
    kind: str
    state: str
    address: str
    flags: Mapping[str, str]
    version: str
    """``POSTGRES_16``"""

    @property
    def is_serving(self) -> bool:
        """Whether connections are taken now."""
        return self.state in _SERVING and self.kind == "PRIMARY"

    @property
    def iam_authentication(self) -> bool:
        """Whether IAM users may log in. https://cloud.google.com/alloydb/docs/database-users/manage-iam-auth"""
        return self.flags.get("alloydb.iam_authentication", "off").lower() == "on"


class ControlClient:
    """Calls of the control plane at ``url`` (no trailing slash), with the token that its file holds at that moment."""

    def __init__(self, url: str, token_file: Path) -> None:
        self._url, self._token_file = url, token_file

    def instances(self) -> list[Instance]:
        """Every instance of every project."""
        pages = self._pages("projects/-/locations/-/clusters/-/instances", "instances")
        return [_instance(body) for body in pages]

    def instance(self, name: str) -> Instance:
        """One instance. Raises ControlFault (NOT_FOUND)."""
        return _instance(self.call("GET", f"{API}/{name}"))

    def users(self, cluster: str) -> list[User]:
        """The database users of a cluster that can log in."""
        return [_user(body) for body in self._pages(f"{cluster}/users", "users")]

    def principal(self, token: str) -> str:
        """The e-mail address of a token's holder. Raises ControlFault (UNAUTHENTICATED) when it does not count."""
        return str(self.call("GET", "_local/caller", token=token)["email"])

    def call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, token: str | None = None
    ) -> dict[str, Any]:
        """The answer to one call. Raises ControlFault for an error, TargetUnreachable when nobody answers."""
        token = self._own_token() if token is None else token
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

    def _own_token(self) -> str:
        try:
            return self._token_file.read_text().strip()
        except OSError as error:
            raise TargetUnreachable(
                f"the local control plane's token cannot be read from {self._token_file}: {error.strerror}; "
                "start it with: python -m orchestra_lib local up"
            ) from error

    def _pages(self, path: str, field: str) -> Iterator[dict[str, Any]]:
        query = {"pageSize": str(_PAGE_SIZE)}
        while True:
            answer = self.call("GET", f"{API}/{path}?{urlencode(query)}")
            yield from answer.get(field, [])
            if not answer.get("nextPageToken"):
                return
            query["pageToken"] = answer["nextPageToken"]


def _instance(body: Mapping[str, Any]) -> Instance:
    return Instance(
        body["name"],
        body["uid"],
        body.get("instanceType", ""),
        body.get("state", ""),
        body.get("ipAddress", ""),
        body.get("databaseFlags", {}),
        body.get("maintenanceVersionName", "").partition(".")[0],
    )


def _user(body: Mapping[str, Any]) -> User:
    name = unquote(body["name"].rpartition("/users/")[2])
    is_iam = body.get("userType") == "ALLOYDB_IAM_USER"
    return User(database_user(name) if is_iam else name, is_iam, tuple(body.get("databaseRoles", [])))


def _fault(error: urllib.error.HTTPError) -> ControlFault:
    text = error.read().decode(errors="replace")
    try:
        told = json.loads(text)["error"]
        return ControlFault(told["status"], told["message"])
    except (ValueError, KeyError, TypeError):
        return ControlFault("INTERNAL", f"the control plane answered {error.code}: {text[:200]}")
