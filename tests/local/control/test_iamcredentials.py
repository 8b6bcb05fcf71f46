"""Short-lived credentials of service accounts: tokens that the control plane takes, identities that it signed."""

from __future__ import annotations

import time

import google.auth.jwt
import pytest
from control_plane import PROJECT

from orchestra_lib.local import id_tokens

ACCOUNT = f"caller@{PROJECT}.iam.gserviceaccount.com"
URL = f"/iamcredentials/v1/projects/-/serviceAccounts/{ACCOUNT}"
SCOPE = ["https://www.googleapis.com/auth/cloud-platform"]


@pytest.fixture
def account(fresh):
    with fresh.control.writing():
        name = f"projects/{PROJECT}/services/iamcredentials.googleapis.com"
        fresh.control.store.put(f"serviceusage/{name}", {"name": name, "state": "ENABLED"})
    assert fresh.post(f"/iam/v1/projects/{PROJECT}/serviceAccounts", {"accountId": "caller"}).status == 200
    return fresh


def test_an_access_token_speaks_for_the_account(account):
    made = account.post(f"{URL}:generateAccessToken", {"scope": SCOPE, "lifetime": "60s"}).body
    assert account.send("GET", "/_local/caller", token=made["accessToken"]).body == {"email": ACCOUNT}
    assert account.post(f"{URL}:generateAccessToken", {"lifetime": "60s"}).status == 400
    assert account.post(f"{URL}:generateAccessToken", {"scope": SCOPE, "lifetime": "7200s"}).status == 400


def test_an_identity_is_signed_for_its_audience_and_ends(account):
    made = account.post(f"{URL}:generateIdToken", {"audience": "https://a", "includeEmail": True}).body["token"]
    found = id_tokens.verified(account.control.directory, made)
    assert (found.email, found.audience) == (ACCOUNT, "https://a")
    assert 0 < found.expires - time.time() <= id_tokens.SECONDS
    head, payload, signature = made.split(".")
    for forged in (f"{head}.{payload}.{signature[::-1]}", f"{head}.{payload[:-2]}AA.{signature}", "a.b.c", ""):
        assert id_tokens.verified(account.control.directory, forged) is None
    old = id_tokens.issue(account.control.directory, ACCOUNT, "1", "https://a", time.time() - 2 * id_tokens.SECONDS)
    assert id_tokens.verified(account.control.directory, old) is None


def test_whoever_checks_an_identity_finds_its_key_without_a_token(account):
    made = account.post(f"{URL}:generateIdToken", {"audience": "https://a", "includeEmail": True}).body["token"]
    keys = account.send("GET", "/oauth2/v1/certs", token=None)
    claims = google.auth.jwt.decode(made, certs=keys.body, audience="https://a")
    assert (keys.status, claims["email"], claims["email_verified"]) == (200, ACCOUNT, True)
    assert "PRIVATE" not in str(keys.body)


def test_nobody_speaks_for_an_account_that_is_not_there_or_disabled(account):
    other = URL.replace("caller@", "nobody@")
    assert account.post(f"{other}:generateIdToken", {"audience": "https://a"}).status == 404
    assert account.post(f"/iam/v1/projects/{PROJECT}/serviceAccounts/{ACCOUNT}:disable", {}).status == 200
    assert account.post(f"{URL}:generateIdToken", {"audience": "https://a"}).status == 404
