"""Every way to fake success that is planted ends red, for the right reason; tests/lies/run.py plants all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import catalogue
import pytest
from lie import Lie, World, at_home

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with at_home(tmp_path):
        yield tmp_path


def every(needs_stores: bool) -> pytest.MarkDecorator:
    chosen = [one for one in catalogue.LIES if one.needs_stores is needs_stores and not one.is_long]
    return pytest.mark.parametrize("planted", chosen, ids=lambda one: one.name)


def caught(planted: Lie, world: World) -> None:
    said = planted.plant(world)
    assert said, f"NOT CAUGHT: {planted.name}"
    assert re.search(planted.reason, said, re.DOTALL), said


@every(needs_stores=False)
def test_a_lie_about_the_record_or_the_cloud_ends_red(planted: Lie, home: Path) -> None:
    caught(planted, World(home))


@every(needs_stores=True)
def test_a_lie_about_a_store_ends_red(planted: Lie, home: Path, pair) -> None:
    caught(planted, World(home, pair))


def test_there_are_at_least_twenty_and_no_two_are_called_alike() -> None:
    names = [one.name for one in catalogue.LIES]
    assert len(names) == len(set(names)) >= 20
