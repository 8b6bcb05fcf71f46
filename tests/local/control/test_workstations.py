"""Cloud Workstations: clusters, configs with their defaults, workstations that start and stop."""

from __future__ import annotations

import pytest
from control_plane import PROJECT

LOCATION = f"/workstations/v1/projects/{PROJECT}/locations/us-central1"
CLUSTER = f"{LOCATION}/workstationClusters/cluster"
CONFIG = f"{CLUSTER}/workstationConfigs/config"
WORKSTATION = f"{CONFIG}/workstations/desk"
PARTS = f"projects/{PROJECT}/global/networks/n", f"projects/{PROJECT}/regions/us-central1/subnetworks/s"


def done(server, operation):
    assert operation.status == 200, operation.body
    polled = server.get(f"/workstations/v1/{operation.body['name']}").body
    assert polled["done"], polled
    return polled["response"]


@pytest.fixture(scope="module")
def desk(server):
    private = {"enablePrivateEndpoint": True}
    body = {"network": PARTS[0], "subnetwork": PARTS[1], "privateClusterConfig": private}
    path, _, name = CLUSTER.rpartition("/")
    done(server, server.post(f"{path}?workstationClusterId={name}", body))
    done(server, server.post(f"{CLUSTER}/workstationConfigs?workstationConfigId=config", {}))
    return done(server, server.post(f"{CONFIG}/workstations?workstationId=desk", {}))


def test_a_private_cluster_has_a_host_name_and_an_attachment(server, desk):
    cluster = server.get(CLUSTER).body
    assert cluster["controlPlaneIp"].startswith("10.")
    assert cluster["privateClusterConfig"]["clusterHostname"].endswith(".cloudworkstations.dev")
    assert "/serviceAttachments/" in cluster["privateClusterConfig"]["serviceAttachmentUri"]


def test_a_config_has_its_defaults(server, desk):
    config = server.get(CONFIG).body
    instance = config["host"]["gceInstance"]
    assert (instance["machineType"], instance["bootDiskSizeGb"]) == ("e2-standard-4", 50)
    assert instance["serviceAccount"].endswith("@gcp-sa-workstationsvm.iam.gserviceaccount.com")
    assert config["replicaZones"] == ["us-central1-a", "us-central1-b"]
    assert (config["idleTimeout"], config["runningTimeout"]) == ("1200s", "43200s")


def test_a_workstation_starts_and_stops(server, desk):
    assert desk["state"] == "STATE_STOPPED"
    assert done(server, server.post(f"{WORKSTATION}:start", {}))["state"] == "STATE_RUNNING"
    refused = server.post(f"{WORKSTATION}:start", {})
    assert (refused.status, refused.body["error"]["status"]) == (400, "FAILED_PRECONDITION")
    assert done(server, server.post(f"{WORKSTATION}:stop", {"validateOnly": True}))["state"] == "STATE_RUNNING"
    assert done(server, server.post(f"{WORKSTATION}:stop", {}))["state"] == "STATE_STOPPED"
