"""Clients at the same time: each sees whole requests, and of two that want the same, one gets it."""

from __future__ import annotations

import http.client
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

from control_plane import PROJECT, TOKEN

SECRETS = f"/secretmanager/v1/projects/{PROJECT}/secrets"
SECRET = {"replication": {"automatic": {}}}


def test_of_many_that_create_the_same_one_succeeds(fresh):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: fresh.post(f"{SECRETS}?secretId=s", SECRET).status, range(16)))
    assert sorted(answers) == [200] + [409] * 15


def test_of_many_that_read_modify_and_write_none_is_lost(fresh):
    fresh.post(f"{SECRETS}?secretId=s", SECRET)

    def add(number: int) -> int:
        tries = 0
        while True:
            tries += 1
            secret = fresh.get(f"{SECRETS}/s").body
            labels = {**secret.get("labels", {}), f"l{number}": "x"}
            body = {"labels": labels, "etag": secret["etag"]}
            if fresh.patch(f"{SECRETS}/s?updateMask=labels", body).status == 200:
                return tries

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(18)))
    assert len(fresh.get(f"{SECRETS}/s").body["labels"]) == 18


def test_many_creates_are_all_there(fresh):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: fresh.post(f"{SECRETS}?secretId=s{n}", SECRET).status, range(100)))
    assert set(answers) == {200}
    assert len(fresh.get(f"{SECRETS}?pageSize=1000").body["secrets"]) == 100


def test_a_kept_connection_answers_without_delay(fresh):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(fresh.url).netloc)
    took = []
    for _ in range(40):
        started = time.perf_counter()
        connection.request("GET", SECRETS, headers={"Authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().read()
        took.append(time.perf_counter() - started)
    connection.close()
    assert sorted(took)[20] < 0.03, "40 ms is what a delayed acknowledgement costs"


def test_a_request_whose_client_leaves_before_its_body_is_not_carried_out(fresh):
    """Its empty rest would be the emptiest policy: everybody's roles were gone."""
    policy = f"/cloudresourcemanager/v3/projects/{PROJECT}"
    binding = {"role": "roles/viewer", "members": ["user:a@example.com"]}
    fresh.post(f"{policy}:setIamPolicy", {"policy": {"bindings": [binding]}})
    head = (
        f"POST {policy}:setIamPolicy HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n"
    )
    address = urllib.parse.urlsplit(fresh.url)
    for part in ("", '{"policy": {'):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall((head + part).encode())
    time.sleep(0.2)
    assert fresh.post(f"{policy}:getIamPolicy").body["bindings"] == [binding]
