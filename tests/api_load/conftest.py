"""The service of ``app`` as a process of its own: in this one it would wait for the load's own interpreter."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from orchestra_lib.api_load.workload import Kind, Workload


@pytest.fixture
def workload() -> Iterator[Callable[..., Workload]]:
    """Starts a service with an environment and returns what is asked of it: two kinds, with goals of 60 and 50 ms."""
    started = []

    def made(**environment: object) -> Workload:
        with socket.socket() as probing:
            probing.bind(("127.0.0.1", 0))
            port = probing.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--lifespan", "off"]
        told = {name: str(value) for name, value in environment.items()}
        started.append(
            subprocess.Popen(
                [*command, "--log-level", "warning", "--no-access-log"],
                env={**os.environ, **told},
                cwd=Path(__file__).parent,
            )
        )
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                httpx.get(url, trust_env=False)
                break
            time.sleep(0.05)
        kinds = (
            Kind("search", tuple({"method": "POST", "url": f"/search/{n}", "json": [n]} for n in range(3)), 60.0),
            Kind("retrieval", ({"method": "GET", "url": "/history?limit=2"},), 50.0),
        )
        return Workload(url, kinds, lambda: {"Authorization": "Bearer nobody's"})

    yield made
    for process in started:
        process.kill()
        process.wait()
