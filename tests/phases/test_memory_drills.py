"""What a drill that was cut off has left is cleared away by a run that applies, and told by one that plans."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestra_lib.drills import point_in_time, switchover
from orchestra_lib.drills.journal import DrillJournal
from orchestra_lib.phases.memory_drills import DrillSteps


@pytest.mark.parametrize(
    ("drill", "left"), [(point_in_time.DRILL, {"cluster": "a-drill"}), (switchover.DRILL, {"primary": "a"})]
)
def test_a_plan_calls_nobody_and_leaves_the_drill_to_a_run_that_applies(
    tmp_path: Path, drill: str, left: dict[str, str]
) -> None:
    notes: list[str] = []
    run = SimpleNamespace(settings=SimpleNamespace(run=SimpleNamespace(mode="plan")), note=notes.append)
    path = tmp_path / "drills.jsonl"
    stores = SimpleNamespace(run=run, journal=lambda _name: path, cloud=SimpleNamespace())  # it has no client to ask
    DrillSteps(stores).clear()  # type: ignore[arg-type]
    assert notes == []
    DrillJournal(path).begin(drill, left)
    DrillSteps(stores).clear()  # type: ignore[arg-type]
    ((what, name),) = left.items()
    assert notes == [f"drill {drill} was cut off ({what} {name}): a run in mode apply clears up after it first"]
    assert DrillJournal(path).open(drill) == left
