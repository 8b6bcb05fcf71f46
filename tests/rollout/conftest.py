"""A service on a local Cloud Run of these tests' own, and a rollout's view of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from google.oauth2.credentials import Credentials
from run_planes import RunPlanes, running

from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import Target
from orchestra_lib.rollout.service import RunService

_numbers = count(1)


class Bench:
    """What a test needs: templates of the app with an environment, and a new service."""

    def __init__(self, planes: RunPlanes) -> None:
        self.planes = planes
        self.client = Client(Target("local", planes.url, Credentials(planes.token)))
        self.image = planes.image(**{"service/app.py": (Path(__file__).parent / "app.py").read_text()})

    def template(self, **environment: str) -> dict[str, Any]:
        """A template; it starts one instance and keeps it."""
        return self.planes.template(self.image, env=environment, scaling={"minInstanceCount": 1})

    def service(self) -> RunService:
        """A new service whose first revision serves everything."""
        made = self.planes.service(f"api-{next(_numbers)}", template=self.template(), invokerIamDisabled=True)
        return RunService(self.client, made.name)


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    with running() as planes:
        yield Bench(planes)
