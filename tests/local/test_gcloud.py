"""The unmodified gcloud command against the local Google Cloud: it shows what the blueprint of phase 1 wants."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google.oauth2.credentials
import pytest

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure
from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import make_plan
from orchestra_lib.cloud.resource import Ref, Resource, Text
from orchestra_lib.cloud.target import Target
from orchestra_lib.local import gcloud

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed: cloud.google.com/sdk"),
]
PROJECT = "cherry-ai-project"
REGION = "us-central1"
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_"
_SET_BY_THE_USER = re.compile(r"CLOUDSDK_(?!PYTHON)")  # gcloud may need to be told which Python it runs on


@dataclass(frozen=True)
class Reply:
    """How a gcloud command ended."""

    status: int
    output: str
    errors: str

    @cached_property
    def json(self) -> Any:
        assert self.status == 0, self.errors
        return json.loads(self.output)


@dataclass(frozen=True)
class Gcloud:
    """gcloud in an environment of its own, pointed at a local Google Cloud that holds the resources."""

    variables: dict[str, str]
    resources: tuple[Resource, ...]

    def __call__(self, command: str, **differs: str) -> Reply:
        """One command; words are parted by blanks."""
        environment = {name: value for name, value in os.environ.items() if not _SET_BY_THE_USER.match(name)}
        environment |= {**self.variables, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1", **differs}
        done = subprocess.run(
            ["gcloud", *command.split(), "--format=json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment,
        )
        return Reply(done.returncode, done.stdout, done.stderr)

    def wanted(self, kind: str) -> list[Resource]:
        """What the blueprint wants of a kind."""
        return [resource for resource in self.resources if resource.kind == kind]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Gcloud]:
    home = Path(tempfile.mkdtemp(prefix="orchestra-gcloud-"))
    try:
        state = json.loads(local(home, "up", "--only", "control", "--latency", "0", "--json").stdout)
        token = Path(state["token_file"]).read_text().strip()
        client = Client(Target("local", state["url"], google.oauth2.credentials.Credentials(token)))
        resources = infrastructure(settings.load("local"))
        journal = Journal(home / "journal.jsonl")
        apply(client, make_plan(client, resources, journal.applied()), journal, "run-1")
        yield Gcloud(json.loads(local(home, "env", "--json").stdout), tuple(resources))
    finally:
        local(home, "down")
        shutil.rmtree(home)


def local(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestra_lib", "local", *arguments]
    environment = {**os.environ, "ORCHESTRA_STATE_DIR": str(home)}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def differences(wanted: Any, live: Any, at: str = "") -> list[str]:
    """Where the live value is not as wanted. A link may be longer than the path that was wanted."""
    if isinstance(wanted, Ref | Text):
        return []  # names that Google chose
    if isinstance(wanted, dict) and isinstance(live, dict):
        return [line for name, value in wanted.items() for line in differences(value, live.get(name), f"{at}.{name}")]
    if isinstance(wanted, list | tuple) and isinstance(live, list) and len(wanted) == len(live):
        pairs = enumerate(zip(wanted, live, strict=True))
        return [line for place, (one, other) in pairs for line in differences(one, other, f"{at}[{place}]")]
    is_link = isinstance(wanted, str) and isinstance(live, str) and live.endswith(f"/compute/v1/{wanted}")
    return [] if wanted == live or is_link else [f"{at}: {live!r}, wanted {wanted!r}"]


@dataclass(frozen=True)
class Shown:
    """How gcloud shows a kind; ``{id}``, ``{place}`` and ``{name}`` (as listed) stand in the command that describes.

    ``names`` is the field of a listed resource that holds the blueprint's id, ``displayName`` or a path that ends with
    it; ``from_the_start`` is what every project has.
    """

    kind: str
    lists: str
    describes: str
    names: str = "name"
    from_the_start: frozenset[str] = frozenset()


_BUILT_IN = frozenset({"_Default", "_Required"})
_POOL = "--location global --workload-identity-pool github-actions"
SHOWN = (
    Shown("network", "compute networks list", "compute networks describe {id}"),
    Shown("subnetwork", "compute networks subnets list", "compute networks subnets describe {id} --region {place}"),
    Shown("router", "compute routers list", "compute routers describe {id} --region {place}"),
    Shown("global address", "compute addresses list", "compute addresses describe {id} --global"),
    Shown("firewall", "compute firewall-rules list", "compute firewall-rules describe {id}"),
    Shown(
        "workload identity pool",
        "iam workload-identity-pools list --location global",
        "iam workload-identity-pools describe {id} --location global",
    ),
    Shown(
        "workload identity provider",
        f"iam workload-identity-pools providers list {_POOL}",
        f"iam workload-identity-pools providers describe {{id}} {_POOL}",
    ),
    Shown("secret", "secrets list", "secrets describe {id}"),
    Shown("repository", "artifacts repositories list", "artifacts repositories describe {id} --location {place}"),
    Shown("log sink", "logging sinks list", "logging sinks describe {id}", from_the_start=_BUILT_IN),
    Shown(
        "log bucket",
        "logging buckets list",
        "logging buckets describe {id} --location {place}",
        from_the_start=_BUILT_IN,
    ),
    Shown(
        "build trigger", f"builds triggers list --region {REGION}", f"builds triggers describe {{id}} --region {REGION}"
    ),
    Shown("dashboard", "monitoring dashboards list", "monitoring dashboards describe {name}"),
    Shown("uptime check", "monitoring uptime list-configs", "monitoring uptime describe {name}", "displayName"),
    Shown("alert policy", "alpha monitoring policies list", "alpha monitoring policies describe {name}", "displayName"),
    Shown(
        "notification channel",
        "beta monitoring channels list",
        "beta monitoring channels describe {name}",
        "displayName",
    ),
)


def name_of(shown: Shown, item: dict[str, Any]) -> str:
    """The blueprint's id of a listed resource."""
    name = str(item[shown.names])
    return name if shown.names == "displayName" else name.rsplit("/", 1)[-1]


@pytest.mark.parametrize("shown", SHOWN, ids=[shown.kind for shown in SHOWN])
def test_gcloud_lists_and_describes_what_was_wanted(cloud: Gcloud, shown: Shown) -> None:
    track = shown.lists.split()[0]
    if track in ("alpha", "beta") and track not in cloud("version").json:
        pytest.skip(f"gcloud's {track} commands are not installed, and {shown.kind} has no others")
    wanted = {resource.id: resource for resource in cloud.wanted(shown.kind)}
    listed = {name_of(shown, item): item for item in cloud(shown.lists).json}
    assert set(listed) == {*wanted, *shown.from_the_start}
    assert {id: found for id, one in wanted.items() if (found := differences(one.body, listed[id]))} == {}
    one = next(iter(wanted.values()))
    place = one.parent.rsplit("/", 1)[1]
    described = cloud(shown.describes.format(id=one.id, place=place, name=listed[one.id]["name"])).json
    assert described["name"] == listed[one.id]["name"]
    assert differences(one.body, described) == []


def test_gcloud_shows_the_project_its_billing_and_its_services(cloud: Gcloud) -> None:
    (wanted,), (billing,) = cloud.wanted("project"), cloud.wanted("billing")
    project = cloud(f"projects describe {PROJECT}").json
    assert (project["projectId"], project["lifecycleState"]) == (PROJECT, "ACTIVE")
    assert project["labels"] == wanted.body["labels"]
    assert project["parent"] == {"type": "organization", "id": wanted.parent.removeprefix("organizations/")}
    assert cloud("projects list").json == [project]
    assert differences(billing.body, cloud(f"billing projects describe {PROJECT}").json) == []
    account = str(billing.body["billingAccountName"]).removeprefix("billingAccounts/")
    billed = cloud(f"billing projects list --billing-account {account}").json
    assert [one["projectId"] for one in billed] == [PROJECT]
    enabled = {service["config"]["name"] for service in cloud("services list --enabled").json}
    assert {service.id for service in cloud.wanted("service")} <= enabled


def test_gcloud_lists_and_describes_service_accounts(cloud: Gcloud) -> None:
    wanted = {f"{one.id}@{PROJECT}.iam.gserviceaccount.com": one.body for one in cloud.wanted("service account")}
    listed = {account["email"]: account for account in cloud("iam service-accounts list").json}
    (google_made,) = set(listed) - set(wanted)
    assert google_made.endswith("-compute@developer.gserviceaccount.com")
    assert {email: found for email, body in wanted.items() if (found := differences(body, listed[email]))} == {}
    email, body = next(iter(wanted.items()))
    described = cloud(f"iam service-accounts describe {email}").json
    assert (described["email"], differences(body, described)) == (email, [])


def test_gcloud_lists_and_describes_nats_and_the_private_connection(cloud: Gcloud) -> None:
    for router in cloud.wanted("router"):
        at = f"--router {router.id} --region {router.parent.rsplit('/', 1)[1]}"
        listed = cloud(f"compute routers nats list {at}").json
        assert differences(router.body["nats"], listed) == []
        assert cloud(f"compute routers nats describe {listed[0]['name']} {at}").json == listed[0]
    (network,) = cloud("compute networks peerings list").json
    assert [(one["name"], one["state"]) for one in network["peerings"]] == [
        ("servicenetworking-googleapis-com", "ACTIVE")
    ]


POLICIES = {
    "roles": "projects get-iam-policy {id}",
    "secret roles": "secrets get-iam-policy {id}",
    "repository roles": f"artifacts repositories get-iam-policy {{id}} --location {REGION}",
    "service account roles": "iam service-accounts get-iam-policy {id}",
}


@pytest.mark.parametrize("kind", POLICIES)
def test_gcloud_shows_who_has_which_roles(cloud: Gcloud, kind: str) -> None:
    wanted: dict[str, set[tuple[str, str]]] = {}
    for one in cloud.wanted(kind):
        if "member" not in one.body:  # the federation's member holds the project's number
            wanted.setdefault(one.parent.rsplit("/", 1)[1], set()).update((role, one.id) for role in one.body["roles"])
    for id, pairs in wanted.items():
        policy = cloud(POLICIES[kind].format(id=id)).json
        shown = {(binding["role"], member) for binding in policy["bindings"] for member in binding["members"]}
        assert pairs <= shown, id


def test_gcloud_shows_the_federations_member_and_the_audit_logs(cloud: Gcloud) -> None:
    number = cloud(f"projects describe {PROJECT}").json["projectNumber"]
    email = f"orchestra-deployer@{PROJECT}.iam.gserviceaccount.com"
    (binding,) = cloud(f"iam service-accounts get-iam-policy {email}").json["bindings"]
    pool = f"principalSet://iam.googleapis.com/projects/{number}/locations/global/workloadIdentityPools/github-actions/"
    assert binding["role"] == "roles/iam.workloadIdentityUser"
    assert [member.startswith(pool) for member in binding["members"]] == [True]
    (wanted,) = cloud.wanted("audit logs")
    (config,) = cloud(f"projects get-iam-policy {PROJECT}").json["auditConfigs"]
    assert [one["logType"] for one in config["auditLogConfigs"]] == wanted.body["logTypes"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "compute networks describe nothing",
            f"The resource 'projects/{PROJECT}/global/networks/nothing' was not found",
        ),
        ("secrets describe nothing", "NOT_FOUND: Secret [projects/NUMBER/secrets/nothing] not found."),
        (
            f"iam service-accounts describe nobody@{PROJECT}.iam.gserviceaccount.com",
            "NOT_FOUND: Unknown service account",
        ),
        ("logging sinks describe nothing", "NOT_FOUND: Sink nothing does not exist"),
        (
            f"artifacts repositories describe nothing --location {REGION}",
            "NOT_FOUND: Requested entity was not found.",
        ),
        (
            "projects describe no-such-project",
            "does not have permission to access projects instance [no-such-project] (or it may not exist)",
        ),
    ],
)
def test_what_there_is_not_is_said_as_google_says_it(cloud: Gcloud, command: str, words: str) -> None:
    number = cloud(f"projects describe {PROJECT}").json["projectNumber"] if "NUMBER" in words else ""
    missing = cloud(command)
    assert missing.status == 1
    assert words.replace("NUMBER", number) in missing.errors


def test_gcloud_reads_a_policy_changes_it_and_writes_it_back(cloud: Gcloud) -> None:
    who = f"{PROJECT} --member user:somebody@example.com --role roles/viewer"
    before = cloud(f"projects get-iam-policy {PROJECT}").json["bindings"]
    assert cloud(f"projects add-iam-policy-binding {who}").json["bindings"] != before
    assert cloud(f"projects remove-iam-policy-binding {who}").json["bindings"] == before


def test_credentials_are_disabled_and_yet_the_token_is_wanted(cloud: Gcloud) -> None:
    assert cloud.variables["CLOUDSDK_AUTH_DISABLE_CREDENTIALS"] == "true"
    whole = cloud.variables[f"{OVERRIDE}SECRETMANAGER"]
    address, _, rest = whole.partition("/_token/")
    for endpoint in (f"{address}/secretmanager/", f"{address}/_token/wrong/{rest.partition('/')[2]}"):
        refused = cloud("secrets list", **{f"{OVERRIDE}SECRETMANAGER": endpoint})
        assert refused.status == 1
        assert "authentication credential" in refused.errors


def test_every_endpoint_is_one_that_gcloud_knows(cloud: Gcloud) -> None:
    in_force = cloud("config list").json["api_endpoint_overrides"]
    assert tuple(sorted(in_force)) == gcloud.overridden()
    assert len({endpoint.partition("/_token/")[0] for endpoint in in_force.values()}) == 1
