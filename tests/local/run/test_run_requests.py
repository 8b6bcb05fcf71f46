"""What the front of a service does with a request: who may call, and how it is handed on."""

from __future__ import annotations

import http.client
import time

import pytest
from run_planes import ACCOUNT, INVOKER, STRANGER, soon

from orchestra_lib.local import id_tokens


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def status(planes, private):
    def answered(headers=None):
        return planes.http.get(private.uri, headers=headers).status_code

    soon(lambda: answered(bearer(planes.id_token(INVOKER, private.uri))) == 200)
    return answered


def test_only_an_invoker_is_let_in(planes, private, status):
    assert status() == 403
    assert status(bearer(planes.id_token(INVOKER, private.uri))) == 200
    assert status(bearer(planes.id_token(STRANGER, private.uri))) == 403
    assert status({"X-Serverless-Authorization": f"Bearer {planes.id_token(INVOKER, private.uri)}"}) == 200
    # The operator has no role on the project that the tests have made.
    assert status(bearer(planes.token)) == 403


def test_a_token_that_does_not_count_is_told_apart_from_none(planes, private, status):
    good = planes.id_token(INVOKER, private.uri)
    old = id_tokens.issue(planes.directory, INVOKER, "1", private.uri, time.time() - id_tokens.SECONDS - 60)
    for token in (planes.id_token(INVOKER, "https://example.com"), old, f"{good[:-4]}AAAA", "nonsense"):
        assert status(bearer(token)) == 401
    assert status({"Authorization": "Basic YTpi"}) == 401


def test_a_change_of_the_policy_holds_within_a_second(planes, private, status):
    token = planes.id_token(STRANGER, private.uri)
    try:
        private.allow(f"serviceAccount:{INVOKER}", f"serviceAccount:{STRANGER}")
        soon(lambda: status(bearer(token)) == 200, seconds=1)
    finally:
        private.allow(f"serviceAccount:{INVOKER}")
    soon(lambda: status(bearer(token)) == 403, seconds=1)


def test_a_role_on_the_project_counts_too(planes, private, status):
    project = f"cloudresourcemanager/v3/{'/'.join(private.name.split('/')[:2])}"
    token = planes.id_token(ACCOUNT, private.uri)
    assert status(bearer(token)) == 403
    with_role = {"policy": {"bindings": [{"role": "roles/run.admin", "members": [f"serviceAccount:{ACCOUNT}"]}]}}
    try:
        assert planes.call("POST", f"{project}:setIamPolicy", with_role).status == 200
        soon(lambda: status(bearer(token)) == 200)
    finally:
        planes.call("POST", f"{project}:setIamPolicy", {"policy": {}})


def test_a_service_sees_who_calls_and_cannot_call_as_them(planes, private, status):
    token = planes.id_token(INVOKER, private.uri)
    seen = planes.http.get(f"{private.uri}/headers", headers={**bearer(token), "X-Forwarded-For": "192.0.2.1"}).json()
    assert seen["authorization"] == f"Bearer {token.rpartition('.')[0]}.SIGNATURE_REMOVED_BY_GOOGLE"
    assert seen["x-forwarded-for"].startswith("192.0.2.1, ")
    assert seen["host"] == private.uri.removeprefix("http://")


def test_path_and_query_arrive_as_they_were_sent(planes, plain):
    found = planes.http.get(f"{plain.uri}/path", params={"a": "b c"}).json()
    assert found == {"path": "/path", "query": "a=b+c"} or found["query"] == "a=b%20c"


def test_headers_of_one_hop_stay_there(planes, plain):
    sent = {"Connection": "keep-alive, x-secret", "X-Secret": "s", "TE": "trailers", "X-Kept": "k"}
    seen = planes.http.get(f"{plain.uri}/headers", headers=sent).json()
    assert "x-secret" not in seen
    assert "te" not in seen
    assert seen["x-kept"] == "k"


def test_bodies_of_any_size_pass_and_one_that_is_too_large_does_not(planes, plain):
    body = bytes(range(256)) * 8192
    assert planes.http.post(f"{plain.uri}/echo", content=body).content == body
    assert planes.http.post(f"{plain.uri}/echo", content=iter([b"one ", b"two"])).content == b"one two"
    too_large = http.client.HTTPConnection(plain.uri.removeprefix("http://"), timeout=10)
    too_large.putrequest("POST", "/echo")
    too_large.putheader("Content-Length", str((32 << 20) + 1))
    too_large.endheaders()
    assert too_large.getresponse().status == 413
    too_large.close()


def test_an_answer_arrives_while_it_is_being_made(planes, plain):
    arrived = []
    with planes.http.stream("GET", f"{plain.uri}/stream?parts=4") as answer:
        for part in answer.iter_text():
            arrived.append((time.monotonic(), part))
    assert "".join(part for _, part in arrived) == "".join(f"part {number}\n" for number in range(4))
    assert arrived[-1][0] - arrived[0][0] >= 0.1
