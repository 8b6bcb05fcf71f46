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


def fresh_desk(server, name, **config):
    """A running server's cluster with a configuration and a workstation of one test; returns their paths."""
    url = f"{CLUSTER}/workstationConfigs/{name}"
    done(server, server.post(f"{CLUSTER}/workstationConfigs?workstationConfigId={name}", config))
    done(server, server.post(f"{url}/workstations?workstationId=desk", {}))
    return url, f"{url}/workstations/desk"


@pytest.mark.parametrize(
    "body",
    [
        {"host": {"gceInstance": {"bootDiskSizeGb": 29}}},
        {"host": {"gceInstance": {"boostConfigs": [{"id": "b", "bootDiskSizeGb": 10}]}}},
        {"host": {"gceInstance": {"machineType": "e2-standard-4", "enableNestedVirtualization": True}}},
        {"replicaZones": ["us-central1-a"]},
        {"replicaZones": ["us-central1-a", "us-east1-b"]},
        {"persistentDirectories": [{"mountPath": "/home"}, {"mountPath": "/more"}]},
        {"persistentDirectories": [{"gcePd": {"sizeGb": 70}}]},
        {"persistentDirectories": [{"gcePd": {"sizeGb": 100, "diskType": "pd-standard"}}]},
        {"persistentDirectories": [{"gcePd": {"sourceSnapshot": "s", "sizeGb": 200}}]},
        {"allowedPorts": [{"first": 80, "last": 81}]},
        {"encryptionKey": {"kmsKey": "k"}, "runningTimeout": "0s"},
    ],
)
def test_a_config_that_the_service_would_not_take_is_refused(server, desk, body):
    assert server.post(f"{CLUSTER}/workstationConfigs?workstationConfigId=refused", body).status == 400


def test_a_configs_home_disk_and_boosts_are_completed(server, desk):
    disks = [{"gcePd": {"sizeGb": 500, "reclaimPolicy": "RETAIN"}}]
    boosts = [{"id": "big", "machineType": "n2-standard-32"}]
    url, _ = fresh_desk(server, "full", persistentDirectories=disks, host={"gceInstance": {"boostConfigs": boosts}})
    config = server.get(url).body
    disk = {"sizeGb": 500, "reclaimPolicy": "RETAIN", "diskType": "pd-standard", "fsType": "ext4"}
    assert config["persistentDirectories"] == [{"mountPath": "/home", "gcePd": disk}]
    assert config["host"]["gceInstance"]["boostConfigs"][0]["bootDiskSizeGb"] == 50
    assert server.get(CONFIG).body["persistentDirectories"][0]["gcePd"]["sizeGb"] == 200


def test_a_running_workstation_has_a_host_and_keeps_running_when_it_is_renamed(server, desk):
    _, url = fresh_desk(server, "running")
    running = done(server, server.post(f"{url}:start", {}))
    assert running["runtimeHost"]["gceInstanceHost"]["zone"] == "us-central1-a"
    assert running["host"].endswith(server.get(CLUSTER).body["privateClusterConfig"]["clusterHostname"])
    renamed = done(server, server.patch(f"{url}?updateMask=displayName", {"displayName": "mine"}))
    assert (renamed["state"], renamed["displayName"]) == ("STATE_RUNNING", "mine")
    assert done(server, server.post(f"{url}:suspend", {}))["state"] == "STATE_SUSPENDED"
    assert done(server, server.post(f"{url}:start", {}))["startTime"] > running["startTime"]
    stopped = done(server, server.post(f"{url}:stop", {}))
    assert stopped["state"] == "STATE_STOPPED"
    assert "runtimeHost" not in stopped


def test_cards_that_the_machine_cannot_have_show_when_the_workstation_starts(server, desk):
    card = {"type": "nvidia-tesla-t4", "count": 2}
    boost = {"id": "gpu", "machineType": "n1-standard-32", "accelerators": [card]}
    machine = {"machineType": "n2d-standard-32", "accelerators": [card], "boostConfigs": [boost]}
    _, url = fresh_desk(server, "cards", host={"gceInstance": machine})
    started = server.post(f"{url}:start", {}).body
    failed = server.get(f"/workstations/v1/{started['name']}").body
    words = "[n2d-standard-32, nvidia-tesla-t4] features are not compatible for creating instance."
    assert failed["error"]["message"] == words
    assert server.get(url).body["state"] == "STATE_STOPPED"
    assert server.post(f"{url}:start", {"boostConfig": "none"}).status == 400
    assert done(server, server.post(f"{url}:start", {"boostConfig": "gpu"}))["state"] == "STATE_RUNNING"


def test_a_token_is_for_a_running_workstation_and_for_a_day_at_most(server, desk):
    _, url = fresh_desk(server, "token")
    assert server.post(f"{url}:generateAccessToken", {}).status == 400
    done(server, server.post(f"{url}:start", {}))
    token = server.post(f"{url}:generateAccessToken", {"ttl": "60s"}).body
    assert token["accessToken"] != server.post(f"{url}:generateAccessToken", {}).body["accessToken"]
    assert server.post(f"{url}:generateAccessToken", {"ttl": "86401s"}).status == 400


def test_what_holds_workstations_is_deleted_by_force_alone(server, desk):
    url, workstation = fresh_desk(server, "holding")
    listed = server.get(f"{CLUSTER}/workstationConfigs:listUsable").body["workstationConfigs"]
    assert url.rpartition("/v1/")[2] in [config["name"] for config in listed]
    assert server.delete(url).status == 400
    assert server.delete(CLUSTER).status == 400
    assert server.delete(f"{url}?force=true").status == 200
    assert server.get(workstation).status == 404


def test_a_start_that_is_only_validated_starts_nothing(server, desk):
    _, url = fresh_desk(server, "validated")
    assert server.post(f"{url}:start", {"validateOnly": True}).body["done"]
    assert server.get(url).body["state"] == "STATE_STOPPED"


DISKS = f"/compute/v1/projects/{PROJECT}/regions/us-central1/disks"


def homes(server, name):
    """The home disks of workstations with a label of that value, by their uids."""
    return server.get(f"{DISKS}?filter=labels.workstation={name}").body.get("items", [])


def labelled(server, name, **disk):
    """A configuration with such a home disk, and a workstation that has its own name as a label."""
    url = f"{CLUSTER}/workstationConfigs/{name}"
    body = {"persistentDirectories": [{"gcePd": disk}], "labels": {"team": "all"}}
    done(server, server.post(f"{CLUSTER}/workstationConfigs?workstationConfigId={name}", body))
    made = done(server, server.post(f"{url}/workstations?workstationId=w", {"labels": {"workstation": name}}))
    return f"{url}/workstations/w", made


def test_a_workstations_home_is_a_regional_disk_of_the_project_with_its_labels(server, desk):
    url, workstation = labelled(server, "kept", diskType="pd-balanced", sizeGb=100, reclaimPolicy="RETAIN")
    (disk,) = homes(server, "kept")
    assert disk["name"].endswith(workstation["uid"])
    assert (disk["sizeGb"], disk["status"], disk["labels"]["team"]) == ("100", "READY", "all")
    assert disk["type"].endswith("/regions/us-central1/diskTypes/pd-balanced")
    assert [zone.rsplit("/", 1)[1] for zone in disk["replicaZones"]] == ["us-central1-a", "us-central1-b"]
    done(server, server.patch(f"{url}?updateMask=displayName", {"displayName": "renamed"}))
    assert [one["id"] for one in homes(server, "kept")] == [disk["id"]]
    done(server, server.delete(url))
    assert [one["id"] for one in homes(server, "kept")] == [disk["id"]], "RETAIN keeps it"


def test_a_home_goes_with_its_workstation_unless_it_is_retained(server, desk):
    url, _ = labelled(server, "gone", sizeGb=200)
    assert len(homes(server, "gone")) == 1
    done(server, server.delete(url))
    assert homes(server, "gone") == []


def test_a_home_is_made_from_a_snapshot_and_has_its_size(server, desk):
    labelled(server, "original", diskType="pd-ssd", sizeGb=50)
    (first,) = homes(server, "original")
    taken = {"name": "of-original", "sourceDisk": first["selfLink"]}
    assert server.post(f"/compute/v1/projects/{PROJECT}/global/snapshots", taken).status == 200
    snapshot = server.get(f"/compute/v1/projects/{PROJECT}/global/snapshots/of-original").body
    labelled(server, "restored", diskType="pd-ssd", sourceSnapshot=f"projects/{PROJECT}/global/snapshots/of-original")
    (second,) = homes(server, "restored")
    assert (second["sourceSnapshotId"], second["sizeGb"]) == (snapshot["id"], "50")
    missing = {"persistentDirectories": [{"gcePd": {"sourceSnapshot": f"projects/{PROJECT}/global/snapshots/none"}}]}
    assert server.post(f"{CLUSTER}/workstationConfigs?workstationConfigId=missing", missing).status == 404
