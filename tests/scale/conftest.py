"""What the tests of scale/ share: a transfer whose slot goes with the test, and whether Beam is wanted."""

from __future__ import annotations

import os

import pytest
from transfers import clear, prepare, spec_of

ROWS = 600


def pytest_collection_modifyitems(items):
    """Skip what needs Beam where scripts/scale_tests.sh has not asked for it."""
    if os.environ.get("ORCHESTRA_SCALE_TESTS"):
        return
    skip = pytest.mark.skip(reason="needs Apache Beam's own environment: run scripts/scale_tests.sh")
    for item in items:
        if item.path.name.startswith("test_beam"):
            item.add_marker(skip)


@pytest.fixture
def transfer(pair, tmp_path):
    """A filled source, an empty target, and the transfer between them."""
    prepare(pair, ROWS)
    spec = spec_of(pair, tmp_path)
    yield spec
    clear(pair, spec)
