"""Google's models through google-genai: one client for a target and a location, errors of ours, retries by stamina."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import httpx
import stamina
from google import genai
from google.auth.exceptions import GoogleAuthError
from google.genai import errors, types

from orchestra_lib.cloud.refusals import CloudRefused, refusal
from orchestra_lib.cloud.target import Target
from orchestra_lib.errors import TargetUnreachable

Result = TypeVar("Result")

_SERVICE, _VERSION = "aiplatform", "v1"
_TIMEOUT_MS = 300_000  # a model that thinks takes minutes at worst
_ATTEMPTS, _LONGEST_SECONDS = 6, 120.0


class Unanswered(TargetUnreachable):
    """No answer came from a model."""


def genai_client(target: Target, project: str, location: str) -> genai.Client:
    """A client of a project's models in a location, on Google Cloud or on the local target."""
    options = types.HttpOptions(api_version=_VERSION, base_url=target.endpoint(_SERVICE, ""), timeout=_TIMEOUT_MS)
    return genai.Client(
        enterprise=True, project=project, location=location, credentials=target.credentials, http_options=options
    )


def ask(what: str, call: Callable[[], Result]) -> Result:
    """The answer to a call, which is repeated while the service is busy or does not answer.

    Counting, embedding and generating change nothing, so repeating them is harmless; only generating costs twice.
    Raises CloudRefused for a refusal, TargetUnreachable when no answer came or the credentials are refused.
    """
    for attempt in stamina.retry_context(on=_is_transient, attempts=_ATTEMPTS, timeout=_LONGEST_SECONDS):
        with attempt:
            return _asked(what, call)
    raise AssertionError("a retried call returns or raises")


def _asked(what: str, call: Callable[[], Result]) -> Result:
    try:
        return call()
    except errors.APIError as error:
        details = error.details if isinstance(error.details, dict) else {"error": {"message": str(error)}}
        raise refusal(what, int(error.code), json.dumps(details).encode()) from None
    except GoogleAuthError as error:
        raise TargetUnreachable(f"{what}: the credentials are refused ({error}); log in again") from error
    except (httpx.HTTPError, OSError) as error:
        raise Unanswered(f"{what}: no answer: {error or type(error).__name__}; check the network") from error


def _is_transient(error: Exception) -> bool:
    return isinstance(error, Unanswered) or (isinstance(error, CloudRefused) and error.transient)
