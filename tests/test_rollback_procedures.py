"""The strategy's rollback procedures, each by a hash of the state before and after.

Infrastructure and workstations are here. Memory: a restore to a moment, in drills/test_drills.py, and histories with a
return in faults/. API: traffic that goes back in one call, in rollout/test_blue_green.py. The complete rollback, after
the runbooks themselves, is the last test of test_notebooks.py.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent / "cloud"))
sys.path.insert(0, str(Path(__file__).parent / "faults"))

from planes import Plane, running_plane
from portrait import portrait
from random_histories import PHASES, PROJECT, at_home, cloud_history, on_the_plane, opened
from state_portrait import state_hash

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.workstations import Restoration, workstations
from orchestra_lib.cloud.home_disks import disk_path, home_disk
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Verdict
from orchestra_lib.paths import journal_path
from orchestra_lib.phases import rollback
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.phases.rollback import RollbackPhase
from orchestra_lib.settings import Settings

pytestmark = pytest.mark.slow

REGION = f"projects/{PROJECT}/regions/us-central1"
Wanted = Callable[[Settings], tuple[Sequence[Resource], Sequence[Resource]]]


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    with running_plane("0") as found:
        yield found


@pytest.fixture
def home(plane: Plane, tmp_path: Path) -> Iterator[Path]:
    with at_home(tmp_path), on_the_plane(plane), mock.patch.object(rollback, "_BESIDE", {}):
        yield tmp_path


def applied(runbook: str, wanted: Wanted) -> str:
    """Apply a phase's resources; the id of the run."""
    with opened(runbook) as run:
        work = CloudWork(run, runbook[:2])
        work.want(*wanted(run.settings), rehearses_foundation=True)
        work.plan()
        work.apply()
        assert [str(row) for row in work.read_back() if row.verdict is Verdict.FAIL] == []
        return run.record.run_id


def undone(phase: str, may_destroy: Sequence[str] = (), since_run: str | None = None) -> None:
    with opened("99_rollback", phase=phase, since_run=since_run, may_destroy=list(may_destroy) or None) as run:
        undoing = RollbackPhase(run)
        run.preflight(undoing.checks())
        undoing.plan()
        undoing.apply()
        undoing.verify()
        assert [str(row) for row in run.evidence if row.verdict in (Verdict.FAIL, Verdict.MISSING)] == []


def state(plane: Plane) -> str:
    return state_hash(line for line in portrait(plane, PROJECT) if "/disks/workstations-" not in line)


def configured(home: Path, section: str, **values: object) -> None:
    """Give a section of the environment's parameters other values than production's."""
    path = home / "parameters" / "local.yaml"
    content = yaml.safe_load(path.read_text())
    whole = yaml.safe_load((settings.root() / "parameters" / "production.yaml").read_text())[section]
    path.write_text(yaml.safe_dump({**content, section: {**whole, **values}}))


def test_infrastructure_goes_back_to_its_configuration_before_and_to_nothing(plane: Plane, home: Path) -> None:
    nothing = state(plane)
    applied("01_infrastructure", lambda found: (infrastructure(found), ()))
    first = state(plane)
    configured(home, "logging", audit_retention_days=800)
    second = applied("01_infrastructure", lambda found: (infrastructure(found), ()))
    assert state(plane) != first
    undone("01", since_run=second)
    assert state(plane) == first
    with pytest.raises(GateFailed, match="the plan would destroy what these hold"):
        undone("01")
    assert state(plane) == first, "what was refused has changed nothing"
    undone("all", may_destroy=everything())
    assert state(plane) == nothing


def test_a_workstation_is_restored_from_a_snapshot_and_taken_back_and_homes_stay(plane: Plane, home: Path) -> None:
    nothing = state(plane)
    applied("02_workstations", lambda found: (workstations(found).resources, workstations(found).foundation))
    before, own = state(plane), home_disk(plane.client(), REGION, "ada")
    assert own is not None
    restoration = Restoration("ada@example.com", "before-the-accident", disk_path(own))

    def with_it(found: Settings) -> tuple[Sequence[Resource], Sequence[Resource]]:
        plan = workstations(found, restoration)
        return plan.resources, plan.foundation

    run = applied("02_workstations", with_it)
    again = home_disk(plane.client(), REGION, "restored-before-the-accident")
    assert again is not None
    assert str(again.get("sourceSnapshot", "")).endswith("/before-the-accident"), "its home is that of the snapshot"
    assert home_disk(plane.client(), REGION, "ada") == own, "the old home is not touched"
    undone("02", ["restored-before-the-accident", "before-the-accident"], since_run=run)
    assert state(plane) == before
    undone("all", may_destroy=everything())
    assert state(plane) == nothing
    homes = [line for line in portrait(plane, PROJECT) if "/disks/workstations-" in line]
    assert any(str(own["name"]) in line for line in homes), "a developer's home outlives everything"


def test_a_phase_that_others_stand_on_is_not_undone_before_them(plane: Plane, home: Path) -> None:
    nothing = state(plane)
    infrastructure_run = applied("01_infrastructure", lambda found: (infrastructure(found), ()))
    applied("02_workstations", lambda found: (workstations(found).resources, workstations(found).foundation))
    both = state(plane)
    for since in (None, infrastructure_run):
        with pytest.raises(GateFailed, match=r"stand on what would go with 01: \d+ .* of 02: undo these phases first"):
            undone("01", may_destroy=everything(), since_run=since)
        assert state(plane) == both, "nothing of it was begun"
    configured(home, "logging", audit_retention_days=800)
    later = applied("01_infrastructure", lambda found: (infrastructure(found), ()))
    undone("01", since_run=later)
    assert state(plane) == both, "what nothing stands on may go back"
    undone("02", may_destroy=everything())
    undone("01", may_destroy=everything())
    assert state(plane) == nothing


def test_a_random_history_ends_where_it_began(plane: Plane) -> None:
    told = cloud_history(plane, 4, random.Random("3 cloud 2"))
    assert told.problems == []


def everything() -> list[str]:
    """The ids of all that was ever made."""
    journals = (Journal(journal_path("local", phase, local=True)) for phase in PHASES)
    return sorted({change.wanted.id for journal in journals for change in journal.changes})
