"""How code gets in: images, secrets, the federation that lets one GitHub workflow in without a key, and a build check.

GitHub's workflow deploys and Cloud Build does not: two deployers would undo each other's work.
"""

from __future__ import annotations

import re
from typing import Any

from orchestra_lib.blueprint import identities
from orchestra_lib.blueprint.specification import Specification
from orchestra_lib.cloud.resource import Resource, Text

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
POOL = "github-actions"
PROVIDER = "github"

_MAPPING = {
    "google.subject": "assertion.sub",
    "attribute.ref": "assertion.ref",
    "attribute.repository_id": "assertion.repository_id",
    "attribute.repository_owner_id": "assertion.repository_owner_id",
}
_BUILD_TIMEOUT_SECONDS = 1_200


def delivery(spec: Specification) -> list[Resource]:
    """Registry, secrets, the roles on them, the federation with GitHub, and Cloud Build's trigger."""
    images, secrets = _registry(spec), _secrets(spec)
    return [
        images,
        *secrets.values(),
        *identities.narrow_roles(spec, images, secrets),
        *_federation(spec),
        _trigger(spec),
    ]


def image_path(spec: Specification) -> str:
    """Where the API's images lie, without a tag."""
    return f"{spec.regions.primary}-docker.pkg.dev/{spec.project.id}/{spec.registry.repository}/{spec.api.service}"


def _registry(spec: Specification) -> Resource:
    body = {
        "format": "DOCKER",
        "mode": "STANDARD_REPOSITORY",
        "description": "Container images; a tag never moves",
        "labels": dict(spec.labels),
        "dockerConfig": {"immutableTags": True},
    }
    return spec.resource("repository", spec.location(spec.regions.primary), spec.registry.repository, body)


def _secrets(spec: Specification) -> dict[str, Resource]:
    """The secrets by the name of their setting, kept in both regions; people add the values."""
    replicas = [{"location": region} for region in (spec.regions.primary, spec.regions.secondary)]
    body = {"replication": {"userManaged": {"replicas": replicas}}, "labels": dict(spec.labels)}
    return {name: spec.resource("secret", spec.project_path, id_, body) for name, id_ in spec.secrets}


def _federation(spec: Specification) -> list[Resource]:
    pool = spec.resource(
        "workload identity pool",
        spec.location("global"),
        POOL,
        {"displayName": "GitHub Actions", "description": "Workflows that may act on this project without a key"},
    )
    provider = spec.resource(
        "workload identity provider",
        f"{pool.parent}/workloadIdentityPools/{pool.id}",
        PROVIDER,
        {
            "displayName": "GitHub",
            "oidc": {"issuerUri": GITHUB_ISSUER},
            "attributeMapping": dict(_MAPPING),
            # Everybody's workflows have this issuer: without the condition all of GitHub could ask for a token.
            "attributeCondition": " && ".join(
                (
                    f"assertion.repository_owner_id == '{spec.github_owner_id}'",
                    f"assertion.repository_id == '{spec.github_repository_id}'",
                    f"assertion.ref == 'refs/heads/{spec.github.branch}'",
                )
            ),
        },
        (pool.key,),
    )
    principals = f"locations/global/workloadIdentityPools/{POOL}/attribute.repository_id/{spec.github_repository_id}"
    become_deployer = spec.resource(
        "service account roles",
        spec.account_path(identities.DEPLOYER),
        "github",
        {
            "member": Text(f"principalSet://iam.googleapis.com/projects/{{}}/{principals}", (spec.project_number,)),
            "roles": ["roles/iam.workloadIdentityUser"],
        },
        (provider.key, identities.account(spec, identities.DEPLOYER).key),
    )
    return [pool, provider, become_deployer]


def _trigger(spec: Specification) -> Resource:
    """Cloud Build checks that the image builds and throws it away. It pushes nothing and has no role to deploy."""
    body = {
        "description": "Checks that the image builds; deploys nothing",
        "serviceAccount": spec.account_path(identities.BUILD),
        "build": {
            "steps": [{"name": "gcr.io/cloud-builders/docker", "args": ["build", "--tag", "checked", "."]}],
            "timeout": f"{_BUILD_TIMEOUT_SECONDS}s",
            # An account of one's own has no bucket for logs: https://cloud.google.com/build/docs/securing-builds
            "options": {"logging": "CLOUD_LOGGING_ONLY"},
        },
        **_source(spec),
    }
    needs = (identities.account(spec, identities.BUILD).key,)
    return spec.resource("build trigger", spec.location(spec.regions.primary), "orchestra-check", body, needs)


def _source(spec: Specification) -> dict[str, Any]:
    """Pull requests, once a person has connected the repository in the browser; until then a start by hand."""
    github = spec.github
    if github.connected_repository:
        pull_request = {
            "branch": f"^{re.escape(github.branch)}$",
            "commentControl": "COMMENTS_ENABLED_FOR_EXTERNAL_CONTRIBUTORS_ONLY",
        }
        return {"repositoryEventConfig": {"repository": github.connected_repository, "pullRequest": pull_request}}
    return {
        "sourceToBuild": {
            "uri": f"https://github.com/{github.owner}/{github.repository}",
            "ref": f"refs/heads/{github.branch}",
            "repoType": "GITHUB",
        }
    }
