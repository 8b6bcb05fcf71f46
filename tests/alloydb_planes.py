"""A control plane with AlloyDB's data plane, as tests use them: what there is, and builders of clusters and users."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg
import psycopg.conninfo

from orchestra_lib.local.alloydb import local_door, program
from orchestra_lib.local.control.control import ControlPlane
from orchestra_lib.local.control.operations import Latency

PROJECT = "alloydb-tests"
OPERATOR_PASSWORD = "pass wörd '\\"
SERVICE_ACCOUNT = f"app@{PROJECT}.iam.gserviceaccount.com"
_numbers = count(1)


class OperationFailed(Exception):
    """An operation ended with an error; the message is its."""


@dataclass(frozen=True)
class Planes:
    """Both planes: where they are, and whose tokens count."""

    directory: Path
    url: str
    token_file: Path
    authority: Path
    operator: str
    service_account_token: str

    @property
    def state(self) -> Path:
        """The state directory that everything lies in."""
        return self.directory.parent.parent

    @property
    def token(self) -> str:
        """The operator's token."""
        return self.token_file.read_text().strip()

    def start(self) -> program.DataPlane:
        """The data plane, started if it does not run."""
        return program.up(self.directory, self.url, self.token_file, self.authority)

    def call(self, method: str, path: str, body: Any = None, version: str = "v1") -> dict[str, Any]:
        """One call of AlloyDB's REST interface; waits for an operation. Raises HTTPError."""
        answer = self._ask(method, f"alloydb/{version}/{path}", body)
        while "/operations/" in answer.get("name", "") and not answer.get("done"):
            time.sleep(0.01)
            answer = self._ask("GET", f"alloydb/{version}/{answer['name']}")
        return answer

    def done(self, method: str, path: str, body: Any = None, version: str = "v1") -> dict[str, Any]:
        """The response of a call's operation; raises OperationFailed."""
        answer = self.call(method, path, body, version)
        if "error" in answer:
            raise OperationFailed(answer["error"]["message"])
        return answer.get("response", {})

    def begin(self, method: str, path: str, body: Any = None) -> str:
        """Start an operation and return its name at once."""
        return str(self._ask(method, f"alloydb/v1/{path}", body)["name"])

    def kill(self) -> None:
        """End the data plane without a chance to finish anything."""
        plane = program.status(self.directory)
        assert plane is not None
        os.kill(plane.pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(plane.pid)] if psutil.pid_exists(plane.pid) else [], timeout=5)
        assert program.status(self.directory) is None

    def listening(self, address: str) -> None:
        """Return when somebody listens on an instance's address."""
        deadline = time.monotonic() + 5
        while True:
            try:
                socket.create_connection((address, 5433), timeout=5).close()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, f"nobody listens on {address}"
                time.sleep(0.02)
            else:
                return

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            told = error.read()  # in the message too, so that a test that did not want it says why
            raise urllib.error.HTTPError(
                error.url, error.code, told.decode(), error.headers, io.BytesIO(told)
            ) from None

    def cluster(self, version: str = "POSTGRES_16", name: str = "") -> Cluster:
        """A new cluster whose ``postgres`` has the operator's password."""
        parent = f"projects/{PROJECT}/locations/us-central1"
        name = name or f"c{next(_numbers)}"
        self.call(
            "POST",
            f"{parent}/clusters?clusterId={name}",
            {
                "networkConfig": {"network": f"projects/{PROJECT}/global/networks/default"},
                "databaseVersion": version,
                "initialUser": {"user": "postgres", "password": OPERATOR_PASSWORD},
            },
        )
        return Cluster(self, f"{parent}/clusters/{name}")


@dataclass(frozen=True)
class Cluster:
    """A cluster of the local AlloyDB, by its full name."""

    planes: Planes
    name: str

    def instance(self, name: str = "primary", kind: str = "PRIMARY", **flags: str) -> str:
        """A new instance with these database flags (``__`` stands for a dot); returns its full name."""
        body = {"instanceType": kind, "databaseFlags": {key.replace("__", "."): value for key, value in flags.items()}}
        body |= {"readPoolConfig": {"nodeCount": 1}} if kind == "READ_POOL" else {}
        self.planes.call("POST", f"{self.name}/instances?instanceId={name}", body)
        return f"{self.name}/instances/{name}"

    def set_flags(self, instance: str, **flags: str) -> None:
        """Replace the database flags of an instance."""
        body = {"databaseFlags": {key.replace("__", "."): value for key, value in flags.items()}}
        self.planes.call("PATCH", f"{instance}?updateMask=databaseFlags", body)

    def secondary(self, region: str = "us-east1") -> Cluster:
        """A new cluster in another region that follows this one, with its instance."""
        name = f"c{next(_numbers)}"
        parent = f"{self.name.partition('/locations/')[0]}/locations/{region}"
        network = {"network": f"projects/{PROJECT}/global/networks/default"}
        body = {"secondaryConfig": {"primaryClusterName": self.name}, "networkConfig": network}
        self.planes.done("POST", f"{parent}/clusters:createsecondary?clusterId={name}", body)
        found = Cluster(self.planes, f"{parent}/clusters/{name}")
        self.planes.done("POST", f"{found.name}/instances:createsecondary?instanceId=primary", {})
        return found

    def restored(self, **source: Any) -> Cluster:
        """A new cluster with this one's data as of a backup or a point in time; raises OperationFailed."""
        name = f"c{next(_numbers)}"
        parent = self.name.rpartition("/clusters/")[0]
        network = {"networkConfig": {"network": f"projects/{PROJECT}/global/networks/default"}}
        self.planes.done("POST", f"{parent}/clusters:restore", {"clusterId": name, "cluster": network, **source})
        return Cluster(self.planes, f"{parent}/clusters/{name}")

    def restored_at(self, moment: datetime) -> Cluster:
        """A new cluster with this one's data at a point in time; raises OperationFailed."""
        point = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return self.restored(continuousBackupSource={"cluster": self.name, "pointInTime": point})

    @property
    def primary(self) -> str:
        """The full name of the instance that is not a read pool."""
        return f"{self.name}/instances/primary"

    def session(self, instance: str = "primary", user: str = "alloydbadmin") -> psycopg.Connection:
        """A session, in autocommit, with an instance over its own socket, as AlloyDB's own superuser."""
        found = local_door.ask(self.planes.directory, f"{self.name}/instances/{instance}")
        address = {"host": found["socket_directory"], "port": found["port"], "user": user, "dbname": "postgres"}
        return psycopg.connect(psycopg.conninfo.make_conninfo(**address), autocommit=True)

    def user(self, name: str, **body: Any) -> None:
        """A new database user."""
        self.planes.call("POST", f"{self.name}/users?userId={name}", body)

    def data(self, instance: str) -> Path:
        """Where the server of an instance keeps its data."""
        return self.planes.directory / "alloydb" / ".".join(instance.split("/")[1::2])


def soon(happened: Callable[[], bool], seconds: float = 10) -> None:
    """Return when something has happened; fails when it does not."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s"
        time.sleep(0.02)


def furnish(directory: Path) -> tuple[str, str]:
    """Give a new control plane a project with AlloyDB enabled; returns the operator and a service account's token."""
    control = ControlPlane(directory, token="not in use", latency=Latency(0))
    with control.writing():
        control.projects.create(PROJECT, time.time())
        control.store.put(f"serviceusage/projects/{PROJECT}/services/alloydb.googleapis.com", {"state": "ENABLED"})
        token = control.tokens.issue(SERVICE_ACCOUNT, time.time() + 3600)
    control.close()
    return control.organization.operator, token
