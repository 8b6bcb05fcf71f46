"""What was acknowledged is there: also when the server is killed in the middle of its work."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time

import psutil
import pytest
from control_plane import PROJECT, send

from orchestra_lib.local.control import process
from orchestra_lib.local.control.store import Store

SECRETS = f"/secretmanager/v1/projects/{PROJECT}/secrets"


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "s.sqlite")
    yield opened
    opened.close()


def put_and_fail(store, rows):
    for key, body in rows.items():
        store.put(key, body)
    raise KeyError


def test_a_failed_transaction_leaves_nothing(store):
    store.put("a/things/1", {"n": 1})
    with pytest.raises(KeyError), store.transaction():
        put_and_fail(store, {"a/things/1": {"n": 2}, "a/things/2": {"n": 2}})
    assert store.get("a/things/1").body == {"n": 1}
    assert store.get("a/things/2") is None


def test_a_failed_part_of_a_transaction_leaves_the_rest(store):
    with store.transaction():
        store.put("a/things/1", {})
        with pytest.raises(KeyError), store.transaction():
            put_and_fail(store, {"a/things/2": {}})
        store.put("a/things/3", {})
    assert [row.key for row in store.children("a", "a/things")] == ["a/things/1", "a/things/3"]


def test_children_are_those_of_the_parent_alone(store):
    for key in ("a/p/1/c/x", "a/p/1/c/y/d/z", "a/p/10/c/x", "a/p/2/c/x", "b/p/1/c/x"):
        store.put(key, {})
    assert [row.key for row in store.children("a/p/1", "a/c")] == ["a/p/1/c/x"]
    assert [row.key for row in store.children("a/p/-", "a/c")] == ["a/p/1/c/x", "a/p/10/c/x", "a/p/2/c/x"]
    store.remove("a/p/1")
    assert [row.key for row in store.below("a/")] == ["a/p/10/c/x", "a/p/2/c/x"]


def test_a_deleted_resource_can_be_seen_when_asked_for(store):
    store.put("a/things/1", {"n": 1}, {"secret": 1})
    store.mark_deleted("a/things/1", 5.0)
    assert store.get("a/things/1") is None
    assert store.get("a/things/1", even_deleted=True).deleted_at == 5.0
    store.put("a/things/1", {"n": 2})
    assert store.get("a/things/1").hidden == {"secret": 1}


def test_numbers_count_for_each_name(store):
    assert [store.next_number("a"), store.next_number("b"), store.next_number("a")] == [1, 1, 2]


def test_kill_9_loses_no_acknowledged_write(tmp_path):
    first = process.up(tmp_path, latency="0", permissive=True)
    acknowledged: list[str] = []
    stop = threading.Event()

    def create(worker: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            name = f"s-{worker}-{number}"
            try:
                made = send(first.url, "POST", f"{SECRETS}?secretId={name}", b'{"replication": {"automatic": {}}}')
            except (OSError, http.client.HTTPException):
                return
            assert made.status == 200, made.body
            acknowledged.append(name)

    threads = [threading.Thread(target=create, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(acknowledged) < 60 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGKILL)
    for thread in threads:
        thread.join()
    stop.set()
    assert len(acknowledged) >= 60
    psutil.wait_procs([psutil.Process(first.pid)] if psutil.pid_exists(first.pid) else [], timeout=5)
    assert process.status(tmp_path) is None
    second = process.up(tmp_path, latency="0", permissive=True)
    try:
        assert second.pid != first.pid
        assert second.port == first.port, "clients find it where it was"
        listed = send(second.url, "GET", f"{SECRETS}?pageSize=1000").body["secrets"]
        there = {secret["name"].rsplit("/", 1)[1] for secret in listed}
        assert set(acknowledged) <= there
        assert len(there) <= len(acknowledged) + len(threads)
    finally:
        process.down(tmp_path)
    assert process.status(tmp_path) is None
