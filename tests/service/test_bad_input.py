"""What is refused, and how: a problem in JSON, with the place and without the value."""

from __future__ import annotations

import json

import pytest
from service.serving import EXPIRED, Api, is_problem, memory

from orchestra_lib.service.problems import MEDIA_TYPE

DEEP: dict = {}
for _ in range(20):
    DEEP = {"in": DEEP}

REFUSED_BODIES = {
    "another dimension": ({"embedding": [1.0, 2.0]}, "2 numbers, the store's vectors have 3"),
    "NaN": ({"embedding": [1.0, float("nan"), 0.0]}, "embedding.1"),
    "infinite": ({"embedding": [1.0, float("inf"), 0.0]}, "embedding.1"),
    "too large for 32 bits": ({"embedding": [1e39, 0.0, 0.0]}, "a vector of length inf"),
    "too long for a distance": ({"embedding": [1e30, 0.0, 0.0]}, "a vector of length 1e+30"),
    "zero": ({"embedding": [0.0, 0.0, 0.0]}, "no direction"),
    "zero in 32 bits": ({"embedding": [1e-60, 0.0, 0.0]}, "no direction"),
    "no numbers": ({"embedding": "AAAA"}, "body.embedding"),
    "an unknown field": ({"user_id": "grace"}, "body.user_id"),
    "a NUL": ({"content": "a\0b"}, "body.content"),
    "nothing": ({"content": ""}, "body.content"),
    "a name that is too long": ({"persona": "x" * 201}, "body.persona"),
    "metadata that are too deep": ({"metadata": DEEP}, "deeper than 16 levels"),
    "metadata that are too large": ({"metadata": {"x": "y" * 20_000}}, "bytes"),
    "metadata with a NUL": ({"metadata": {"x": ["\0"]}}, "NUL"),
    "metadata with a NUL behind a backslash": ({"metadata": {"\\\0": 1}}, "NUL"),
    "metadata with no number": ({"metadata": {"x": float("nan")}}, "body.metadata"),
    "a time without a zone": ({"expires_at": "2090-01-01T00:00:00"}, "timezone"),
    "a time that has passed": ({"expires_at": "2020-01-01T00:00:00Z"}, "passed already"),
    "a time as a number": ({"expires_at": 4_000_000_000}, "RFC 3339"),
    "a time that no calendar holds": ({"expires_at": "+12345-01-01T00:00:00Z"}, "body.expires_at"),
}


@pytest.mark.parametrize("case", REFUSED_BODIES)
def test_a_memory_that_cannot_be_one_is_refused_with_its_place(api: Api, case: str):
    changes, told = REFUSED_BODIES[case]
    body = json.dumps(memory(**changes))
    answer = api.as_user().post("/v1/memories", content=body, headers={"Content-Type": "application/json"})
    assert is_problem(answer, 422, "invalid")
    assert told in answer.text
    assert answer.json()["errors"]


REFUSED_SEARCHES = {
    "nothing to look for": {},
    "another dimension": {"embedding": [1.0]},
    "zero": {"embedding": [0, 0, 0]},
    "an unknown filter": {"text": "x", "filters": {"user_id": "grace"}},
    "an unknown field": {"text": "x", "probes": 3},
    "no rows": {"text": "x", "k": 0},
    "too many rows": {"text": "x", "k": 101},
    "half a row": {"text": "x", "k": 1.5},
    "a NUL": {"text": "a\0b"},
}


@pytest.mark.parametrize("case", REFUSED_SEARCHES)
def test_a_search_that_cannot_be_one_is_refused(api: Api, case: str):
    assert is_problem(api.as_user().post("/v1/search", json=REFUSED_SEARCHES[case]), 422, "invalid")


@pytest.mark.parametrize(
    "query",
    [
        "unknown=1",
        "limit=0",
        "limit=101",
        "limit=x",
        "created_after=yesterday",
        "created_after=0.5",
        "cursor=%00",
        "persona=%00",
    ],
)
def test_a_listing_that_cannot_be_one_is_refused(api: Api, query: str):
    assert is_problem(api.as_user().get(f"/v1/memories?{query}"), 422, "invalid")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[" * 100_000,
        b'{"text": 1' + b"0" * 5_000 + b"}",
        b"\xff\xfe",
        b'{"text": "\\ud800"}',
        b"[1]",
        b"{},",
    ],
)
def test_a_body_that_is_no_json_is_refused(api: Api, body: bytes):
    answer = api.as_user().post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == MEDIA_TYPE


def test_a_body_of_ten_megabytes_is_refused_unread_told_or_untold(api: Api):
    megabyte = b"x" * (1 << 20)
    assert is_problem(api.as_user().post("/v1/memories", content=megabyte * 10), 413, "too-large")
    assert is_problem(api.as_user().post("/v1/memories", content=iter([megabyte] * 10)), 413, "too-large")
    assert api.as_user().get("/v1/memories").status_code == 200


def test_a_body_whose_length_is_not_told_is_read_all_the_same(api: Api):
    body = json.dumps(memory()).encode()
    answer = api.as_user().post(
        "/v1/memories", content=iter([body[:9], body[9:]]), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201


def test_metadata_may_tell_how_a_nul_is_written(api: Api):
    metadata = {"how": "\\u0000", "\\\\u0000": ["\\"]}
    id_ = api.store(metadata=metadata)
    assert api.as_user().get(f"/v1/memories/{id_}").json()["metadata"] == metadata


def test_a_key_that_is_none_is_refused(api: Api):
    answer = api.as_user().post("/v1/memories", json=memory(), headers={"Idempotency-Key": "two words"})
    assert is_problem(answer, 422, "invalid")


@pytest.mark.parametrize("path", ["/v1/memories/%00", "/v1/memories/" + "x" * 300])
def test_an_id_that_cannot_be_one_is_refused(api: Api, path: str):
    assert is_problem(api.as_user().get(path), 422, "invalid")


def test_what_is_not_there_and_what_cannot_be_done_are_problems_too(api: Api):
    assert is_problem(api.as_user().get("/v2"), 404, "not-found")
    wrong = api.as_user().put("/v1/memories")
    assert is_problem(wrong, 405, "method-not-allowed")
    assert set(wrong.headers["allow"].split(", ")) >= {"POST"} or "GET" in wrong.headers["allow"]


@pytest.mark.parametrize("path", ["/v1/memories", "/v1/search", "/v2", "/docs"])
def test_nobody_gets_anywhere_without_a_token(api: Api, path: str):
    answer = api.as_user(None).get(path)
    assert is_problem(answer, 401, "token-missing")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("Basic YWRhOmFkYQ==", "token-missing"),
        ("Bearer", "token-missing"),
        ("Bearer guessed", "token-invalid"),
        (f"Bearer {EXPIRED}", "token-expired"),
    ],
)
def test_a_token_that_is_not_good_is_refused(api: Api, header: str, kind: str):
    answer = api.as_user(None).get("/v1/memories", headers={"Authorization": header})
    assert is_problem(answer, 401, kind)
    assert EXPIRED not in answer.text
