"""A control plane of the tests' own: in this process, on a free port, with its state in a directory of the test's."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.oauth2.credentials import Credentials
from googleapiclient import discovery

from orchestra_lib.local.control.control import ControlPlane
from orchestra_lib.local.control.operations import Latency
from orchestra_lib.local.control.server import listening_socket, uvicorn_server

TOKEN = "the-operators-token"
PROJECT = "cherry-ai-project"


@dataclass(frozen=True)
class Reply:
    """An HTTP status and the JSON that came with it."""

    status: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        return self.body["error"]["message"]


def send(
    url: str, http_method: str, path: str, content: bytes | None = None, *, host: str = "", token: str | None = None
) -> Reply:
    """One HTTP request on a connection of its own."""
    headers = {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Host": host} if host else {}
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=10)
    try:
        connection.request(http_method, path, content, headers)
        answer = connection.getresponse()
        return Reply(answer.status, json.loads(answer.read()))
    finally:
        connection.close()


@dataclass(frozen=True)
class Server:
    """A running control plane: where it listens, and the object behind it."""

    url: str
    control: ControlPlane

    def send(
        self, http_method: str, path: str, body: Any = None, *, host: str = "", token: str | None = TOKEN
    ) -> Reply:
        """One request; ``path`` begins with the service's name unless a host is given."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        return send(self.url, http_method, path, content, host=host, token=token)

    def get(self, path: str) -> Reply:
        return self.send("GET", path)

    def post(self, path: str, body: Any = None) -> Reply:
        return self.send("POST", path, {} if body is None else body)

    def patch(self, path: str, body: Any) -> Reply:
        return self.send("PATCH", path, body)

    def delete(self, path: str) -> Reply:
        return self.send("DELETE", path)

    def inject(self, **what: Any) -> None:
        assert self.post("/_local/faults", what).status == 200

    def new_project(self, project: str = PROJECT, *services: str) -> None:
        """A project with services enabled in it."""
        with self.control.writing():
            self.control.projects.create(project, self.control.clock())
            for service in services:
                name = f"projects/{project}/services/{service}.googleapis.com"
                self.control.store.put(f"serviceusage/{name}", {"name": name, "state": "ENABLED"})

    def client(self, service: str, version: str) -> Any:
        """Google's own discovery client of a service."""
        # The client takes the endpoint in the place of host and service path, which only compute has.
        endpoint = f"{self.url}/{'compute/v1' if service == 'compute' else service}/"
        return discovery.build(
            service,
            version,
            credentials=Credentials(TOKEN),
            client_options={"api_endpoint": endpoint},
            static_discovery=True,
            cache_discovery=False,
        )


@contextmanager
def serving(
    directory: Path,
    *,
    permissive: bool = False,
    latency: float = 0,
    clock: Callable[[], float] = time.time,
) -> Iterator[Server]:
    control = ControlPlane(directory, token=None if permissive else TOKEN, latency=Latency(latency), clock=clock)
    listener = listening_socket(0)
    listener.listen()
    server = uvicorn_server(control)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", control)
    finally:
        server.should_exit = True
        thread.join()
        control.close()
        listener.close()
