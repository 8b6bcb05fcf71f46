"""Values of secrets against a running local Google Cloud: added, read, damaged on the way, and put back."""

from __future__ import annotations

import base64
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from planes import Plane

from orchestra_lib.cloud.apply import apply
from orchestra_lib.cloud.client import Client
from orchestra_lib.cloud.journal import Journal
from orchestra_lib.cloud.plan import make_plan
from orchestra_lib.cloud.refusals import CloudRefused
from orchestra_lib.cloud.resource import Resource
from orchestra_lib.cloud.secret_values import add, current, current_hidden, current_version, restore, text_of
from orchestra_lib.errors import DataError
from orchestra_lib.redaction import redact
from orchestra_lib.secret import MASK, Secret

PARENT = "organizations/873291114285"
_numbers = count(1)


@pytest.fixture(scope="module")
def _made(_plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> tuple[Client, str]:
    client, path = _plane.client(), "projects/secret-values-test"
    project = Resource("project", PARENT, "secret-values-test", {"parent": PARENT})
    billing = Resource(
        "billing", path, "billingInfo", {"billingAccountName": "billingAccounts/01A2B3-C4D5E6-F70819"}, (project.key,)
    )
    service = Resource("service", path, "secretmanager.googleapis.com", needs=(billing.key,))
    journal = Journal(tmp_path_factory.mktemp("secrets") / "journal.jsonl")
    apply(client, make_plan(client, [project, billing, service]), journal, "run-1")
    return client, path


@pytest.fixture
def client(_made: tuple[Client, str]) -> Client:
    return _made[0]


@pytest.fixture
def secret(_made: tuple[Client, str]) -> str:
    """A new secret without a value."""
    client, path = _made
    name, body = f"secret-{next(_numbers)}", {"replication": {"automatic": {}}}
    method_id, query = "secretmanager.projects.secrets.create", {"secretId": name}
    client.call("secretmanager.v1", method_id, f"{path}/secrets", body=body, query=query)
    return f"{path}/secrets/{name}"


def test_a_secret_without_a_value_has_none_and_one_that_is_not_there_is_refused(client: Client, secret: str) -> None:
    assert current(client, secret) is None
    assert current_hidden(client, secret) is None
    assert current_version(client, secret) is None
    with pytest.raises(CloudRefused, match="not found"):
        current(client, f"{secret}-other")


@given(text=st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=200))
@examples(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_text_comes_back_as_it_was_added(client: Client, secret: str, text: str) -> None:
    version = add(client, secret, text)
    assert current(client, secret) == text
    assert current_version(client, secret) == version
    assert text_of(client, version) == text


def test_the_old_value_is_put_back_as_a_new_version_and_once_is_enough(client: Client, secret: str) -> None:
    old, new = add(client, secret, "old endpoint"), add(client, secret, "new endpoint")
    back = restore(client, secret, old)
    assert current(client, secret) == "old endpoint"
    assert back not in (old, new)
    assert restore(client, secret, old) == back
    assert [version.rsplit("/", 1)[1] for version in (old, new, back)] == ["1", "2", "3"]


def test_a_hidden_text_is_known_to_the_redactor(client: Client, secret: str) -> None:
    dsn = "postgresql://app:so-very-hidden@10.0.0.1/memories"
    add(client, secret, Secret(dsn))
    found = current_hidden(client, secret)
    assert found == Secret(dsn)
    assert redact(f"cannot connect to {dsn}").count("so-very-hidden") == 0
    assert str(found) == MASK


def test_a_value_that_is_damaged_on_its_way_is_found_out(
    client: Client, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add(client, secret, "an endpoint")
    call = client.call

    def damaged(api: str, method_id: str, path: str, **rest: Any) -> dict[str, Any]:
        answer = call(api, method_id, path, **rest)
        if method_id.endswith(".access"):
            answer["payload"]["data"] = base64.b64encode(b"an endpoinT").decode()
        return answer

    monkeypatch.setattr(client, "call", damaged)
    with pytest.raises(DataError, match="damaged on its way"):
        text_of(client, version)


def test_a_checksum_that_is_wrong_is_refused_on_arrival(
    client: Client, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestra_lib.cloud.secret_values.google_crc32c.value", lambda _: 7)
    with pytest.raises(CloudRefused, match="checksum"):
        add(client, secret, "an endpoint")


def test_what_is_no_text_is_said_to_be_none(client: Client, secret: str) -> None:
    payload = {"data": base64.b64encode(b"\xff\xfe").decode()}
    method_id = "secretmanager.projects.secrets.addVersion"
    client.call("secretmanager.v1", method_id, f"{secret}:addVersion", body={"payload": payload})
    with pytest.raises(DataError, match="no UTF-8 at byte 0"):
        current(client, secret)


def test_a_version_that_was_destroyed_cannot_be_put_back(client: Client, secret: str) -> None:
    old, new = add(client, secret, "old"), add(client, secret, "new")
    client.call("secretmanager.v1", "secretmanager.projects.secrets.versions.destroy", f"{old}:destroy", body={})
    with pytest.raises(CloudRefused, match="DESTROYED"):
        restore(client, secret, old)
    assert current_version(client, secret) == new
