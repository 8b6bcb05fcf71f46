"""Which Google Cloud a run talks to, the real one or the local target: they differ in endpoint and credentials."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import google.auth
import google.oauth2.credentials
from google.auth.exceptions import DefaultCredentialsError

from orchestra_lib import local_target
from orchestra_lib.errors import ParameterError, TargetUnreachable
from orchestra_lib.settings import Settings

# The second one lets a token say whose it is: the database wants its user by that name.
_SCOPES = tuple(f"https://www.googleapis.com/auth/{name}" for name in ("cloud-platform", "userinfo.email"))
_KEY_FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"


@dataclass(frozen=True)
class Target:
    """A Google Cloud: where it answers and as whom we speak. ``base_url`` None means Google's own hosts."""

    kind: Literal["local", "gcp"]
    base_url: str | None
    credentials: Any

    def endpoint(self, service: str, service_path: str) -> str | None:
        """The address of one service for a client's ``api_endpoint``; None for Google's own."""
        return None if self.base_url is None else f"{self.base_url}/{service}/{service_path}"

    def __repr__(self) -> str:
        return f"Target({self.kind}, {self.base_url or 'googleapis.com'}, credentials=***)"


def connect(settings: Settings) -> Target:
    """The target of an environment; the local one is started if it is not up.

    Raises TargetUnreachable when it does not start or nobody is logged in, ParameterError for a key file.
    """
    return _local() if settings.environment.kind == "local" else _google_cloud()


def _local() -> Target:
    state = local_target.start()
    token = Path(state["token_file"]).read_text().strip()
    return Target("local", state["url"], google.oauth2.credentials.Credentials(token))  # type: ignore[no-untyped-call]


def _google_cloud() -> Target:
    _refuse_key_file(os.environ.get(_KEY_FILE_VARIABLE))
    try:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    except DefaultCredentialsError as error:
        raise TargetUnreachable(
            "nobody is logged in to Google Cloud here; run: gcloud auth application-default login"
        ) from error
    return Target("gcp", None, credentials)


def _refuse_key_file(path: str | None) -> None:
    if not path:
        return
    try:
        kind = json.loads(Path(path).read_text()).get("type")
    except (OSError, ValueError, AttributeError) as error:
        raise ParameterError(f"{_KEY_FILE_VARIABLE} names {path}, which cannot be read as credentials") from error
    if kind == "service_account":
        raise ParameterError(
            f"{_KEY_FILE_VARIABLE} names {path}, a service account's key: a key does not expire and is copied unseen. "
            "Unset it and log in with: gcloud auth application-default login --impersonate-service-account=ACCOUNT"
        )
