"""Phase 5 on a store of one's own and a local Cloud Run: a takeover, the way back, what a killed run has left."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import stores
import yaml
from google.oauth2.credentials import Credentials
from run_planes import running
from stores import Pair

from orchestra_lib import record, runbook, settings
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import Target
from orchestra_lib.database import connect
from orchestra_lib.evidence import Evidence, failing
from orchestra_lib.phases import api_release, cloud_work, rollback
from orchestra_lib.phases.api import ApiPhase
from orchestra_lib.phases.api_probe import ProbeMemories
from orchestra_lib.phases.api_release import rollouts
from orchestra_lib.phases.api_store import ROLE
from orchestra_lib.phases.rollback import RollbackPhase
from orchestra_lib.phases.store_copy import copy_address, copy_store, drop_copy, is_there
from orchestra_lib.rollout.service import RunService, Share
from orchestra_lib.runbook import Runbook
from orchestra_lib.service import schema

SERVICE = "projects/cherry-ai-project/locations/us-central1/services/orchestra-memory-api"
PROBE = "orchestra-probe@cherry-ai-project.iam.gserviceaccount.com"
ROWS = 400


@dataclass
class Home:
    """A project of one's own on a local Cloud Run, and the phase opened on it."""

    store: str
    service: RunService
    open: Callable[..., ApiPhase]


@pytest.fixture
def home(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    shutil.copytree(settings.root() / "parameters", tmp_path / "parameters")
    (tmp_path / "orchestra_lib").symlink_to(settings.root() / "orchestra_lib")
    local = tmp_path / "parameters" / "local.yaml"
    content = yaml.safe_load(local.read_text())
    content["memory"]["source"]["dsn"], content["memory"]["target"]["dsn"] = pair.source, pair.target
    content["rollout"] = {"percents": [50, 100], "warm_requests": 2, "requests": 20, "latency_ratio": 50.0}
    local.write_text(yaml.safe_dump(content))
    stores.fill(pair.target, ROWS)
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    with running() as planes:
        target = Target("local", planes.url, Credentials(planes.token))
        for module, name in ((cloud_work, "connect"), (rollback, "connect"), (api_release, "connect_to_cloud")):
            monkeypatch.setattr(module, name, lambda _settings: target)

        def opened(**parameters: object) -> ApiPhase:
            return ApiPhase(Runbook.open("05_api", environment="local", max_instances=4, **parameters))

        yield Home(pair.target, RunService(Client(target), SERVICE), opened)
        for run in tuple(runbook._open_here.values()):
            end(run)


def end(run: Runbook) -> None:
    """End a run that was not closed, with the locks that it holds."""
    for lock in (run._replaced(), *run._more_locks):
        if lock is not None:
            lock.release()


def through(phase: ApiPhase) -> dict[str, Evidence]:
    """The runbook without its approval and its load; what it added, by claim."""
    phase._run.preflight(phase.checks())
    phase._run.plan(phase.plan())
    phase.build_image()
    phase.prepare()
    phase.apply()
    phase.figure()
    phase.takeover.roll_out()
    phase.takeover.figure()
    phase.takeover.redirect()
    phase.front()
    phase.verify()
    assert failing(phase._run.evidence, rehearsal=True) == ()
    return {row.claim: row for row in phase._run.evidence}


def undone(**parameters: object) -> dict[str, Evidence]:
    """A rollback of phase 5; what it found in the end, by claim."""
    phase = RollbackPhase(Runbook.open("99_rollback", environment="local", phase="05", **parameters))
    phase._run.preflight(phase.checks())
    phase.plan()
    phase.apply()
    phase.verify()
    assert failing(phase._run.evidence, rehearsal=True) == ()
    rows = {row.claim: row for row in phase._run.evidence}
    end(phase._run)
    return rows


@pytest.mark.slow
def test_revisions_take_over_go_back_and_everything_is_undone(home: Home) -> None:
    first = home.open()
    rows = through(first)
    served = home.service.serving()
    assert rows["memories to serve"].value == ROWS
    assert rows["green at 50 %: answers that differ from blue's"].value == 0
    assert rows["redirect back: until in effect"].value is not None
    assert rows["a memory is stored, found, read and deleted through the gateway"].value == 1
    assert rows["memories of the probe that are left"].value == 0
    assert {share.tag for share in home.service.shares()} == {"blue", "green"}
    end(first._run)

    again = home.open()
    assert [one for one in again.plan().changes if one.verb != "keep"] == [], "nothing is left to do"
    again.takeover.roll_out()
    assert home.service.serving() == served
    assert f"run {first._run.record.run_id}, whose record has" in again._run.evidence[-1].note
    end(again._run)

    second = home.open(concurrency=40)
    through(second)
    newer = home.service.serving()
    assert newer != served
    assert home.service.body()["template"]["maxInstanceRequestConcurrency"] == 40
    second_run = second._run.record.run_id
    end(second._run)

    # As a run leaves it that was killed at half of the traffic.
    journal = rollouts(second._run.settings)
    journal.shift(journal.begin(SERVICE, newer, served, "killed"), 50)
    home.service.direct([Share(newer, 50, "blue"), Share(served, 50, "green"), Share(served, 0, "load")])
    found = home.open(concurrency=40)
    assert home.service.serving() == newer
    assert "load" not in {share.tag for share in home.service.shares()}
    assert any("was cut off" in note for note in found._run.record.notes)
    end(found._run)

    rows = undone(since_run=second_run)
    assert rows["all traffic goes to the revision of before the run"].note == served
    assert home.service.serving() == served

    rows = undone()
    assert rows["memories that are still prepared for the API"].value == 0
    with connect(home.store) as session:
        assert not schema.is_prepared(session, table="memories", role=ROLE)
        assert session.execute("SELECT count(*) FROM memories").fetchone() == (ROWS,)


def test_what_the_api_needs_is_made_twice_without_harm_and_withdrawn_without_a_trace(pair: Pair) -> None:
    stores.fill(pair.target, 50)
    facts = (
        "SELECT relrowsecurity, relacl::text FROM pg_class WHERE relname = 'memories'",
        "SELECT count(*) FROM pg_policies",
        "SELECT indexname FROM pg_indexes WHERE tablename = 'memories' ORDER BY 1",
        "SELECT count(*) FROM pg_roles WHERE rolname = 'withdrawn_role'",
        "SELECT count(*) FROM pg_namespace WHERE nspname = 'orchestra_api'",
        "SELECT md5(string_agg(m::text, '' ORDER BY id)) FROM memories m",
    )
    wanted = {"table": "memories", "role": "withdrawn_role"}
    with psycopg.connect(pair.target, autocommit=True) as session:

        def state() -> list[object]:
            return [session.execute(fact).fetchall() for fact in facts]

        session.execute("REVOKE ALL ON memories FROM PUBLIC")  # an access list that is written out, as afterwards
        before = state()
        assert not schema.is_prepared(session, **wanted)
        for _ in range(2):
            schema.prepare(session, **wanted)
            assert schema.is_prepared(session, **wanted)
        assert state() != before
        for _ in range(2):
            schema.withdraw(session, **wanted)
            assert state() == before
            assert not schema.is_prepared(session, **wanted)


def test_the_probes_memories_come_and_go_and_others_are_not_touched(pair: Pair) -> None:
    stores.fill(pair.target, 60)
    memories = ProbeMemories("memories", PROBE, 80)
    others = "SELECT md5(string_agg(m::text, '' ORDER BY id)) FROM memories m WHERE user_id NOT LIKE 'orchestra-%'"
    with connect(pair.target) as session:
        before = session.execute(others).fetchone()
        assert [memories.put(session) for _ in range(2)] == [80, 80]
        questions = memories.questions
        assert memories.left(session) == 80, "what an earlier run has left is replaced"
        assert session.execute(
            "SELECT count(*) FROM memories WHERE metadata @> '{\"synthetic\": true}'"
        ).fetchone() == (80,)
        again = ProbeMemories("memories", PROBE, 80)
        again.put(session)
        assert (again.questions == questions).all(), "the same is asked in every run"
        assert memories.clear(session) == 80
        assert session.execute(others).fetchone() == before
    assert len(memories.searches) == 40
    assert {request["method"] for request in memories.retrievals} == {"GET"}


def test_todays_store_is_copied_once_and_again_when_it_has_changed(pair: Pair) -> None:
    stores.fill(pair.source, 120)
    count = "SELECT count(*) FROM memories"
    with connect(pair.source) as session:
        session.execute("CREATE TABLE orchestra_rehearsal AS SELECT 'one' AS state")
    assert not is_there(pair.source, "copied_by_a_test")
    assert copy_store(pair.source, "copied_by_a_test")
    with connect(copy_address(pair.source, "copied_by_a_test")) as session:
        assert session.execute(count).fetchone() == (120,)
        session.execute("DELETE FROM memories WHERE id = 'id-00000007'")
    assert not copy_store(pair.source, "copied_by_a_test"), "what was written to it stays"
    with connect(pair.source) as session:
        assert session.execute(count).fetchone() == (120,), "today's store is left alone"
        session.execute("UPDATE orchestra_rehearsal SET state = 'two'")
    with connect(copy_address(pair.source, "copied_by_a_test")):
        assert copy_store(pair.source, "copied_by_a_test"), "whoever is connected to the old copy loses it"
    drop_copy(pair.source, "copied_by_a_test")
    assert not is_there(pair.source, "copied_by_a_test")
