"""A prepared store and a service over it, in a thread or as the process that the container runs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import uvicorn

from orchestra_lib.memory.schema import create_table
from orchestra_lib.service import schema
from orchestra_lib.service.app import create_app
from orchestra_lib.service.identity import digest
from orchestra_lib.service.settings import ServiceSettings

DIMENSION = 3
ROLE = "orchestra_memory_api"
USERS = ("ada", "grace", "linus")
EXPIRED = "expired-token"


@dataclass
class Api:
    """A running service: how to call it as one of the users."""

    url: str
    dsn: str
    app: Any = None
    loop: Any = None
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    def as_user(self, user: str | None = USERS[0]) -> httpx.Client:
        """A client with the user's token; None: with no token."""
        if user not in self.clients:
            headers = {"Authorization": f"Bearer {token_of(user)}"} if user else {}
            self.clients[user] = httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)
        return self.clients[user]

    def store(self, user: str = USERS[0], **changes: Any) -> str:
        """Store a memory and return its id."""
        answer = self.as_user(user).post("/v1/memories", json=memory(**changes))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def close(self) -> None:
        """Close every client."""
        for client in self.clients.values():
            client.close()


def token_of(user: str) -> str:
    """The token that the tests' file has for a user."""
    return f"token-of-{user}"


def memory(**changes: Any) -> dict[str, Any]:
    """A body that is stored."""
    return {
        "agent_id": "agent", "session_id": "session", "persona": "Cherry", "item_type": "note",
        "content": "Zürich is rainy ☂", "embedding": [0.1, 0.2, 0.3], "embedding_model": "test/1", **changes,
    }  # fmt: skip


def prepared(dsn: str, dimension: int) -> None:
    """Make an empty table and everything that the API needs."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(create_table(dimension=dimension))
        schema.prepare(connection, table="memories", role=ROLE)


def tokens_file(directory: Path) -> Path:
    """The file with a token for each user, and one that has expired."""
    later, before = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) - timedelta(hours=1)
    tokens = [{"sha256": digest(token_of(user)), "user": user, "expires_at": later.isoformat()} for user in USERS]
    tokens.append({"sha256": digest(EXPIRED), "user": USERS[0], "expires_at": before.isoformat()})
    path = directory / "tokens.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps({"tokens": tokens}))
    return path


def settings(dsn: str, directory: Path, **changes: Any) -> ServiceSettings:
    """Settings for a small store with short time-outs."""
    given = {"dsn": dsn, "tokens_file": str(tokens_file(directory)), "dimension": DIMENSION, "port": 0, **changes}
    return ServiceSettings.model_validate(given)


@contextmanager
def serve(dsn: str, directory: Path, **changes: Any) -> Iterator[Api]:
    """A service in a thread of this process."""
    app = create_app(settings(dsn, directory, **changes))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=5))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(),), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service has ended while it started"
        time.sleep(0.005)
    api = Api(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", dsn, app, loop)
    try:
        yield api
    finally:
        api.close()
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
        loop.close()


@contextmanager
def process(dsn: str, directory: Path, port: int, **changes: Any) -> Iterator[tuple[subprocess.Popen[bytes], Api]]:
    """The service as the container runs it, once it is ready."""
    given = {"dsn": dsn, "tokens_file": tokens_file(directory), "dimension": DIMENSION, **changes}
    environment = {f"ORCHESTRA_API_{name.upper()}": str(value) for name, value in given.items()}
    with (directory / "service.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "orchestra_lib.service"],
            env={**os.environ, **environment, "PORT": str(port)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    api = Api(f"http://127.0.0.1:{port}", dsn)
    try:
        wait_for(api, "/healthz", 200)
        yield running, api
    finally:
        api.close()
        running.kill()
        running.wait()


def wait_for(api: Api, path: str, status: int, seconds: float = 20.0) -> httpx.Response:
    """The answer, once it has this status."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(httpx.HTTPError):
            answer = api.as_user(None).get(path)
            if answer.status_code == status:
                return answer
        assert time.monotonic() < deadline, f"{path} has not answered {status} within {seconds:g} s"
        time.sleep(0.02)


def is_problem(answer: httpx.Response, status: int, kind: str) -> bool:
    """Whether an answer is this problem, in the form that problems have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == status
    assert body["type"] == f"urn:ai-orchestra:problem:{kind}", body
    return True


def ids(memories: Sequence[dict[str, Any]]) -> list[str]:
    """The ids of memories as they were answered."""
    return [one["id"] for one in memories]
