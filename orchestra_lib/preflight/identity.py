"""As whom we speak: a token that the service takes, one project everywhere, no key file, a clock that is right."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import requests
from google.auth.exceptions import GoogleAuthError

from orchestra_lib.cloud.caller import ask, minted
from orchestra_lib.cloud.target import Target
from orchestra_lib.evidence import Bound, Evidence, Source
from orchestra_lib.preflight.check import Check, judged, warned

AREA = "identity"
KEY_FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
PROJECT_VARIABLES = ("GOOGLE_CLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT", "GCLOUD_PROJECT", "GCP_PROJECT_ID")
"""Where Google's tools, and AI Orchestra's own scripts, take the project from when nobody names one."""

# A signed assertion is good for at most an hour and is refused when it comes from the future.
LARGEST_SKEW_SECONDS = 60.0


def identity_checks(target: Target, project: str, source: Source) -> Iterator[Check]:
    """Who we are for the target. Raises TargetUnreachable when nobody answers."""
    try:
        token = minted(target)
    except GoogleAuthError as error:
        note = f"{error}; log in again: gcloud auth application-default login. A malformed key or a wrong clock says "
        yield judged(AREA, "a token can be minted", source, False, f"{note}invalid JWT signature")
        return
    yield judged(AREA, "a token can be minted", source, True)
    spoken = ask(target, token)
    yield judged(
        AREA,
        "the service takes our token",
        source,
        spoken.status == requests.codes.ok,
        f"we are {spoken.email or 'nobody that it names'}"
        if spoken.status == requests.codes.ok
        else f"it answers {spoken.status}; log in again: gcloud auth application-default login",
    )
    if spoken.skew_seconds is not None:
        yield _skew(spoken.skew_seconds, source)
    quota_project = getattr(target.credentials, "quota_project_id", None)
    if quota_project and quota_project != project:
        note = f"calls are counted against {quota_project}; gcloud auth application-default set-quota-project {project}"
        yield warned(AREA, f"the credentials' quota project is {project}", source, note)


def surroundings_checks(project: str, variables: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """What the shell says beside the parameter file: no other project, no key file."""
    others = [
        f"{name}={variables[name]}" for name in PROJECT_VARIABLES if variables.get(name, project) not in ("", project)
    ]
    yield judged(
        AREA,
        f"no variable of the shell names another project than {project}",
        Source.MEASURED,
        not others,
        f"{', '.join(others)}: unset it, or correct project.id" if others else "",
    )
    wrong = _key_file(variables.get(KEY_FILE_VARIABLE))
    yield judged(AREA, "no key of a service account is in use", Source.MEASURED, not wrong, wrong)


def _skew(seconds: float, source: Source) -> Check:
    wrong = abs(seconds) > LARGEST_SKEW_SECONDS
    note = "set this machine's clock: tokens from another time are refused as badly signed" if wrong else ""
    bound = Bound("<=", LARGEST_SKEW_SECONDS)
    return Check(AREA, Evidence("the service's clock and ours differ by", source, abs(seconds), "s", bound, note=note))


def _key_file(path: str | None) -> str:
    """What is wrong with the file that the variable names; empty when nothing is."""
    if not path:
        return ""
    login = "unset it and log in with: gcloud auth application-default login"
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return f"{KEY_FILE_VARIABLE} names {path}, which cannot be read as credentials: {login}"
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "service_account":
        return f"{KEY_FILE_VARIABLE} names {path}, a service account's key, which does not expire: {login}"
    return ""
