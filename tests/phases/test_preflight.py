"""The preflight against the local Google Cloud: what is planted is found by name, what is not is not, nothing changes.

The failures of the first attempt by their numbers, and what cannot be planted on a target:

F4  two Terraform backends: nothing here has a backend; the export is a hand-over.
F5  provider schemas that drift: packages are pinned, tests hold the discovery documents against what is sent.
F10 fake green, F11 swallowed errors, F12 prompts: properties of the record and of the notebooks, tested there.
F13 images that do not build, F15 files that do not compile: found by the tests, before there is a target.
F20 an installed SDK that rots: none is used; the pins are the test of the environment.
F22 is a warning and not red, so it has a test of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import google.oauth2.credentials
import google.oauth2.service_account
import psycopg
import pytest
import settings_content
import small_runbooks
from control_plane import TOKEN, Server, serving
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from stores import Pair, fill

from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import make_plan
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import ParameterError
from orchestra_lib.evidence import Verdict
from orchestra_lib.local import postgres
from orchestra_lib.preflight import (
    FINDINGS,
    Check,
    cloud_checks,
    found_checks,
    machine_checks,
    open_checks,
    planted,
    rule_checks,
    source_checks,
    surroundings_checks,
)
from orchestra_lib.preflight.wanted import wanted
from orchestra_lib.rules import OFFLINE
from orchestra_lib.settings import load, root
from orchestra_lib.settings.document import with_values
from orchestra_lib.settings.preflight import FINDING_NAMES

pytestmark = pytest.mark.slow

FRESH, BEGUN, BUILT = "preflight-fresh", "preflight-begun", "preflight-built"
NOBODY = "preflight-nobody"
"""The project of what is found without asking the target."""
RED = (Verdict.FAIL, Verdict.MISSING)


@dataclass
class World:
    """A target with a project in some state, and what is judged beside it."""

    server: Server
    project: str
    target: Target
    document: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        return Client(self.target)

    def rows(self) -> list[Check]:
        """Every check but those of today's store, which is no part of the target."""
        settings = settings_content.with_values(project__id=self.project)
        document = with_values(settings.public(), self.document)
        unasked = [
            *surroundings_checks(self.project, self.variables),
            *machine_checks(settings),
            *rule_checks(document, OFFLINE, "the document"),
            *open_checks(settings, offline=False),
        ]
        asks = self.project != NOBODY
        return [*unasked, *(cloud_checks(self.target, settings, document, "the document") if asks else ())]

    def red(self) -> list[Check]:
        return red(self.rows())


def red(rows: list[Check]) -> list[Check]:
    return [row for row in rows if row.evidence.verdict in RED]


def told(rows: list[Check]) -> str:
    return "\n".join(str(row.evidence) for row in rows)


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("preflight")) as server:
        target = local_target(server)
        make(target, BEGUN, lambda one: one.kind in ("project", "billing", "service"), tmp_path_factory)
        make(target, BUILT, lambda one: "orkstation" not in one.kind and one.kind != "home schedule", tmp_path_factory)
        yield server


@pytest.fixture
def server(_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("ORCHESTRA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ORCHESTRA_RUNS_DIR", str(tmp_path / "runs"))
    yield _server
    _server.inject()


def local_target(server: Server, token: str = TOKEN) -> Target:
    return Target("local", server.url, google.oauth2.credentials.Credentials(token))


def make(
    target: Target, project: str, which: Callable[[Resource], bool], tmp_path_factory: pytest.TempPathFactory
) -> None:
    resources = [one for one in wanted(settings_content.with_values(project__id=project)) if which(one)]
    client, journal = Client(target), Journal(tmp_path_factory.mktemp(project) / "journal.jsonl")
    apply(client, make_plan(client, resources), journal, "run-0")


def world(server: Server, project: str) -> World:
    return World(server, project, local_target(server))


# --- nothing is found where nothing is wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("project", [FRESH, BEGUN, BUILT])
def test_where_nothing_is_wrong_nothing_is_red_and_nothing_is_changed(server: Server, project: str) -> None:
    before = server.control.state()
    rows = world(server, project).rows()
    after = server.control.state()
    assert red(rows) == [], told(red(rows))
    assert after["writes"] == before["writes"]
    assert after["resources"] == before["resources"]
    assert after["injected"] == before["injected"]


def test_creates_are_checked_by_the_services_themselves(server: Server) -> None:
    (row,) = [row for row in world(server, BUILT).rows() if row.evidence.claim == "creates that a service refuses"]
    assert row.evidence.verdict is Verdict.REHEARSED
    assert row.evidence.note.startswith("1 checked by the services, which means not refused")


def test_before_there_is_a_project_what_cannot_be_asked_is_named(server: Server) -> None:
    rows = world(server, FRESH).rows()
    unread = [row.evidence for row in rows if row.evidence.value == "not read"]
    assert "quota left" in unread[0].claim
    assert all(row.verdict is Verdict.NOTED for row in unread)


Undo = Callable[[], object]
Plant = Callable[[World], Undo | None]


# --- the failures of the first attempt --------------------------------------------------------------------------------


def _document(**values: Any) -> Plant:
    return lambda world: world.document.update({place.replace("__", "."): value for place, value in values.items()})


def _inject(**what: Any) -> Plant:
    return lambda world: world.server.inject(**what)


def _policy(constraint: str, **holds: Any) -> Plant:
    return _inject(organization_policies=[{"constraint": f"constraints/{constraint}", **holds}])


def _malformed_token(world: World) -> None:
    world.target = local_target(world.server, "malformed")


def _malformed_key(world: World) -> None:
    """A key that the token service does not know."""
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    about = {"client_email": "a@b.iam.gserviceaccount.com", "token_uri": f"{world.server.url}/token"}
    key = google.oauth2.service_account.Credentials.from_service_account_info({**about, "private_key": pem.decode()})
    world.target = replace(
        world.target, credentials=key.with_scopes(["https://www.googleapis.com/auth/cloud-platform"])
    )


def _key_file(world: World) -> None:
    path = world.server.control.directory / "key.json"
    path.write_text(json.dumps({"type": "service_account"}))
    world.variables["GOOGLE_APPLICATION_CREDENTIALS"] = str(path)


def _unreadable_key_file(world: World) -> None:
    path = world.server.control.directory / "broken.json"
    path.write_text("{'type': ")
    world.variables["GOOGLE_APPLICATION_CREDENTIALS"] = str(path)


def _other_project(world: World) -> None:
    world.variables["GOOGLE_CLOUD_PROJECT"] = "agi-baby-cherry"


def _network_of_another_mode(world: World) -> Undo:
    networks = f"/compute/compute/v1/projects/{world.project}/global/networks"
    assert world.server.post(networks, {"name": "orchestra", "autoCreateSubnetworks": True}).status == 200
    return lambda: world.server.delete(f"{networks}/orchestra")


def _repository_of_another_format(world: World) -> Undo:
    repositories = f"/artifactregistry/v1/projects/{world.project}/locations/us-central1/repositories"
    assert world.server.post(f"{repositories}?repositoryId=orchestra", {"format": "MAVEN"}).status == 200
    return lambda: world.server.delete(f"{repositories}/orchestra")


def _editor(world: World) -> Undo:
    project = f"/cloudresourcemanager/v3/projects/{world.project}"
    bindings = world.server.post(f"{project}:getIamPolicy").body["bindings"]
    editor = {"role": "roles/editor", "members": [f"serviceAccount:api@{world.project}.iam.gserviceaccount.com"]}

    def put(bindings: list[Any]) -> None:
        assert world.server.post(f"{project}:setIamPolicy", {"policy": {"bindings": bindings}}).status == 200

    put([*bindings, editor])
    return lambda: put(bindings)


@dataclass(frozen=True)
class Failure:
    """One failure of the first attempt: how it is planted, and words of the row that has to be red then."""

    number: str
    name: str
    plant: Plant
    claim: str
    remedy: str
    project: str = BUILT


NOT_N1 = {"workstations__development__accelerator_type": "nvidia-tesla-t4"}
WITHOUT_T4 = ["us-central1-a", "us-central1-d"]
FAILURES = (
    Failure("F1", "signature", _malformed_key, "a token can be minted", "log in again", FRESH),
    Failure("F1", "key", _key_file, "no key of a service account is in use", "does not expire", NOBODY),
    Failure(
        "F1", "broken key", _unreadable_key_file, "no key of a service account is in use", "cannot be read", NOBODY
    ),
    Failure("F2", "login", _malformed_token, "the service takes our token", "it answers 401; log in again", FRESH),
    Failure(
        "F2",
        "vertex",
        _inject(missing_permissions=[{"permissions": ["aiplatform.*"]}]),
        "aiplatform answers a read",
        "Ask for a role that holds aiplatform.endpoints.list",
    ),
    Failure(
        "F3",
        "members",
        _policy("iam.allowedPolicyMemberDomains", allowed=["C0abcdefg"]),
        "constraints/iam.allowedPolicyMemberDomains allows",
        "ask the organisation",
        FRESH,
    ),
    Failure("F6", "n2d with T4", _document(**NOT_N1), "R-WS-01", "n1-standard-32", NOBODY),
    Failure("F6", "zone", _document(workstations__replica_zones=WITHOUT_T4), "L-WS-04", "us-central1-b"),
    Failure("F6", "quota", _inject(quotas=[{"metric": "NVIDIA_T4_GPUS", "limit": 0}]), "L-QU-01", "6 more than now"),
    Failure("F7", "no copy", _document(memory__alloydb__secondary_cluster=None), "R-DR-01", "memory-dr", NOBODY),
    Failure(
        "F8",
        "issuer",
        _policy("iam.workloadIdentityPoolProviders", allowed=["https://accounts.google.com"]),
        "constraints/iam.workloadIdentityPoolProviders allows",
        "GitHub's issuer",
        FRESH,
    ),
    Failure(
        "F8", "condition", _document(github__attribute_condition="true"), "R-CI-01", "assertion.repository", NOBODY
    ),
    Failure("F9", "drift", _other_project, "no variable of the shell names another project", "unset it", NOBODY),
    Failure("F14", "another network", _network_of_another_mode, "resources in the way", "rename it", BEGUN),
    Failure("F16", "flag", _document(memory__alloydb__flags={"enable_vector_executor": "on"}), "L-AD-10", "no flag of"),
    Failure("F16", "lists", _document(memory__index__lists=40_000), "R-VX-02", "32768", NOBODY),
    Failure("F17", "editor", _editor, "service accounts with a basic role", "roles/editor"),
    Failure(
        "F17",
        "permission",
        _inject(missing_permissions=[{"permissions": ["resourcemanager.projects.create"]}]),
        "permissions that the plan needs",
        "ask for a role that holds resourcemanager.projects.create",
        FRESH,
    ),
    Failure(
        "F18", "would destroy", _repository_of_another_format, "the live state of the plan", "would destroy", BEGUN
    ),
    Failure(
        "F19",
        "API",
        _inject(disabled_services=[{"service": "monitoring"}]),
        "monitoring answers a read",
        "Enable monitoring.googleapis.com",
    ),
    Failure(
        "F19",
        "peering",
        _policy("compute.restrictVpcPeering", allowed=[]),
        "constraints/compute.restrictVpcPeering allows",
        "servicenetworking",
        FRESH,
    ),
    Failure(
        "F21",
        "model",
        _document(assistant__embedding_model="text-embedding-005"),
        "R-EM-01",
        "gemini-embedding-001",
        NOBODY,
    ),
)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: f"{one.number} {one.name}")
def test_what_made_the_first_attempt_impossible_is_found_by_name(server: Server, failure: Failure) -> None:
    here = world(server, failure.project)
    undo = failure.plant(here)
    try:
        found = here.red()
    finally:
        if undo:
            undo()
    named = [row.evidence for row in found if failure.claim in row.evidence.claim]
    assert named, told(found)
    assert any(failure.remedy in row.note for row in named), told(found)
    assert all("\n" not in str(row.evidence) for row in found)


@pytest.mark.parametrize(("budget_usd", "warned"), [(100.0, True), (1_000_000.0, False)])
def test_f22_a_bill_above_the_budget_warns(server: Server, budget_usd: float, warned: bool) -> None:
    here = world(server, NOBODY)
    here.document["cost.budget_usd"] = budget_usd
    assert any(row.warns and "R-BG-03" in row.evidence.claim for row in here.rows()) is warned


# --- findings that can be planted by a parameter ----------------------------------------------------------------------


def test_every_name_of_the_parameter_is_a_finding() -> None:
    assert tuple(FINDINGS) == FINDING_NAMES


@pytest.mark.parametrize("name", FINDING_NAMES)
def test_a_planted_finding_is_found_and_taken_out_again(server: Server, name: Any) -> None:
    here = world(server, BUILT if FINDINGS[name].needs_project else FRESH)
    server.inject(quotas=[{"metric": "IMAGES", "limit": 7}])
    before = server.control.state()["injected"]
    with planted(here.target, [name]):
        found = here.rows()
    assert server.control.state()["injected"] == before
    (row,) = found_checks([name], found)
    assert row.evidence.verdict is Verdict.REHEARSED, told(red(found))


def test_a_planted_finding_that_the_checks_miss_is_red(server: Server) -> None:
    (row,) = found_checks(["quota"], world(server, FRESH).rows())
    assert (row.evidence.verdict, row.evidence.note) == (
        Verdict.FAIL,
        "it is only met once the project is there: run 01 first",
    )


def test_nothing_is_planted_on_google_cloud(server: Server) -> None:
    target = Target("gcp", None, world(server, FRESH).target.credentials)
    with pytest.raises(ParameterError, match="planted on the local target only"), planted(target, ["quota"]):
        pass


# --- today's store ----------------------------------------------------------------------------------------------------


def store_rows(pair: Pair, **values: Any) -> list[Check]:
    memory = settings_content.with_values(**values).memory
    return list(source_checks(pair.source, memory, is_rehearsal=False))


def test_a_store_that_can_be_read_and_followed_is_green(pair: Pair) -> None:
    fill(pair.source, 50)
    rows = store_rows(pair)
    assert red(rows) == [], told(rows)
    assert [row.evidence.claim for row in rows if row.warns] == []


def test_a_store_whose_log_cannot_be_followed_is_green_and_says_what_streaming_lacks() -> None:
    directory = Path(tempfile.mkdtemp(prefix="orchestra-replica-"))
    directory.chmod(0o755)
    data, name = directory / "source", "the tests' source"
    try:
        source = postgres.start(data, name, {**postgres.SETTINGS, "wal_level": "replica"}).conninfo()
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        fill(source, 50)
        rows = store_rows(Pair(source, source))
        assert red(rows) == [], told(rows)
        assert [row.evidence.claim for row in rows if row.warns] == ["wal_level of today's store is logical"]
    finally:
        postgres.stop(data, name)
        shutil.rmtree(directory)


def test_f21_vectors_of_another_dimension_are_found(pair: Pair) -> None:
    with psycopg.connect(pair.source, autocommit=True) as connection:
        connection.execute("CREATE TABLE memories (id text, embedding vector)")
        for number, size in enumerate((1536, 768, 768)):
            connection.execute("INSERT INTO memories VALUES (%s, %s::vector)", [str(number), str([0.5] * size)])
    (row,) = red(store_rows(pair))
    assert row.evidence.claim == "dimensions other than 1536 among the first 1,000 rows"
    assert row.evidence.note.startswith("2 of 768; embed them again")


def test_a_table_that_is_not_there_is_named(pair: Pair) -> None:
    (row,) = red(store_rows(pair, memory__source__table="agent_memory"))
    assert "the source has no table agent_memory" in row.evidence.note


# --- the notebook -----------------------------------------------------------------------------------------------------

NAMED_BY_THE_STRATEGY = (
    "nvidia-tesla-t4 cannot be attached to n2d-standard-32",
    "2G (2,000,000,000 bytes)",
    "is an alias or no id",
    "temperature 0.2",
    "8192 tokens: thinking tokens count",
    "a default of 2000 lists",
    "a default of 30",
    "is to be created: no call does that",
    "is named for disaster recovery, and nothing is declared there",
    "the estimate ends at 1,500 USD",
)


def run(home: Path, output: str, *arguments: str) -> small_runbooks.Told:
    process = small_runbooks.start(home, root() / "notebooks" / "00_preflight.ipynb", home / output, *arguments)
    return small_runbooks.told(home, process, home / output)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("home")
    for folder in (directory, *directory.parents):
        folder.chmod(folder.stat().st_mode | 0o055) if folder.is_relative_to("/tmp") else None  # the server's own user
    yield directory
    local(directory, "down")


def local(home: Path, *words: str) -> str:
    command = [sys.executable, "-m", "orchestra_lib", "local", *words]
    return subprocess.run(
        command, env=small_runbooks.environment(home), check=True, capture_output=True, text=True, timeout=120
    ).stdout


@pytest.mark.slow
def test_offline_it_needs_nobody_and_names_what_the_strategy_asks_for_in_vain(tmp_path: Path) -> None:
    told_run = run(tmp_path, "out.ipynb", "-p", "environment", "production", "-p", "offline", "True")
    assert told_run.exit_code == 0, told_run.output
    assert (told_run.record.outcome, told_run.record.verdict) == ("completed", "PASS")
    assert [row["claim"] for row in told_run.record.evidence if row["verdict"] in ("FAIL", "MISSING")] == []
    strategy = " ".join(str(row["note"]) for row in told_run.record.evidence if "strategy" in str(row["claim"]))
    assert [words for words in NAMED_BY_THE_STRATEGY if words not in strategy] == []
    assert not (tmp_path / "state" / "local").exists(), "nothing was started"


@pytest.mark.slow
def test_online_a_fresh_local_target_is_green_and_its_write_log_stays_empty(home: Path) -> None:
    told_run = run(home, "out.ipynb")
    assert told_run.exit_code == 0, told_run.output
    assert (told_run.record.outcome, told_run.record.verdict) == ("completed", "REHEARSED")
    state = json.loads(local(home, "status", "--json"))
    token = Path(state["token_file"]).read_text().strip()
    request = urllib.request.Request(f"{state['url']}/_local/state", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own server
        assert json.loads(answer.read())["writes"] == {}


@pytest.mark.slow
def test_a_planted_finding_makes_the_run_red_and_the_next_one_is_green_again(home: Path) -> None:
    told_run = run(home, "planted.ipynb", "-p", "findings", "billing,policy_members")
    assert (told_run.exit_code, told_run.record.outcome) == (1, "failed"), told_run.output
    red_rows = " ".join(str(row["claim"]) for row in told_run.record.evidence if row["verdict"] == "FAIL")
    assert "the billing account is open" in red_rows
    assert "constraints/iam.allowedPolicyMemberDomains" in red_rows
    assert "planted, to be found: billing, policy_members" in told_run.record.notes
    assert run(home, "after.ipynb").exit_code == 0


REFUSED = (
    ("local", {"offline": "banana"}, "parameter offline is 'banana', a text; allowed: true or false"),
    ("local", {"findings": "banana"}, "parameter findings is 'banana', a text; allowed: one of billing"),
    ("strategy-as-written", {}, "is no environment"),
    ("production", {"findings": "quota"}, "planted on the local target only"),
    ("local", {"offline": True, "findings": "quota"}, "give one or the other"),
)


@pytest.mark.parametrize(("environment", "parameters", "words"), REFUSED)
def test_a_wrong_parameter_is_refused(environment: str, parameters: dict[str, object], words: str) -> None:
    with pytest.raises(ParameterError) as refused:
        load(environment, "00_preflight", parameters)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_wrong_parameter_stops_the_notebook_in_one_line(home: Path) -> None:
    told_run = run(home, "refused.ipynb", "-p", "offline", "banana")
    assert (told_run.exit_code, told_run.record.outcome) == (2, "refused")
    (line,) = [line for line in told_run.output.splitlines() if line.startswith("Error:")]
    assert REFUSED[0][2] in line
