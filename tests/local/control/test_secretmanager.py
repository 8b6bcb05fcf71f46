"""Secret Manager: versions, what is shown of them and when, names for versions, checksums."""

from __future__ import annotations

import base64
from itertools import count

import google_crc32c
import pytest
from control_plane import PROJECT
from hypothesis import given
from hypothesis import strategies as st

from orchestra_lib.local.control.services.secretmanager import crc32c

SECRETS = f"/secretmanager/v1/projects/{PROJECT}/secrets"
_numbers = count(1)


def encoded(text):
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def secret(server):
    name = f"secret-{next(_numbers)}"
    assert server.post(f"{SECRETS}?secretId={name}", {"replication": {"automatic": {}}}).status == 200
    return f"{SECRETS}/{name}"


def add(server, secret, text, **more):
    return server.post(f"{secret}:addVersion", {"payload": {"data": encoded(text), **more}})


def test_versions_count_from_one_and_latest_is_the_highest(server, secret):
    first = add(server, secret, "one").body
    assert first["name"] == server.control.projects.numbered(f"{secret}/versions/1".removeprefix("/secretmanager/v1/"))
    assert first["replicationStatus"] == {"automatic": {}}
    for number in range(2, 12):
        add(server, secret, str(number))
    accessed = server.get(f"{secret}/versions/latest:access").body
    assert base64.b64decode(accessed["payload"]["data"]) == b"11"
    assert accessed["payload"]["dataCrc32c"] == str(crc32c(b"11"))
    listed = [version["name"].rsplit("/", 1)[1] for version in server.get(f"{secret}/versions").body["versions"]]
    assert listed == [str(number) for number in range(11, 0, -1)]


def test_the_data_is_shown_by_access_alone(server, secret):
    add(server, secret, "hush")
    shown = str(server.get(f"{secret}/versions/1").body) + str(server.get(secret).body)
    assert encoded("hush") not in shown + str(server.get("/_local/state").body)


def test_a_disabled_version_is_not_accessible_and_a_destroyed_one_never_again(server, secret):
    add(server, secret, "x")
    assert server.post(f"{secret}/versions/1:disable").body["state"] == "DISABLED"
    refused = server.get(f"{secret}/versions/1:access")
    assert (refused.status, "is in DISABLED state" in refused.message) == (400, True)
    assert server.post(f"{secret}/versions/1:enable").body["state"] == "ENABLED"
    assert server.post(f"{secret}/versions/1:destroy").body["destroyTime"]
    assert "is in DESTROYED state" in server.post(f"{secret}/versions/1:enable").message
    assert (
        server.control.find(f"secretmanager/projects/{PROJECT}/secrets/{secret.rsplit('/', 1)[1]}/versions/1").hidden
        == {}
    )


def test_a_secret_may_delay_the_destruction_of_its_versions(server, secret):
    server.patch(f"{secret}?updateMask=versionDestroyTtl", {"versionDestroyTtl": "86400s"})
    add(server, secret, "x")
    waiting = server.post(f"{secret}/versions/1:destroy").body
    assert (waiting["state"], "destroyTime" in waiting) == ("DISABLED", False)
    assert waiting["scheduledDestroyTime"]
    assert server.post(f"{secret}/versions/1:destroy").body["state"] == "DESTROYED"


def test_versions_have_names_of_the_secrets_own(server, secret):
    add(server, secret, "one"), add(server, secret, "two")
    server.patch(f"{secret}?updateMask=versionAliases", {"versionAliases": {"stable": "1"}})
    assert base64.b64decode(server.get(f"{secret}/versions/stable:access").body["payload"]["data"]) == b"one"


@pytest.mark.parametrize("payload", [{}, {"data": ""}, {"data": encoded("x"), "dataCrc32c": "1"}])
def test_data_that_is_missing_or_damaged_is_refused(server, secret, payload):
    assert server.post(f"{secret}:addVersion", {"payload": payload}).status == 400


def test_a_time_to_live_becomes_a_time(server):
    name = f"secret-{next(_numbers)}"
    made = server.post(f"{SECRETS}?secretId={name}", {"replication": {"automatic": {}}, "ttl": "3600s"}).body
    assert "ttl" not in made
    assert made["expireTime"] > made["createTime"]


def test_what_does_not_exist_is_named_with_the_projects_number(server, secret):
    path = server.control.projects.numbered(secret.removeprefix("/secretmanager/v1/"))
    assert server.get(f"{secret}x").message == f"Secret [{path}x] not found."
    assert server.get(f"{secret}/versions/7").message == f"Secret Version [{path}/versions/7] not found."


def test_a_secret_that_is_made_again_starts_from_one(server, secret):
    add(server, secret, "x")
    server.delete(secret)
    server.post(f"{SECRETS}?secretId={secret.rsplit('/', 1)[1]}", {"replication": {"automatic": {}}})
    assert add(server, secret, "y").body["name"].endswith("/versions/1")


@given(st.binary(max_size=200))
def test_the_checksum_is_googles(data):
    assert crc32c(data) == google_crc32c.value(data)
