"""A few points of tests/faults/killed_apply.py, which has fifty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from killing import Trial
from planes import running_plane

pytestmark = pytest.mark.slow

POINTS = 5


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with running_plane(latency="0.004") as plane:
        yield Trial(plane, "stack", tmp_path_factory.mktemp("journals"), seed=3)


@pytest.mark.parametrize("number", range(1, POINTS + 1))
def test_an_apply_and_a_rollback_killed_anywhere_converge_when_run_again(trial: Trial, number: int) -> None:
    point = trial.point(number)
    assert point.kills
    assert not point.problems, str(point)
