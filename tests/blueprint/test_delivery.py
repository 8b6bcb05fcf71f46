"""How code gets in: one repository, one branch, no key; one deployer; and the workflow that fits them."""

from __future__ import annotations

import re
from typing import Any

import settings_content
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib import settings
from orchestra_lib.blueprint import infrastructure, workflow
from orchestra_lib.cloud.resource import Ref, Resource, Text
from orchestra_lib.settings import Settings

LOCAL = settings.load("local")
RESOURCES = infrastructure(LOCAL)
NUMBER = "415104041262"


def only(kind: str, resources: list[Resource] = RESOURCES) -> Resource:
    (found,) = [resource for resource in resources if resource.kind == kind]
    return found


def steps(rendered: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load(rendered)["jobs"]["deploy"]["steps"])


def auth(rendered: str) -> dict[str, str]:
    (found,) = [step for step in steps(rendered) if step.get("uses", "").startswith("google-github-actions/auth@")]
    return dict(found["with"])


# --- federation -------------------------------------------------------------------------------------------------------


def test_only_one_repository_of_one_owner_on_one_branch_gets_in_and_by_number() -> None:
    provider = only("workload identity provider")
    assert provider.body["oidc"] == {"issuerUri": "https://token.actions.githubusercontent.com"}
    assert provider.body["attributeCondition"].split(" && ") == [
        "assertion.repository_owner_id == '1001'",
        "assertion.repository_id == '2002'",
        "assertion.ref == 'refs/heads/main'",
    ]
    assert len(provider.body["attributeCondition"]) <= 4096


def test_the_deployer_is_whoever_comes_from_that_repository() -> None:
    (become,) = [resource for resource in RESOURCES if resource.id == "github" and "member" in resource.body]
    pool, provider = only("workload identity pool"), only("workload identity provider")
    attribute = "attribute.repository_id"
    assert provider.body["attributeMapping"][attribute] == "assertion.repository_id"
    assert become.body["member"] == Text(
        f"principalSet://iam.googleapis.com/projects/{{}}/locations/global/workloadIdentityPools/{pool.id}/{attribute}/2002",
        (Ref(RESOURCES[0].key, "projectNumber"),),
    )
    assert become.parent.startswith("projects/cherry-ai-project/serviceAccounts/orchestra-deployer@")


def test_display_names_are_short_enough() -> None:
    for kind in ("workload identity pool", "workload identity provider"):
        assert len(only(kind).body["displayName"]) <= 32


# --- the other pipeline -----------------------------------------------------------------------------------------------


def test_cloud_build_checks_and_cannot_deploy() -> None:
    trigger = only("build trigger")
    assert trigger.body["serviceAccount"].rsplit("/", 1)[1].startswith("orchestra-build@")
    commands = [word for step in trigger.body["build"]["steps"] for word in step["args"]]
    assert not {"push", "deploy"} & set(commands)
    assert "images" not in trigger.body["build"]
    assert trigger.body["build"]["options"] == {"logging": "CLOUD_LOGGING_ONLY"}


def test_builds_are_started_by_hand_until_the_repository_is_connected() -> None:
    assert only("build trigger").body["sourceToBuild"]["ref"] == "refs/heads/main"
    name = "projects/p/locations/us-central1/connections/github/repositories/orchestra-main"
    connected = only("build trigger", infrastructure(settings_content.with_values(github__connected_repository=name)))
    assert "sourceToBuild" not in connected.body
    assert connected.body["repositoryEventConfig"]["repository"] == name
    assert connected.body["repositoryEventConfig"]["pullRequest"]["branch"] == "^main$"


# --- images and secrets -----------------------------------------------------------------------------------------------


def test_a_tag_of_an_image_never_moves() -> None:
    assert only("repository").body["dockerConfig"] == {"immutableTags": True}


def test_secrets_are_kept_in_both_regions_and_have_no_value() -> None:
    secrets = [resource for resource in RESOURCES if resource.kind == "secret"]
    assert [secret.id for secret in secrets] == ["orchestra-source-dsn", "orchestra-memory-endpoint"]
    for secret in secrets:
        assert set(secret.body) == {"replication", "labels"}
        replicas = secret.body["replication"]["userManaged"]["replicas"]
        assert replicas == [{"location": "us-central1"}, {"location": "us-east1"}]


# --- the workflow -----------------------------------------------------------------------------------------------------


def test_the_workflow_comes_in_through_the_provider_that_the_blueprint_makes() -> None:
    provider = only("workload identity provider")
    path = f"{provider.parent}/providers/{provider.id}".replace("cherry-ai-project", NUMBER)
    given_to_auth = auth(workflow(LOCAL, NUMBER))
    assert given_to_auth["workload_identity_provider"] == path
    assert given_to_auth["service_account"] == "orchestra-deployer@cherry-ai-project.iam.gserviceaccount.com"
    assert set(given_to_auth) == {"workload_identity_provider", "service_account"}


def test_the_workflow_may_ask_for_a_token_and_read_the_code_and_nothing_else() -> None:
    assert yaml.safe_load(workflow(LOCAL, NUMBER))["permissions"] == {"contents": "read", "id-token": "write"}


def test_every_action_is_pinned_to_a_commit() -> None:
    used = [step["uses"] for step in steps(workflow(LOCAL, NUMBER)) if "uses" in step]
    assert len(used) == 3
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)


def test_the_workflow_deploys_without_traffic_and_knows_no_secret() -> None:
    rendered = workflow(LOCAL, NUMBER)
    (deploy,) = [step["run"] for step in steps(rendered) if "gcloud run deploy" in step.get("run", "")]
    assert "--no-traffic" in deploy
    assert "--service-account orchestra-api@cherry-ai-project.iam.gserviceaccount.com" in deploy
    assert "secrets." not in rendered
    assert "credentials_json" not in rendered


@given(
    branch=st.from_regex(r"[A-Za-z0-9._/-]{1,40}", fullmatch=True),
    service=st.from_regex(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?", fullmatch=True),
    number=st.integers(min_value=1, max_value=10**12).map(str),
)
def test_the_workflow_of_any_settings_is_yaml_that_says_what_they_say(branch: str, service: str, number: str) -> None:
    changed: Settings = settings_content.with_values(github__branch=branch, api__service=service)
    rendered = workflow(changed, number)
    # YAML 1.1 reads the key ``on`` as true.
    assert yaml.safe_load(rendered)[True]["push"]["branches"] == [branch]
    assert auth(rendered)["workload_identity_provider"].startswith(f"projects/{number}/locations/global/")
    image = yaml.safe_load(rendered)["jobs"]["deploy"]["env"]["IMAGE"]
    assert image.startswith(f"us-central1-docker.pkg.dev/cherry-ai-project/orchestra/{service}:${{{{ github.sha }}}}")
