"""Errors as the API answers them: ``application/problem+json``, as RFC 9457 has it.

A table says of each kind of problem its status and title; what is particular to the case stands in ``detail``.
https://www.rfc-editor.org/rfc/rfc9457
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:ai-orchestra:problem:"
_MOST_ERRORS = 10  # a vector of the wrong kind would have one for each number


class Problem(Exception):
    """A request that is answered with a problem; ``kind`` is a name of ``KINDS``."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.errors, self.headers = kind, detail, tuple(errors), headers


@dataclass(frozen=True)
class Kind:
    """What is the same for all problems of a kind."""

    status: int
    title: str
    headers: Mapping[str, str] = field(default_factory=dict)


_BEARER = {"WWW-Authenticate": 'Bearer realm="memories"'}
_INVALID = {"WWW-Authenticate": 'Bearer realm="memories", error="invalid_token"'}

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "malformed": Kind(400, "The request cannot be read"),
        "token-missing": Kind(401, "Nobody says who is calling", _BEARER),
        "token-invalid": Kind(401, "The token is not accepted", _INVALID),
        "token-expired": Kind(401, "The token has expired", _INVALID),
        "not-found": Kind(404, "There is no such thing"),
        "method-not-allowed": Kind(405, "This cannot be done here"),
        "key-in-use": Kind(409, "The idempotency key belongs to another request"),
        "too-large": Kind(413, "The request is too large"),
        "unsupported-media-type": Kind(415, "The body is not JSON"),
        "invalid": Kind(422, "The request is refused"),
        "internal": Kind(500, "The service failed"),
        "busy": Kind(503, "The service is busy"),
        "store-unavailable": Kind(503, "The store is not available"),
        "store-timeout": Kind(503, "The store did not answer in time"),
        "not-ready": Kind(503, "The service is not ready"),
    }
)


class FieldError(BaseModel):
    """What is wrong at one place of the request."""

    place: str
    detail: str


class ProblemBody(BaseModel):
    """The body of every answer that is not a success."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


def response(problem: Problem) -> JSONResponse:
    """The answer to a request that met the problem."""
    kind = KINDS[problem.kind]
    body: dict[str, Any] = {
        "type": _TYPE + problem.kind,
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail,
    }
    if problem.errors:
        body["errors"] = list(problem.errors)
    return JSONResponse(body, kind.status, headers={**kind.headers, **problem.headers}, media_type=MEDIA_TYPE)


def of_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The problem of a request that is not as the interface has it; ``errors`` are pydantic's.

    The refused values are not repeated: they may be large, secret, or no JSON.
    """
    if any(error["type"] == "json_invalid" for error in errors):
        return Problem("malformed", "the body is no JSON")
    places = [
        {"place": ".".join(map(str, error["loc"])), "detail": str(error["msg"]).removeprefix("Value error, ")}
        for error in errors[:_MOST_ERRORS]
    ]
    more = f", and {len(errors) - _MOST_ERRORS} more" if len(errors) > _MOST_ERRORS else ""
    return Problem("invalid", "; ".join(f"{one['place']}: {one['detail']}" for one in places) + more, errors=places)
