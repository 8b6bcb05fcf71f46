"""A control plane for the tests of a module, with a project in which everything is enabled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from control_plane import PROJECT, Server, serving

SERVICES = (
    "aiplatform",
    "alloydb",
    "artifactregistry",
    "cloudbuild",
    "compute",
    "iam",
    "run",
    "secretmanager",
    "workstations",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("control")) as running:
        running.new_project(PROJECT, *SERVICES)
        yield running


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """One of the test's own, for tests that count or break things."""
    with serving(tmp_path) as running:
        running.new_project(PROJECT, *SERVICES)
        yield running


@pytest.fixture(autouse=True)
def nothing_goes_wrong_by_leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").inject()
