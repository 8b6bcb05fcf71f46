"""What the API needed in the memory is withdrawn, and what cannot be looked at is not said to be gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import memory_stores
import psycopg
import pytest
import yaml
from alloydb_planes import Planes, soon
from google.oauth2.credentials import Credentials
from stores import Pair

from orchestra_lib import settings
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Verdict
from orchestra_lib.memory_target import api_user
from orchestra_lib.phases import api_release
from orchestra_lib.phases.api_release import MemoryWithdrawal
from orchestra_lib.phases.api_store import ROLE
from orchestra_lib.phases.found_memory import instance_state
from orchestra_lib.target import SourceDatabase

Loaded = Callable[..., settings.Settings]


@pytest.fixture
def loaded(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """The settings of a rollback on the pair, with a state directory of its own; a ``dsn`` may be left out."""
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "parameters").mkdir()
    for name in ("local", "production"):
        (tmp_path / "parameters" / f"{name}.yaml").write_text(
            (settings.root() / "parameters" / f"{name}.yaml").read_text()
        )

    def load(*without_dsn: str, phase: str = "05") -> settings.Settings:
        memory_stores.write_parameters(tmp_path / "parameters", pair)
        path = tmp_path / "parameters" / "local.yaml"
        content = yaml.safe_load(path.read_text())
        for side in without_dsn:
            content["memory"][side]["dsn"] = None
        path.write_text(yaml.safe_dump(content))
        return settings.load("local", "99_rollback", {"phase": phase}, tmp_path / "parameters")

    return load


def test_an_instance_that_is_stopped_is_not_said_to_have_nothing_of_the_api(
    planes: Planes, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(Target("local", planes.url, Credentials(planes.token)))
    cluster = planes.cluster()
    instance = cluster.instance()
    monkeypatch.setattr(api_release, "primary_instance", lambda _settings: instance)
    planes.call("PATCH", f"{instance}?updateMask=activationPolicy", {"activationPolicy": "NEVER"})
    soon(lambda: instance_state(client, instance) == "STOPPED")

    withdrawal = MemoryWithdrawal(loaded("target"), client)
    for row in (withdrawal.check(), *withdrawal.evidence()):
        assert row.verdict is Verdict.MISSING
        assert row.note.startswith("primary is STOPPED: start it (activation policy ALWAYS), then run the rollback")
    with pytest.raises(GateFailed, match="cannot be withdrawn: primary is STOPPED"):
        withdrawal.apply()

    all_phases = MemoryWithdrawal(loaded("target", phase="all"), client)
    assert all_phases.check().verdict is Verdict.NOTED, "it goes with AlloyDB"
    assert all_phases.apply() == 0
    assert all_phases.evidence()[0].verdict is Verdict.MISSING, "as long as AlloyDB is there"

    monkeypatch.setattr(api_release, "primary_instance", lambda _settings: f"{cluster.name}/instances/none")
    assert withdrawal.evidence()[0].verdict is Verdict.PASS, "what is not there has nothing"


def test_roles_that_a_rollback_was_killed_before_it_dropped_are_found_without_the_copy(
    pair: Pair, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = loaded("source")
    login = api_user(wanted)
    monkeypatch.setattr(api_release, "source_database", lambda _settings: SourceDatabase(pair.source, True))
    withdrawal = MemoryWithdrawal(wanted, Client(Target("local", "http://127.0.0.1:9", Credentials("none"))))
    assert withdrawal.changes() == ()
    with psycopg.connect(pair.source, autocommit=True) as session:
        session.execute(f'CREATE ROLE {ROLE} NOLOGIN; CREATE ROLE "{login}" LOGIN; GRANT {ROLE} TO "{login}"')
    assert {change.name for change in withdrawal.changes()} == {ROLE, login}
    assert withdrawal.evidence()[0].verdict is Verdict.FAIL
    assert withdrawal.apply() == 2
    assert withdrawal.changes() == ()
    assert withdrawal.evidence()[0].verdict is Verdict.PASS
