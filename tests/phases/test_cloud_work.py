"""What the cloud phases share, on a real control plane: with phase 1 in it, and in a rehearsal without."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import google.oauth2.credentials
import memory_stores
import pytest
import settings_content
from control_plane import TOKEN, Server, serving

from orchestra_lib import record, runbook, settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.blueprint.memory import memory
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import make_plan
from orchestra_lib.cloud.rollback import rollback_plan
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import GateFailed, LockHeld
from orchestra_lib.evidence import Evidence, Verdict
from orchestra_lib.lock import Holder, PhaseLock
from orchestra_lib.paths import journal_path
from orchestra_lib.phases import cloud_work as module
from orchestra_lib.phases import rollback
from orchestra_lib.phases.cloud_work import CloudWork
from orchestra_lib.phases.rollback import RollbackPhase
from orchestra_lib.plan import Verb
from orchestra_lib.runbook import Runbook

pytestmark = pytest.mark.slow

OPERATOR = "user@example.com"
LOCAL = settings.load("local")
PLAN = memory(LOCAL, OPERATOR)
CLAIM = "resources of phase 1 that this phase stands on and that are missing"

Opened = Callable[..., CloudWork]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    directory = tmp_path / "plane"
    directory.mkdir()
    with serving(directory) as found:
        yield found


@pytest.fixture
def target(server: Server) -> Target:
    return Target("local", server.url, google.oauth2.credentials.Credentials(TOKEN))


@pytest.fixture
def opened(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens phase 3's work in a home of its own; ``kind`` is what the target says that it is."""
    shutil.copytree(settings.root() / "parameters", tmp_path / "parameters")
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("orchestra_lib.cloud.client._SHORTEST_PAUSE_SECONDS", 0.001)  # operations have ended by then

    def work(*, rehearses: bool = True, mode: str = "apply", kind: str = "local") -> CloudWork:
        there = Target(kind, target.base_url, target.credentials)  # type: ignore[arg-type]
        monkeypatch.setattr(module, "connect", lambda _settings: there)
        made = CloudWork(Runbook.open("03_memory", environment="local", mode=mode), "03")
        made.want(PLAN.resources, PLAN.foundation, rehearses_foundation=rehearses)
        return made

    yield work
    for run in tuple(runbook._open_here.values()):
        lock = run._replaced()
        if lock is not None:
            lock.release()
        for one in run._more_locks:
            one.release()
    memory_stores.local_down()


def first_journal() -> Journal:
    return Journal(journal_path("local", "01", local=True))


def foundation_row(work: CloudWork) -> Evidence:
    (row,) = [one for one in work.checks(work.look()) if one.claim == CLAIM]
    return row


def test_a_rehearsal_makes_what_it_stands_on_first_and_says_so(server: Server, opened: Opened) -> None:
    work = opened()
    row = foundation_row(work)
    assert (row.value, row.verdict) == (len(PLAN.foundation), Verdict.NOTED)
    assert "the rehearsal makes them first, in the journal of phase 1" in row.note
    plan = work.plan()
    assert {change.name for change in plan.changes} >= {"orchestra-services", "orchestra-memory (us-central1)"}
    assert len(plan.changes) == len(PLAN.foundation) + len(PLAN.resources)
    assert server.control.state()["writes"] == {}, "nothing is made before it was shown"

    table = work.apply()
    assert ("made under them for the rehearsal", len(PLAN.foundation)) in table.rows
    assert all(row.verdict is not Verdict.FAIL for row in work.read_back())
    assert any("in its journal" in note and "network orchestra" in note for note in work._run.record.notes)
    assert set(first_journal().applied()) == {one.key for one in PLAN.foundation}
    assert set(work.journal.applied()) == {one.key for one in PLAN.resources}
    assert (foundation_row(work).value, work.plan().is_empty) == (0, True)
    bars = next(trace for trace in work.figure().data if trace.name == "create")
    network, cluster = (
        list(bars.y).index(name) for name in ("network orchestra", "database cluster orchestra-memory (us-central1)")
    )
    assert bars.base[network] + bars.x[network] <= bars.base[cluster]


def test_phase_1_takes_what_the_rehearsal_made_for_its_own(target: Target, opened: Opened) -> None:
    work = opened()
    work.plan()
    work.apply()
    client, journal = Client(target), first_journal()
    resources = infrastructure(LOCAL)
    plan = make_plan(client, resources, journal.applied())
    kept = {step.key for step in plan.steps if step.verb is Verb.KEEP}
    assert kept >= {one.key for one in PLAN.foundation}
    assert {step.verb for step in plan.steps} == {Verb.KEEP, Verb.CREATE}
    apply(client, plan, journal, "run-of-phase-1")
    undo = rollback_plan(client, journal, may_destroy={one.id for one in resources})
    undone = {step.key for step in undo.steps}
    assert undone >= {one.key for one in PLAN.foundation if one.kind != "billing"}, "its rollback takes them away"


def test_only_what_is_missing_is_made_and_what_is_there_is_left_alone(target: Target, opened: Opened) -> None:
    client, others = Client(target), Journal(journal_path("local", "09", local=True))
    changed = infrastructure(settings_content.with_values(labels={"application": "somebody-elses"}))
    wanted = {one.key for one in PLAN.foundation}
    theirs = [one for one in changed if one.key in wanted and one.kind not in ("secret", "peering")]
    apply(client, make_plan(client, theirs), others, "run-theirs")
    work = opened()
    work.plan()
    work.apply()
    made = {change.wanted.kind for change in first_journal().changes}
    assert made == {"secret", "peering"}
    project = client.call("cloudresourcemanager.v3", "cloudresourcemanager.projects.get", "projects/cherry-ai-project")
    assert project["labels"] == {"application": "somebody-elses"}


def test_with_phase_1_there_is_nothing_to_make_under_it(target: Target, opened: Opened) -> None:
    client = Client(target)
    apply(client, make_plan(client, infrastructure(LOCAL)), first_journal(), "run-0")
    work = opened()
    assert foundation_row(work).value == 0
    plan = work.plan()
    assert len(plan.changes) == len(PLAN.resources)
    work.apply()
    assert {change.run_id for change in first_journal().changes} == {"run-0"}
    undo = rollback_plan(client, work.journal, may_destroy={one.id for one in PLAN.resources})
    apply(client, undo, work.journal, "run-undo", undoing=True)
    assert {step.verb for step in make_plan(client, infrastructure(LOCAL)).steps} == {Verb.KEEP}


def test_runbook_99_undoes_phase_3_and_leaves_what_it_stands_on(
    target: Target, server: Server, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(target)
    apply(client, make_plan(client, PLAN.foundation), first_journal(), "run-0")
    before = there(server)
    work = opened()
    work.plan()
    work.apply()
    runbook._open_here["03_memory"]._replaced().release()  # type: ignore[union-attr]
    monkeypatch.setattr(rollback, "connect", lambda _settings: target)

    refused = RollbackPhase(Runbook.open("99_rollback", environment="local", phase="03"))
    with pytest.raises(GateFailed, match="may_destroy orchestra-memory orchestra-memory-primary orchestra-memory-dr"):
        refused.plan()
    data = ["orchestra-memory", "orchestra-memory-primary", "orchestra-memory-dr"]
    undoing = RollbackPhase(Runbook.open("99_rollback", environment="local", phase="03", may_destroy=data))
    assert all(row.verdict is not Verdict.FAIL for row in undoing.checks())
    assert len(undoing.plan().changes) == len(PLAN.resources)
    undoing.apply()
    undoing.verify()
    assert all(row.verdict is not Verdict.FAIL for row in undoing._run.evidence)
    assert there(server) == before


def there(server: Server) -> set[str]:
    return set(server.control.state()["resources"])


@pytest.mark.parametrize(("kind", "rehearses"), [("gcp", True), ("local", False)])
def test_nowhere_else_is_anything_made_for_phase_1(server: Server, opened: Opened, kind: str, rehearses: bool) -> None:
    work = opened(kind=kind, rehearses=rehearses)
    row = foundation_row(work)
    assert row.verdict is Verdict.FAIL
    assert "run 01_infrastructure first" in row.note
    assert {change.kind for change in work.plan().changes} == {one.kind for one in PLAN.resources}
    planning = opened(kind=kind, rehearses=rehearses, mode="plan")
    assert foundation_row(planning).verdict is Verdict.NOTED
    assert server.control.state()["writes"] == {}


def test_who_may_not_log_in_to_the_database_is_told_before_it_is_made(
    target: Target, server: Server, opened: Opened
) -> None:
    client = Client(target)
    apply(client, make_plan(client, PLAN.foundation), first_journal(), "run-0")
    server.inject(missing_permissions=[{"permissions": ["alloydb.users.login"]}])
    work = opened()
    (row,) = [row for row in work.checks(work.look()) if row.verdict is Verdict.FAIL]
    assert row.claim.startswith("permissions that a login to the database needs")
    assert row.note == "ask for a role that holds alloydb.users.login"


def test_somebody_who_runs_phase_1_is_not_interfered_with(server: Server, opened: Opened) -> None:
    work = opened()
    work.plan()
    lock = PhaseLock("local", "01", Holder.of_this_process("ada", "another-run", "Python"))
    lock.acquire()
    try:
        with pytest.raises(LockHeld):
            work.apply()
    finally:
        lock.release()
    assert server.control.state()["writes"] == {}


def test_an_apply_without_a_plan_is_refused(opened: Opened) -> None:
    with pytest.raises(GateFailed, match="there is no plan yet"):
        opened().apply()
