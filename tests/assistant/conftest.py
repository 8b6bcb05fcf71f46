"""A control plane whose stand-in plays Google's models, and a client of them."""

from __future__ import annotations

from collections.abc import Iterator

import google.oauth2.credentials
import pytest
from control_plane import PROJECT, TOKEN, Server, serving
from google import genai

from orchestra_lib.assistant.calls import genai_client
from orchestra_lib.cloud.target import Target


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("models")) as running:
        running.new_project(PROJECT, "aiplatform")
        yield running


@pytest.fixture
def target(server: Server) -> Iterator[Target]:
    yield Target("local", server.url, google.oauth2.credentials.Credentials(TOKEN))
    server.inject()


@pytest.fixture
def client(target: Target) -> genai.Client:
    return genai_client(target, PROJECT, "global")


@pytest.fixture(autouse=True)
def _no_pauses() -> Iterator[None]:
    """Retries keep their number and lose their pauses."""
    import stamina

    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)
