"""The local Cloud Run for the tests of a session: a control plane, a data plane, one image."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from run_planes import INVOKER, RunPlanes, Service, running

_numbers = count(1)


@pytest.fixture(scope="session")
def planes() -> Iterator[RunPlanes]:
    with running() as found:
        yield found


@pytest.fixture(scope="session")
def image(planes: RunPlanes) -> str:
    """An image of the tests' service."""
    return planes.image()


@pytest.fixture
def new_name() -> str:
    return f"service-{next(_numbers)}"


@pytest.fixture(scope="session")
def plain(planes: RunPlanes, image: str) -> Service:
    """A service that everybody may call; for tests that leave it as it was."""
    return planes.service("plain", template=planes.template(image), invokerIamDisabled=True)


@pytest.fixture(scope="session")
def private(planes: RunPlanes, image: str) -> Service:
    """A service that one account may call."""
    service = planes.service("private", template=planes.template(image))
    service.allow(f"serviceAccount:{INVOKER}")
    return service
