"""A local Google Cloud for the engine's tests: a real process, one for the session, a project of its own per test."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from planes import Plane, running_plane

_numbers = count(1)


@pytest.fixture(scope="session")
def _plane() -> Iterator[Plane]:
    with running_plane(latency="0") as found:
        yield found


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
