"""Artifact Registry's repositories and Network Connectivity's hubs: what the service fills in."""

from __future__ import annotations

import pytest
from control_plane import PROJECT

REPOSITORIES = f"/artifactregistry/v1/projects/{PROJECT}/locations/us-central1/repositories"


@pytest.mark.parametrize(
    ("body", "state"),
    [
        ({"format": "DOCKER"}, "SCANNING_DISABLED"),
        ({"format": "DOCKER", "mode": "VIRTUAL_REPOSITORY"}, "SCANNING_UNSUPPORTED"),
        ({"format": "PYTHON"}, "SCANNING_UNSUPPORTED"),
    ],
)
def test_a_repository_says_where_it_is_and_whether_it_is_scanned(fresh, body, state):
    fresh.post(f"{REPOSITORIES}?repositoryId=images", body)
    repository = fresh.get(f"{REPOSITORIES}/images").body
    assert repository["registryUri"] == f"us-central1-{body['format'].lower()}.pkg.dev/{PROJECT}/images"
    assert repository["mode"] == body.get("mode", "STANDARD_REPOSITORY")
    assert repository["vulnerabilityScanningConfig"]["enablementState"] == state


def test_a_spoke_joins_the_default_group_of_its_hub(fresh):
    fresh.new_project("hub-project", "networkconnectivity")
    place = "/networkconnectivity/v1/projects/hub-project/locations/global"
    hub = "projects/hub-project/locations/global/hubs/hub"
    spoke = {"hub": hub, "linkedVpcNetwork": {"uri": "projects/hub-project/global/networks/n"}}
    assert fresh.post(f"{place}/spokes?spokeId=spoke", spoke).status == 404
    fresh.post(f"{place}/hubs?hubId=hub", {})
    assert fresh.get(f"{place}/hubs/hub").body["presetTopology"] == "MESH"
    assert fresh.post(f"{place}/spokes?spokeId=spoke", spoke).status == 200
    shown = fresh.get(f"{place}/spokes/spoke").body
    assert (shown["spokeType"], shown["group"]) == ("VPC_NETWORK", f"{hub}/groups/default")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"format": "PYTHON", "dockerConfig": {"immutableTags": True}},
        {"format": "PYTHON", "mode": "REMOTE_REPOSITORY"},
        {"format": "PYTHON", "virtualRepositoryConfig": {"upstreamPolicies": []}},
        {
            "format": "PYTHON",
            "mode": "VIRTUAL_REPOSITORY",
            "virtualRepositoryConfig": {"upstreamPolicies": [{"id": "u", "repository": "none"}]},
        },
    ],
)
def test_a_repository_whose_settings_do_not_fit_is_refused(fresh, body):
    assert fresh.post(f"{REPOSITORIES}?repositoryId=refused", body).status == 400


def test_the_format_of_a_repository_cannot_be_changed(fresh):
    fresh.post(f"{REPOSITORIES}?repositoryId=images", {"format": "DOCKER"})
    assert fresh.patch(f"{REPOSITORIES}/images?updateMask=format", {"format": "NPM"}).status == 400
    changed = fresh.patch(f"{REPOSITORIES}/images?updateMask=description", {"description": "new"})
    assert changed.body["description"] == "new"


def test_a_virtual_repository_stands_before_others_of_its_format(fresh):
    fresh.post(f"{REPOSITORIES}?repositoryId=images", {"format": "DOCKER"})
    name = fresh.get(f"{REPOSITORIES}/images").body["name"]
    config = {"upstreamPolicies": [{"id": "own", "repository": name, "priority": 1}]}
    body = {"format": "DOCKER", "mode": "VIRTUAL_REPOSITORY", "virtualRepositoryConfig": config}
    assert fresh.post(f"{REPOSITORIES}?repositoryId=front", body).status == 200
    assert fresh.get(f"{REPOSITORIES}/front").body["virtualRepositoryConfig"] == config
