"""Who calls: a bearer token, known from a file on this machine or signed by an issuer.

The service checks every token itself. Behind Cloud Run that means: the platform's own check of the invoker reads
``X-Serverless-Authorization`` and leaves ``Authorization`` as it is, and API Gateway hands the caller's token on in
``X-Forwarded-Authorization``. No header is believed for where it seems to come from.
https://cloud.google.com/run/docs/authenticating/service-to-service
https://cloud.google.com/api-gateway/docs/passing-data
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import stat
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import google.auth.transport.requests
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError, TransportError
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from orchestra_lib.errors import ParameterError
from orchestra_lib.service.problems import Problem
from orchestra_lib.service.settings import PREFIX, ServiceSettings

HEADERS = ("x-forwarded-authorization", "authorization")
"""Where the caller's token is looked for, in this order: a gateway puts its own in ``Authorization``."""
_CERTIFICATES_SECONDS = 3_600.0
_SKEW_SECONDS = 10
_OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO
_LONGEST_USER = 200


class Identities(Protocol):
    """Tells whose a token is."""

    async def user_of(self, token: str) -> str:
        """The user's id. Raises Problem for a token that is not accepted."""


def identities(settings: ServiceSettings) -> Identities:
    """The way to know callers that the settings name. Raises ParameterError for a file that cannot be believed."""
    if settings.tokens_file:
        return TokensOfFile(Path(settings.tokens_file))
    issuer, audience, url = settings.jwt_issuer, settings.jwt_audience, settings.jwt_certificates_url
    if not (issuer and audience and url):
        raise ParameterError(f"nothing tells who calls: set {PREFIX}TOKENS_FILE, or {PREFIX}JWT_ISSUER and the rest")
    return SignedTokens(lambda: _fetched(url), issuer, audience, settings.jwt_user_claim)


def bearer(headers: Mapping[str, str]) -> str:
    """The token of a request. Raises Problem where there is none."""
    given = next((headers[name] for name in HEADERS if name in headers), None)
    if given is None:
        raise Problem("token-missing", "send the header Authorization: Bearer TOKEN")
    scheme, _, token = given.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem("token-missing", "the header Authorization is to be: Bearer TOKEN")
    return token.strip()


class _Known(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    user: str = Field(min_length=1, max_length=_LONGEST_USER)
    expires_at: AwareDatetime


class _TokensFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: list[_Known]


def digest(token: str) -> str:
    """What the file of tokens holds of a token: whoever reads the file cannot call with it."""
    return hashlib.sha256(token.encode()).hexdigest()


class TokensOfFile:
    """Tokens of one machine: ``{"tokens": [{"sha256": …, "user": …, "expires_at": …}]}``.

    The file is read again when it changes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state: tuple[int, int] | None = None
        self._known: dict[str, _Known] = {}
        self._read_again()

    async def user_of(self, token: str) -> str:
        """The user that the file has for the token."""
        self._read_again()
        known = self._known.get(digest(token))
        if known is None:
            raise Problem("token-invalid", "the token is not known")
        if known.expires_at <= datetime.now(UTC):
            raise Problem("token-expired", f"the token was good until {known.expires_at.isoformat()}")
        return known.user

    def _read_again(self) -> None:
        try:
            found = self._path.stat()
            state = (found.st_mtime_ns, found.st_ino)
            if state == self._state:
                return
            if found.st_mode & _OTHERS_MAY:
                raise ParameterError(f"{self._path} may be read by others: chmod 600 {self._path}")
            document = _TokensFile.model_validate_json(self._path.read_bytes())
        except OSError as error:
            raise ParameterError(f"the tokens' file {self._path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ParameterError(
                f"the tokens' file {self._path} is not as it has to be: {place}: {first['msg']}"
            ) from None
        self._known = {one.sha256: one for one in document.tokens}
        self._state = state


Certificates = Mapping[str, str]
"""Key id -> certificate in PEM."""


class SignedTokens:
    """JSON web tokens of one issuer for one audience; ``claim`` names the user.

    ``fetch`` gets the issuer's certificates; they are kept for an hour, and asked for again when a token names a key
    that is not among them.
    """

    def __init__(self, fetch: Callable[[], Certificates], issuer: str, audience: str, claim: str) -> None:
        self._fetch, self._issuer, self._audience, self._claim = fetch, issuer, audience, claim
        self._certificates: Certificates = {}
        self._fetched_at = -_CERTIFICATES_SECONDS
        self._asking = asyncio.Lock()

    async def user_of(self, token: str) -> str:
        """The user whom the issuer names."""
        try:
            key = jwt.decode_header(token).get("kid")  # type: ignore[no-untyped-call]
        except (ValueError, GoogleAuthError) as error:
            raise Problem("token-invalid", "the token is no signed JSON web token") from error
        await self._know(key)
        try:
            claims = jwt.decode(  # type: ignore[no-untyped-call]
                token, self._certificates, audience=self._audience, clock_skew_in_seconds=_SKEW_SECONDS
            )
        except (ValueError, GoogleAuthError) as error:
            kind = "token-expired" if "expired" in str(error).lower() else "token-invalid"
            raise Problem(
                kind, "the token has expired" if kind == "token-expired" else "the token is not valid"
            ) from error
        if claims.get("iss") != self._issuer:
            raise Problem("token-invalid", "the token is of another issuer")
        return self._user(claims)

    def _user(self, claims: Mapping[str, object]) -> str:
        user = claims.get(self._claim)
        # An address that nobody has confirmed is whatever its owner says that it is.
        unconfirmed = self._claim == "email" and claims.get("email_verified") is not True
        if not isinstance(user, str) or not 0 < len(user) <= _LONGEST_USER or "\0" in user or unconfirmed:
            raise Problem("token-invalid", f"the token has no {self._claim} that can be believed")
        return user

    async def _know(self, key: object) -> None:
        async with self._asking:
            age = time.monotonic() - self._fetched_at
            if age < _CERTIFICATES_SECONDS and (key in self._certificates or age < _SKEW_SECONDS):
                return
            try:
                self._certificates = await asyncio.to_thread(self._fetch)
            except (GoogleAuthError, ValueError) as error:
                if not self._certificates:
                    raise Problem("store-unavailable", "the issuer's certificates cannot be fetched") from error
            self._fetched_at = time.monotonic()


def _fetched(url: str) -> Certificates:
    answer = google.auth.transport.requests.Request()(url, method="GET", timeout=5.0)
    if answer.status != 200:
        raise TransportError(f"{url} answers {answer.status}")  # type: ignore[no-untyped-call]
    return dict(json.loads(answer.data))
