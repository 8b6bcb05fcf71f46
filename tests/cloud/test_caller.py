"""Whose our token is, asked of a running local Google Cloud."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import google.oauth2.credentials
import pytest
import requests
from planes import Plane

from orchestra_lib.cloud import caller as module
from orchestra_lib.cloud.caller import caller
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.memory_target import our_user


def test_the_local_target_knows_its_operator(plane: Plane) -> None:
    target = plane.client().target
    assert caller(target) == "user@example.com"
    assert our_user(target) == "user@example.com"


def test_a_token_that_is_refused_is_nobodys(plane: Plane) -> None:
    credentials = google.oauth2.credentials.Credentials("another")  # type: ignore[no-untyped-call]
    with pytest.raises(TargetUnreachable, match="answers 401; log in again"):
        caller(replace(plane.client().target, credentials=credentials))


def test_nobody_answers(plane: Plane) -> None:
    with pytest.raises(TargetUnreachable, match="nobody answers"):
        caller(replace(plane.client().target, base_url="http://127.0.0.1:9"))


class _ServiceAccount:
    valid, token = True, "a token"
    service_account_email = "orchestra-migration@cherry-ai-project.iam.gserviceaccount.com"


def test_a_service_account_whose_token_does_not_say_it_is_known_by_its_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_address(*_: Any, **__: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code, answer._content = 200, b'{"expires_in": "3599"}'
        return answer

    monkeypatch.setattr(module.requests, "post", without_address)
    assert our_user(Target("gcp", None, _ServiceAccount())) == "orchestra-migration@cherry-ai-project.iam"
