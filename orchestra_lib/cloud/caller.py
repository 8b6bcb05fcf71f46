"""As whom a target knows us: whose our token is, by the service's own word."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import google.auth.transport.requests
import requests
from google.auth.exceptions import GoogleAuthError

from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import TargetUnreachable

# https://cloud.google.com/docs/authentication/token-types#access: says whose a token is, and needs no API enabled.
_TOKENINFO = "https://oauth2.googleapis.com/tokeninfo"
_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True)
class Spoken:
    """What the service answered about our token: its status, whose it is, and its clock less ours in seconds."""

    status: int
    email: str
    skew_seconds: float | None


def caller(target: Target) -> str:
    """The address of the principal that we speak as. Raises TargetUnreachable when nobody can say."""
    login = "log in again: gcloud auth application-default login"
    try:
        spoken = ask(target, minted(target))
    except GoogleAuthError as error:
        raise TargetUnreachable(f"no token can be minted ({error}); {login}") from error
    if spoken.status != requests.codes.ok or not spoken.email:
        raise TargetUnreachable(f"whose token this is cannot be told: {target!r} answers {spoken.status}; {login}")
    return spoken.email


def minted(target: Target) -> str:
    """A token that is good now. Raises GoogleAuthError when none can be had."""
    credentials = target.credentials
    if not credentials.valid:
        credentials.refresh(google.auth.transport.requests.Request())
    return str(credentials.token)


def ask(target: Target, token: str) -> Spoken:
    """What the service says of a token. Raises TargetUnreachable when nobody answers."""
    before = time.time()
    try:
        if target.kind == "local":
            headers = {"Authorization": f"Bearer {token}"}
            answer = requests.get(f"{target.base_url}/_local/caller", headers=headers, timeout=_TIMEOUT_SECONDS)
        else:
            answer = requests.post(_TOKENINFO, data={"access_token": token}, timeout=_TIMEOUT_SECONDS)
    except requests.RequestException as error:
        raise TargetUnreachable(f"nobody answers at {target!r}: {type(error).__name__}") from error
    # The token of a service account does not always say whose it is; its credentials do.
    email = _email(answer) or str(getattr(target.credentials, "service_account_email", None) or "")
    return Spoken(answer.status_code, email, _skew_seconds(answer.headers.get("Date"), before, time.time()))


def _email(answer: requests.Response) -> str:
    try:
        return str(answer.json().get("email", ""))
    except ValueError:
        return ""


def _skew_seconds(date: str | None, before: float, after: float) -> float | None:
    """The service's clock less ours; 0 within what the header's whole seconds and the way there cannot tell."""
    if date is None:
        return None
    theirs = parsedate_to_datetime(date).timestamp()
    if before - 1 <= theirs <= after:
        return 0.0
    return theirs - before if theirs < before else theirs - after
