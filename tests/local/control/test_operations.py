"""Long-running operations: they end when they are due, whoever looks, in their service's own shape."""

from __future__ import annotations

import pytest
from control_plane import PROJECT, serving

REGION = f"projects/{PROJECT}/locations/us-central1"
CLUSTERS = f"/alloydb/v1/{REGION}/clusters"
PSC = {"pscConfig": {"pscEnabled": True}}


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def slow(tmp_path, clock):
    """A control plane as slow as the real one, whose time the test moves."""
    with serving(tmp_path, latency=1, clock=clock) as running:
        running.new_project(PROJECT, "alloydb", "compute", "run", "artifactregistry")
        yield running


def test_an_operation_ends_when_it_is_due(slow, clock):
    started = slow.post(f"{CLUSTERS}?clusterId=c", PSC).body
    assert started["done"] is False
    assert started["metadata"]["target"] == f"{REGION}/clusters/c"
    assert slow.get(f"{CLUSTERS}/c").body["state"] == "CREATING"
    clock.now += 59
    assert slow.get(f"/alloydb/v1/{started['name']}").body["done"] is False
    clock.now += 2
    ended = slow.get(f"/alloydb/v1/{started['name']}").body
    assert ended["done"] is True
    assert ended["response"]["@type"] == "type.googleapis.com/google.cloud.alloydb.v1.Cluster"
    assert ended["response"]["state"] == slow.get(f"{CLUSTERS}/c").body["state"] == "READY"


def test_it_ends_though_nobody_asks_for_it(slow, clock):
    slow.post(f"{CLUSTERS}?clusterId=c", PSC)
    clock.now += 61
    assert slow.get(f"{CLUSTERS}/c").body["state"] == "READY"


def test_it_goes_on_after_a_restart(tmp_path, clock):
    with serving(tmp_path, latency=1, clock=clock) as running:
        running.new_project(PROJECT, "alloydb")
        started = running.post(f"{CLUSTERS}?clusterId=c", PSC).body
    clock.now += 61
    with serving(tmp_path, latency=1, clock=clock) as running:
        assert running.get(f"/alloydb/v1/{started['name']}").body["done"] is True
        assert running.get(f"{CLUSTERS}/c").body["state"] == "READY"


def test_a_resource_at_work_refuses_the_next_change(slow, clock):
    slow.post(f"{CLUSTERS}?clusterId=c", PSC)
    busy = slow.patch(f"{CLUSTERS}/c?updateMask=labels", {"labels": {"a": "b"}})
    assert (busy.status, busy.body["error"]["status"]) == (409, "ABORTED")
    assert slow.delete(f"{CLUSTERS}/c").status == 409
    clock.now += 61
    assert slow.patch(f"{CLUSTERS}/c?updateMask=labels", {"labels": {"a": "b"}}).status == 200


def test_compute_says_in_its_own_way_that_a_resource_is_not_ready(slow):
    networks = f"/compute/v1/projects/{PROJECT}/global/networks"
    started = slow.post(networks, {"name": "net", "autoCreateSubnetworks": False}).body
    assert (started["status"], started["progress"]) == ("RUNNING", 0)
    refused = slow.delete(f"{networks}/net")
    assert refused.status == 400
    assert refused.body["error"]["errors"][0]["reason"] == "resourceNotReady"


def test_an_update_shows_at_its_end(slow, clock):
    slow.post(f"{CLUSTERS}?clusterId=c", {**PSC, "displayName": "old"})
    clock.now += 61
    slow.patch(f"{CLUSTERS}/c?updateMask=displayName", {"displayName": "new"})
    meanwhile = slow.get(f"{CLUSTERS}/c").body
    assert (meanwhile["displayName"], meanwhile["reconciling"]) == ("old", True)
    clock.now += 61
    assert slow.get(f"{CLUSTERS}/c").body["displayName"] == "new"


def test_a_delete_ends_with_the_resource_gone(slow, clock):
    slow.post(f"{CLUSTERS}?clusterId=c", PSC)
    clock.now += 61
    started = slow.delete(f"{CLUSTERS}/c").body
    assert slow.get(f"{CLUSTERS}/c").body["state"] == "DELETING"
    clock.now += 61
    assert slow.get(f"{CLUSTERS}/c").status == 404
    assert slow.get(f"/alloydb/v1/{started['name']}").body["response"]["@type"].endswith("google.protobuf.Empty")


def test_a_cancelled_create_leaves_no_ready_resource(slow):
    started = slow.post(f"{CLUSTERS}?clusterId=c", PSC).body
    assert slow.post(f"/alloydb/v1/{started['name']}:cancel").status == 200
    ended = slow.get(f"/alloydb/v1/{started['name']}").body
    assert (ended["done"], ended["error"]["code"]) == (True, 1)
    assert slow.get(f"{CLUSTERS}/c").body.get("state") != "READY"


def test_operations_are_listed_filtered_and_forgotten(slow, clock):
    for name in ("a", "b"):
        slow.post(f"{CLUSTERS}?clusterId={name}", PSC)
    clock.now += 61
    path = f"/alloydb/v1/{REGION}/operations"
    listed = slow.get(path).body["operations"]
    assert len(listed) == 2
    assert slow.get(f"{path}?filter=done=false").body == {}
    assert slow.delete(f"/alloydb/v1/{listed[0]['name']}").status == 200
    assert slow.get(f"/alloydb/v1/{listed[0]['name']}").status == 404


def test_a_wait_answers_with_the_present_state(slow, clock):
    networks = f"/compute/v1/projects/{PROJECT}/global/networks"
    started = slow.post(networks, {"name": "net", "autoCreateSubnetworks": False}).body
    wait = f"/compute/v1/projects/{PROJECT}/global/operations/{started['name']}/wait"
    assert slow.post(wait).body["status"] == "RUNNING"
    clock.now += 60
    assert slow.post(wait).body["status"] == "DONE"


def test_run_shows_the_resource_in_its_operation(slow, clock):
    services = f"/run/v2/{REGION}/services"
    started = slow.post(f"{services}?serviceId=api", {"template": {"containers": [{"image": "i"}]}}).body
    assert started["metadata"]["name"] == f"{REGION}/services/api"
    assert started["metadata"]["reconciling"] is True
    assert "done" not in started
    clock.now += 60
    assert slow.get(f"/run/v2/{started['name']}").body["done"] is True


def test_a_defect_in_the_work_of_an_operation_ends_that_operation_and_no_other_call(slow, clock, monkeypatch):
    def broken(record):
        raise KeyError("a defect")

    started = slow.post(f"{CLUSTERS}?clusterId=broken", PSC).body
    monkeypatch.setattr(slow.control, "effect", broken)
    clock.now += 3600
    ended = slow.get(f"/alloydb/v1/{started['name']}")
    assert (ended.status, ended.body["done"], ended.body["error"]["code"]) == (200, True, 13)
    assert slow.get(f"/alloydb/v1/{REGION}/clusters").status == 200
