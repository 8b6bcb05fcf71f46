"""A control plane with Cloud Run's data plane, as tests use them: images, services, callers."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
from control_plane import Reply, send
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import run_v2
from google.oauth2.credentials import Credentials

from orchestra_lib.local.control import process
from orchestra_lib.local.control.control import ControlPlane
from orchestra_lib.local.control.operations import Latency
from orchestra_lib.local.run import asking, presence, program

PROJECT, REGION = "run-tests", "us-central1"
LOCATION = f"projects/{PROJECT}/locations/{REGION}"
REPOSITORY = f"{REGION}-docker.pkg.dev/{PROJECT}/images"
ACCOUNT = f"service@{PROJECT}.iam.gserviceaccount.com"
INVOKER = f"invoker@{PROJECT}.iam.gserviceaccount.com"
STRANGER = f"stranger@{PROJECT}.iam.gserviceaccount.com"
SERVICES = ("apigateway", "artifactregistry", "cloudbuild", "iam", "iamcredentials", "run", "secretmanager")
APP = Path(__file__).parent / "local" / "run" / "app.py"
DOCKERFILE = """\
FROM python:3.11-slim
ENV COLOUR=grey
WORKDIR /srv
COPY requirements.txt .
RUN pip install -r requirements.txt
COPY service/ service/
USER 1000
CMD ["uvicorn", "service.app:app", "--no-access-log"]
"""
PROBE = {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 20, "httpGet": {"path": "/ready"}}
_COMMAND = ["sh", "-c", 'exec uvicorn service.app:app --log-level warning --port "$PORT"']
_TYPE = "TRAFFIC_TARGET_ALLOCATION_TYPE"
_numbers = count(1)


def to(revision: str, percent: int, tag: str = "") -> dict[str, Any]:
    """A share of the traffic for a revision."""
    return {"type": f"{_TYPE}_REVISION", "revision": revision, "percent": percent, **({"tag": tag} if tag else {})}


def latest(percent: int = 100, tag: str = "") -> dict[str, Any]:
    """A share for the latest revision."""
    return {"type": f"{_TYPE}_LATEST", "percent": percent, **({"tag": tag} if tag else {})}


def unpacking(files: Mapping[str, str | bytes]) -> str:
    """A script that writes files into the workspace."""
    lines = ["#!/usr/bin/env bash", "set -o errexit"]
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        lines.append(f"mkdir -p -- $(dirname -- {name})")
        lines.append(f"base64 --decode > {name} <<< '{base64.b64encode(raw).decode()}'")
    return "\n".join(lines)


def source(**more: str) -> dict[str, str | bytes]:
    """The files of the tests' service."""
    return {
        "Dockerfile": DOCKERFILE,
        "requirements.txt": "uvicorn\n",
        "service/app.py": APP.read_bytes(),
        "service/__init__.py": "",
        **more,
    }


@dataclass
class RunPlanes:
    """Both planes: where they are, and what a test does with them."""

    directory: Path
    url: str
    token_file: Path
    http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=30))

    @property
    def token(self) -> str:
        return self.token_file.read_text().strip()

    def call(self, method: str, path: str, body: Any = None) -> Reply:
        """One call of the control plane; ``path`` begins with the service and the version."""
        answer = self.http.request(
            method, f"{self.url}/{path}", json=body, headers={"Authorization": f"Bearer {self.token}"}
        )
        return Reply(answer.status_code, answer.json())

    def ended(self, api: str, reply: Reply, seconds: float = 30) -> dict[str, Any]:
        """The operation of a call when it has ended."""
        assert reply.status == 200, reply.body
        operation, deadline = reply.body, time.monotonic() + seconds
        while not operation.get("done"):
            assert time.monotonic() < deadline, operation
            time.sleep(0.02)
            operation = self.call("GET", f"{api}/{operation['name']}").body
        return operation

    def done(self, api: str, reply: Reply, seconds: float = 30) -> dict[str, Any]:
        """Its response; fails with its error."""
        operation = self.ended(api, reply, seconds)
        assert "response" in operation, operation
        return operation["response"]

    # --- images and services ---

    def build(self, files: Mapping[str, str | bytes], image: str) -> dict[str, Any]:
        """The operation of a build, ended."""
        body = {
            "steps": [
                {"name": "gcr.io/cloud-builders/docker", "script": unpacking(files)},
                {"name": "gcr.io/cloud-builders/docker", "args": ["build", "--tag", "${_IMAGE}", "."]},
            ],
            "images": ["${_IMAGE}"],
            "substitutions": {"_IMAGE": image},
        }
        path = f"cloudbuild/v1/{LOCATION}/builds"
        return self.ended("cloudbuild/v1", self.call("POST", path, body))

    def image(self, **more: str) -> str:
        """A new image of the tests' service."""
        name = f"{REPOSITORY}/app:v{next(_numbers)}"
        operation = self.build(source(**more), name)
        assert "response" in operation, operation
        return name

    def template(self, image: str, *, scaling: Mapping[str, int] | None = None, **more: Any) -> dict[str, Any]:
        """A template of a service; ``env`` gives variables."""
        env = [{"name": name, "value": value} for name, value in more.pop("env", {}).items()]
        container = {
            "image": image,
            "command": _COMMAND,
            "startupProbe": PROBE,
            "env": env,
            **more.pop("container", {}),
        }
        return {"containers": [container], "serviceAccount": ACCOUNT, "scaling": dict(scaling or {}), **more}

    def service(self, name: str, **body: Any) -> Service:
        """A new service, rolled out."""
        reply = self.call("POST", f"run/v2/{LOCATION}/services?serviceId={name}", body)
        return Service(self, self.done("run/v2", reply)["name"])

    def typed(self) -> run_v2.ServicesClient:
        """Google's own client."""
        options = {"api_endpoint": f"{self.url}/run"}
        return run_v2.ServicesClient(transport="rest", credentials=Credentials(self.token), client_options=options)

    def id_token(self, email: str, audience: str) -> str:
        """What a service account shows when it calls."""
        path = f"iamcredentials/v1/projects/-/serviceAccounts/{email}:generateIdToken"
        return self.call("POST", path, {"audience": audience, "includeEmail": True}).body["token"]

    # --- the data plane ---

    def want(self, idle_seconds: float = 900) -> None:
        program.want(self.directory, presence.Wanted(self.url, str(self.token_file), idle_seconds))

    def told(self) -> dict[str, Any]:
        plane = program.status(self.directory)
        assert plane is not None
        return asking.ask(plane, self.token_file)

    def kill(self) -> None:
        """End the data plane without a chance to finish anything."""
        plane = program.status(self.directory)
        assert plane is not None
        os.kill(plane.pid, signal.SIGKILL)
        soon(lambda: program.status(self.directory) is None)


@dataclass(frozen=True)
class Service:
    """A service by its full name, and calls of it as its invoker."""

    planes: RunPlanes
    name: str

    @property
    def body(self) -> dict[str, Any]:
        return self.planes.call("GET", f"run/v2/{self.name}").body

    @property
    def uri(self) -> str:
        return self.body["uri"]

    @property
    def latest(self) -> str:
        return self.body["latestReadyRevision"].rsplit("/", 1)[1]

    def begin(self, **body: Any) -> Reply:
        """Start a patch of the fields that are given."""
        return self.planes.call("PATCH", f"run/v2/{self.name}?updateMask={','.join(body)}", body)

    def patch(self, **body: Any) -> dict[str, Any]:
        """The service after a patch that succeeded."""
        return self.planes.done("run/v2", self.begin(**body))

    def told(self, revision: str = "") -> dict[str, Any]:
        """What the data plane counts: of the service, or of one revision."""
        service = next(one for one in self.planes.told()["services"] if one["name"] == self.name)
        return service["revisions"][revision] if revision else service

    def allow(self, *members: str) -> None:
        """Let members invoke it."""
        policy = {"policy": {"bindings": [{"role": "roles/run.invoker", "members": list(members)}]}}
        assert self.planes.call("POST", f"run/v2/{self.name}:setIamPolicy", policy).status == 200


def soon(happened: Callable[[], Any], seconds: float = 10) -> Any:
    """What ``happened`` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, f"did not happen within {seconds} s"
        time.sleep(0.02)
    return found


def furnish(directory: Path) -> None:
    """A project with the services enabled, three accounts and a repository."""
    control = ControlPlane(directory, token="not in use", latency=Latency(0))
    with control.writing():
        control.projects.create(PROJECT, time.time())
        for service in SERVICES:
            name = f"projects/{PROJECT}/services/{service}.googleapis.com"
            control.store.put(f"serviceusage/{name}", {"name": name, "state": "ENABLED"})
        for number, email in enumerate((ACCOUNT, INVOKER, STRANGER)):
            name = f"projects/{PROJECT}/serviceAccounts/{email}"
            body = {"name": name, "email": email, "uniqueId": str(10**20 + number), "projectId": PROJECT}
            control.store.put(f"iam/{name}", body)
        name = f"{LOCATION}/repositories/images"
        body = {
            "name": name,
            "format": "DOCKER",
            "mode": "STANDARD_REPOSITORY",
            "dockerConfig": {"immutableTags": True},
        }
        control.store.put(f"artifactregistry/{name}", body)
    control.close()


@contextmanager
def running() -> Iterator[RunPlanes]:
    """Both planes with a state of their own, as long as the block lasts."""
    state = Path(tempfile.mkdtemp(prefix="orchestra-run-"))
    directory = process.directory(state)
    directory.mkdir(parents=True)
    furnish(directory)
    try:
        control = process.up(state, latency="0")
        found = RunPlanes(directory, control.url, Path(control.token_file))
        found.want()
        yield found
        found.http.close()
    finally:
        program.down(directory)
        process.down(state)
        shutil.rmtree(state)


__all__ = ["GoogleAPICallError", "psutil", "send"]
