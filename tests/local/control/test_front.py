"""Who may call, and which service a request means."""

from __future__ import annotations

import stat

import pytest
from control_plane import PROJECT, TOKEN

from orchestra_lib.local.control.server import token_of

CLUSTERS = f"/v1/projects/{PROJECT}/locations/us-central1/clusters"
NETWORKS = f"/compute/v1/projects/{PROJECT}/global/networks"


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("alloydb.googleapis.com", CLUSTERS),
        ("alloydb.mtls.googleapis.com", CLUSTERS),
        ("alloydb.googleapis.com:443", CLUSTERS),
        ("", f"/alloydb{CLUSTERS}"),
        ("localhost:8080", f"/alloydb{CLUSTERS}"),
        ("compute.googleapis.com", NETWORKS),
        ("www.googleapis.com", NETWORKS),
        ("", NETWORKS),
        ("", f"/compute{NETWORKS}"),
        ("us-central1-aiplatform.googleapis.com", f"/v1/projects/{PROJECT}/locations/us-central1/endpoints"),
        ("aiplatform.us-central1.rep.googleapis.com", f"/v1/projects/{PROJECT}/locations/us-central1/endpoints"),
    ],
)
def test_a_service_is_named_by_the_host_or_by_a_prefix(server, host, path):
    assert server.send("GET", path, host=host).status == 200


def test_a_query_too_long_for_a_url_may_come_in_the_body(server):
    names = " OR ".join(f"name=secret-number-{number}" for number in range(200))
    secrets = server.client("secretmanager", "v1").projects().secrets()
    assert secrets.list(parent=f"projects/{PROJECT}", filter=names).execute() == {}


def test_a_host_that_is_not_served_is_said(server):
    refused = server.send("GET", "/storage/v1/b", host="storage.googleapis.com")
    assert (refused.status, "storage.googleapis.com" in refused.message) == (404, True)


def test_operations_of_the_ui_are_those_of_the_api(server):
    path = f"projects/{PROJECT}/locations/us-central1"
    assert server.send("GET", f"/ui/{path}/operations", host="aiplatform.googleapis.com").status == 200


@pytest.mark.parametrize(
    ("token", "words"), [(None, "missing required authentication"), ("wrong", "invalid authentication")]
)
@pytest.mark.parametrize("path", [f"/alloydb{CLUSTERS}", "/_local/state"])
def test_without_the_token_nothing_is_answered(server, token, words, path):
    refused = server.send("GET", path, token=token)
    assert (refused.status, refused.body["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert words in refused.message


@pytest.mark.parametrize("path", [f"/alloydb{CLUSTERS}", f"/compute{NETWORKS}", "/_local/state"])
def test_a_client_without_a_token_may_have_it_in_its_endpoint(server, path):
    assert server.send("GET", f"/_token/{TOKEN}{path}", token=None).status == 200
    assert server.send("GET", f"/_token/wrong{path}", token=None).status == 401
    assert server.send("GET", f"/_token/{path}", token=None).status == 401
    assert server.send("GET", f"/_token/{TOKEN}{path}", token="wrong").status == 401


def test_the_token_in_an_endpoint_is_not_repeated(server, caplog, monkeypatch):
    missing = server.send("GET", f"/_token/{TOKEN}/_local/nothing", token=None)
    assert (missing.status, missing.message) == (404, "There is no GET /_local/nothing.")
    monkeypatch.setattr(server.control, "settle", lambda now: 1 / 0)
    assert server.send("GET", f"/_token/{TOKEN}/alloydb{CLUSTERS}", token=None).status == 500
    assert CLUSTERS in caplog.text
    assert TOKEN not in caplog.text


def test_an_issued_token_speaks_for_its_account_until_it_expires(fresh):
    control, email = fresh.control, "robot@cherry-ai-project.iam.gserviceaccount.com"
    with control.writing():
        token = control.tokens.issue(email, control.clock() + 60)
        old = control.tokens.issue(email, control.clock() - 1)
    assert fresh.send("GET", "/_local/caller", token=token).body == {"email": email}
    assert fresh.send("GET", f"/alloydb{CLUSTERS}", token=old).status == 401
    fresh.inject(missing_permissions=[{"permissions": ["alloydb.clusters.list"], "caller": email}])
    assert fresh.send("GET", f"/alloydb{CLUSTERS}", token=token).status == 403
    assert fresh.send("GET", f"/alloydb{CLUSTERS}", token=TOKEN).status == 200
    assert fresh.send("GET", "/_local/state", token=token).status == 403


def test_the_token_is_random_kept_and_readable_by_its_owner_alone(tmp_path):
    (tmp_path / "other").mkdir()
    token = token_of(tmp_path)
    assert token_of(tmp_path) == token != token_of(tmp_path / "other")
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert len(token) > 40


def test_state_does_not_tell_tokens(fresh):
    with fresh.control.writing():
        token = fresh.control.tokens.issue("a@b", fresh.control.clock() + 60)
    assert token not in str(fresh.get("/_local/state").body)
