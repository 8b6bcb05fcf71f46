"""A local Google Cloud for the engine's tests: a real process, one for the session, a project of its own per test."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import google.oauth2.credentials
import pytest

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import Target
from orchestra_lib.local.control import process

_numbers = count(1)


@dataclass(frozen=True)
class Plane:
    """A running control plane."""

    url: str
    token: str

    def client(self) -> Client:
        """A client of it."""
        return Client(Target("local", self.url, google.oauth2.credentials.Credentials(self.token)))

    def state(self, project: str) -> dict[str, Any]:
        """Every live resource of a project, and the project, by key."""
        found = self._ask("GET", "/_local/state")["resources"]
        names = (f"/projects/{project}/", f"/projects/{project}")
        return {key: body for key, body in found.items() if names[0] in key or key.endswith(names[1])}

    def inject(self, **faults: Any) -> None:
        """Set what goes wrong from now on; without arguments nothing does."""
        self._ask("POST", "/_local/faults", faults)

    def _ask(self, verb: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=verb)  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read() or b"{}")


@pytest.fixture(scope="session")
def _plane() -> Iterator[Plane]:
    directory = Path(tempfile.mkdtemp(prefix="orchestra-plane-"))
    started = process.up(directory, latency="0")
    try:
        yield Plane(started.url, Path(started.token_file).read_text().strip())
    finally:
        process.down(directory)
        shutil.rmtree(directory)


@pytest.fixture
def plane(_plane: Plane) -> Iterator[Plane]:
    """The control plane, with nothing going wrong at the start and at the end."""
    _plane.inject()
    yield _plane
    _plane.inject()


@pytest.fixture
def project() -> str:
    """The id of a project that does not exist yet."""
    return f"engine-test-{next(_numbers):04}"


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries keep their number and lose their pauses."""
    from orchestra_lib.cloud import apply

    monkeypatch.setattr(apply, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(apply, "_LONGEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(apply, "_JITTER_SECONDS", 0.01)
