"""A running local Google Cloud for the engine's tests and programs, and what it holds of one project."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google.oauth2.credentials

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import Target
from orchestra_lib.local.control import process

# Changes by itself at every write, or is drawn anew when a resource is made again.
_VOLATILE = re.compile(
    r"etag|fingerprint|Time$|Timestamp$|^uid$|^id$|uniqueId|oauth2ClientId|selfLinkWithId", re.IGNORECASE
)
_GONE = frozenset({"DELETED", "DISABLED", "DELETE_REQUESTED"})


@dataclass(frozen=True)
class Plane:
    """A running control plane."""

    url: str
    token: str
    directory: Path
    """Where it keeps its state."""

    def client(self) -> Client:
        """A client of it."""
        return Client(Target("local", self.url, google.oauth2.credentials.Credentials(self.token)))

    def resources(self) -> dict[str, Any]:
        """Every resource by key, those of all projects."""
        return self._ask("GET", "/_local/state")["resources"]

    def state(self, project: str) -> dict[str, Any]:
        """Every live resource of a project, and the project, by key."""
        names = (f"/projects/{project}/", f"/projects/{project}")
        return {key: body for key, body in self.resources().items() if names[0] in key or key.endswith(names[1])}

    def policies(self) -> dict[str, Any]:
        """Every IAM policy that was ever set, by the key of its resource."""
        with closing(sqlite3.connect(f"file:{self.directory / 'control.sqlite'}?mode=ro", uri=True)) as store:
            return {key: json.loads(policy) for key, policy in store.execute("select key, policy from policies")}

    def inject(self, **faults: Any) -> None:
        """Set what goes wrong from now on; without arguments nothing does."""
        self._ask("POST", "/_local/faults", faults)

    def _ask(self, verb: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=verb)  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read() or b"{}")


@contextmanager
def running_plane(latency: str) -> Iterator[Plane]:
    """A control plane with a state of its own, removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="orchestra-plane-"))
    try:
        started = process.up(directory, latency=latency)
        yield Plane(started.url, Path(started.token_file).read_text().strip(), Path(started.state_dir))
    finally:
        process.down(directory)
        shutil.rmtree(directory)


def settled(plane: Plane, project: str) -> dict[str, Any]:
    """The state of a project without what changes by itself and without what is deleted or not enabled."""
    return {key: steady(body) for key, body in plane.state(project).items() if is_there(key, body)}


def is_there(key: str, body: Any) -> bool:
    """Whether a resource counts as being there: deleted ones stay in sight for a while."""
    if body.get("billingAccountName") == "":
        return False  # a project whose billing was taken away again has none, as before
    return "/deletedServiceAccounts/" not in key and not {body.get("state"), body.get("lifecycleState")} & _GONE


def steady(value: Any) -> Any:
    """A body without what changes by itself."""
    if isinstance(value, dict):
        return {name: steady(item) for name, item in value.items() if not _VOLATILE.search(name)}
    return [steady(item) for item in value] if isinstance(value, list) else value
