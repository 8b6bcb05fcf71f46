"""Phase 4 on a store of one's own, as on Google Cloud: questions from a file, embedded through google-genai."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google.oauth2.credentials
import pytest
import yaml
from control_plane import TOKEN, Server, serving
from pgvector import Vector
from psycopg.types.json import Jsonb
from stores import Pair

from orchestra_lib import record, runbook, settings
from orchestra_lib.assistant.calls import genai_client
from orchestra_lib.assistant.code_assist import USER_ROLES
from orchestra_lib.assistant.embedding_cache import EmbeddingCache
from orchestra_lib.assistant.embeddings import Embedder
from orchestra_lib.blueprint.assistant import Earned
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.rollback import rollback_plan
from orchestra_lib.cloud.target import Target
from orchestra_lib.database import connect
from orchestra_lib.errors import GateFailed
from orchestra_lib.evidence import Evidence, Verdict, failing
from orchestra_lib.memory.schema import COLUMNS, create_table
from orchestra_lib.phases import assistant as module
from orchestra_lib.phases import cloud_work, rollback
from orchestra_lib.phases.assistant import AssistantPhase
from orchestra_lib.phases.rollback import RollbackPhase
from orchestra_lib.rehearsal.docstrings import Item, collect, standard_library
from orchestra_lib.runbook import Runbook

pytestmark = pytest.mark.slow

ITEMS = tuple(item for item in collect(standard_library() / "asyncio") if len(item.first_sentence.split()) > 4)[:120]
MODEL = "gemini-embedding-001"


@dataclass
class Home:
    """A project of one's own: a control plane, a store, and the phase opened on them."""

    target: Target
    questions: Path
    open: Callable[..., AssistantPhase]

    @property
    def annotations(self) -> dict[str, str]:
        path = "projects/cherry-ai-project/secrets/orchestra-assistant"
        return Client(self.target).call("secretmanager.v1", "secretmanager.projects.secrets.get", path)["annotations"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("plane")) as found:
        yield found


@pytest.fixture
def home(server: Server, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    shutil.copytree(settings.root() / "parameters", tmp_path / "parameters")
    local = tmp_path / "parameters" / "local.yaml"
    content = yaml.safe_load(local.read_text())
    content["memory"]["source"]["dsn"], content["memory"]["target"]["dsn"] = pair.source, pair.target
    content["assistant"] = yaml.safe_load((tmp_path / "parameters" / "production.yaml").read_text())["assistant"]
    content["assistant"]["context"]["support_margin"] = 0.2  # what forty questions can show
    local.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("ORCHESTRA_HOME", str(tmp_path))
    for variable in ("ORCHESTRA_STATE_DIR", "ORCHESTRA_RUNS_DIR", record.RUN_CONTEXT_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("orchestra_lib.cloud.client._SHORTEST_PAUSE_SECONDS", 0.001)
    target = Target("local", server.url, google.oauth2.credentials.Credentials(TOKEN))
    for user in (cloud_work, rollback):
        monkeypatch.setattr(user, "connect", lambda _settings: target)
    questions = tmp_path / "questions.jsonl"
    lines = ({"question": item.first_sentence, "answer_id": item.id} for item in ITEMS[:40])
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def opened(**parameters: object) -> AssistantPhase:
        given = {"environment": "local", "questions": str(questions), "sample": 20, **parameters}
        return AssistantPhase(Runbook.open("04_assistant", **given))

    yield Home(target, questions, opened)
    for run in tuple(runbook._open_here.values()):
        end(run)


def end(run: Runbook) -> None:
    """End a run that was not closed, with the locks that it holds."""
    for lock in (run._replaced(), *run._more_locks):
        if lock is not None:
            lock.release()


def fill(address: str, target: Target, tmp_path: Path, model: str = MODEL) -> None:
    """The store as phase 3 leaves it, embedded by the model that the assistant's settings name."""
    Client(target)
    cache = EmbeddingCache(tmp_path / "embeddings.sqlite")
    embedder = Embedder(
        genai_client(target, "cherry-ai-project", "us-central1"),
        MODEL,
        1536,
        cache,
        requests_per_minute=9_999,
        connections=4,
    )
    contents = [item.content(with_first_sentence=False) for item in ITEMS]
    vectors = embedder.embed(contents, "RETRIEVAL_DOCUMENT").vectors
    cache.close()
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    with connect(address) as session, session.cursor() as cursor:
        cursor.execute(create_table())
        cursor.executemany(
            f"INSERT INTO memories ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})",
            [
                (*_about(item), content, Jsonb({}), Vector(vector), model, 1, moment, moment, None)
                for item, content, vector in zip(ITEMS, contents, vectors, strict=True)
            ],
        )


def _about(item: Item) -> tuple[str, ...]:
    return (item.id, item.agent_id, item.user_id, item.session_id, item.persona, item.item_type)


def _policy(client: Client) -> dict[str, Any]:
    method = "cloudresourcemanager.projects.getIamPolicy"
    return client.call("cloudresourcemanager.v3", method, "projects/cherry-ai-project:getIamPolicy", body={})


def bindings_of(client: Client, member: str) -> set[str]:
    """The roles that a member holds on the project."""
    return {row["role"] for row in _policy(client)["bindings"] if member in row["members"]}


def give(client: Client, member: str, role: str) -> None:
    """A role that somebody else gives."""
    policy = _policy(client)
    policy["bindings"].append({"role": role, "members": [member]})
    method = "cloudresourcemanager.projects.setIamPolicy"
    path = "projects/cherry-ai-project:setIamPolicy"
    client.call("cloudresourcemanager.v3", method, path, body={"policy": policy})


def rows_of(phase: AssistantPhase) -> dict[str, Evidence]:
    return {row.claim: row for row in phase._run.evidence}


def through(phase: AssistantPhase) -> dict[str, Evidence]:
    """The whole runbook but for its approval."""
    phase._run.preflight(phase.checks())
    phase.plan()
    phase.apply()
    phase.model()
    phase.context()
    phase.figure()
    phase.tokens()
    phase.embed()
    phase.answer()
    phase.put_in_force()
    phase.files()
    phase.log()
    phase.verify()
    return rows_of(phase)


def test_the_settings_are_measured_put_in_force_and_brought_back(home: Home, pair: Pair, tmp_path: Path) -> None:
    phase = home.open(mode="plan")
    plan = phase.plan()  # before there is a project: nothing is asked of it that is not there
    assert [change.kind for change in plan.changes][-1] == "assistant settings"
    phase.apply()  # makes the project, whose models can then embed the store
    fill(pair.target, home.target, tmp_path)
    give(Client(home.target), "user:ada@example.com", "roles/viewer")

    first = home.open()
    rows = through(first)
    assert failing(rows.values(), rehearsal=True) == ()
    assert rows["questions whose answers are known"].value == 40
    assert rows["characters after packing for each before, upper end of the interval"].verdict is Verdict.PASS
    assert rows["requests for the same texts again"].value == 0
    assert "orchestra-local-stand-in" in rows["answers that came to their end"].note
    earned = home.annotations
    assert earned["context-tokens"] == str(rows["budget of the context"].value)

    first._in_force._planned = {"model": "another"}
    first._in_force.refuse_if_changed(first._earned())  # the cell may be run again
    with pytest.raises(GateFailed, match="somebody else wrote to it"):
        first._in_force.refuse_if_changed(Earned(1, "backwards"))

    second = home.open(context_tokens=5_000, thinking_level="MEDIUM")
    through(second)
    assert (home.annotations["context-tokens"], home.annotations["thinking-level"]) == ("5000", "MEDIUM")

    end(second._run)
    undone = RollbackPhase(
        Runbook.open("99_rollback", environment="local", phase="04", since_run=second._run.record.run_id)
    )
    undone.plan()
    undone.apply()
    undone.verify()
    assert home.annotations == earned
    client, journal = Client(home.target), second._work.journal
    hers = bindings_of(client, "user:ada@example.com")
    assert hers == {"roles/viewer", *USER_ROLES}, "what she had is left alone"
    everything = rollback_plan(client, journal)
    assert {step.verb for step in everything.steps} == {"delete"}, "it was all made here, and nothing of it is data"
    apply(client, everything, journal, "the-last-run", undoing=True)
    assert bindings_of(client, "user:ada@example.com") == {"roles/viewer"}


def test_a_memory_of_another_model_or_without_rows_or_questions_stops_the_run_at_its_check(
    home: Home, pair: Pair, tmp_path: Path
) -> None:
    with connect(pair.target) as session:
        session.execute(create_table())
    empty = home.open()
    with pytest.raises(GateFailed, match="memories to answer from"):
        empty._run.preflight(empty.checks())
    empty.plan()
    empty.apply()
    fill(pair.target, home.target, tmp_path, model="text-embedding-ada-002")
    other = home.open()
    with pytest.raises(GateFailed, match="the same model"):
        other._run.preflight(other.checks())
    home.questions.write_text("{")
    asked = home.open()
    with pytest.raises(GateFailed, match="questions whose answers are known"):
        asked._run.preflight(asked.checks())


def test_a_temperature_that_the_model_ignores_is_refused_with_the_rule(home: Home, pair: Pair) -> None:
    phase = home.open(temperature=0.2)
    with pytest.raises(GateFailed, match="R-AI-03"):
        phase._run.preflight(phase.checks())
    assert module.PHASE == "04"
