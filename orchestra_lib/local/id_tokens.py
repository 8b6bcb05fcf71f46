"""Identity tokens of the local Google Cloud: signed as Google's are, with a key of the control plane's directory.

The control plane signs, data planes verify. https://cloud.google.com/docs/authentication/token-types#id
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import google.auth.crypt
import google.auth.exceptions
import google.auth.jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from filelock import FileLock

ISSUER = "https://accounts.google.com"
SECONDS = 3600
_KEY_FILE, _KEY_ID, _KEY_BITS = "id_token_key.pem", "local", 2048


@dataclass(frozen=True)
class Identity:
    """Who an identity token is about, for whom it was made, and until when it counts (seconds since 1970)."""

    email: str
    audience: str
    expires: float
    claims: dict[str, Any]


def issue(directory: Path, email: str, subject: str, audience: str, now: float) -> str:
    """A token that says to an audience who its holder is."""
    payload = {
        "iss": ISSUER,
        "aud": audience,
        "azp": subject,
        "sub": subject,
        "email": email,
        "email_verified": True,
        "iat": int(now),
        "exp": int(now) + SECONDS,
    }
    signer = google.auth.crypt.RSASigner.from_string(_private_key(directory), _KEY_ID)  # type: ignore[no-untyped-call]
    return bytes(google.auth.jwt.encode(signer, payload)).decode()  # type: ignore[no-untyped-call]


def verified(directory: Path, token: str) -> Identity | None:
    """Whose token this is; None for one that does not count."""
    public = _public_key(directory)
    if public is None:
        return None
    try:
        claims = dict(google.auth.jwt.decode(token, certs=public))  # type: ignore[no-untyped-call]
        return Identity(claims["email"], claims["aud"], float(claims["exp"]), claims)
    except (ValueError, KeyError, google.auth.exceptions.GoogleAuthError):
        return None


def certificates(directory: Path) -> dict[str, str]:
    """Key id -> what verifies a signature, in PEM. Google's are certificates, this is the bare key: both are taken.

    https://www.googleapis.com/oauth2/v1/certs
    """
    return {_KEY_ID: _public_part(_private_key(directory)).decode()}


def is_signed(bearer: str) -> bool:
    """Whether a header's ``Bearer HEADER.PAYLOAD`` begins as a signed token does."""
    scheme, _, rest = bearer.partition(" ")
    return scheme.lower() == "bearer" and rest.startswith("eyJ")


def _private_key(directory: Path) -> bytes:
    file = directory / _KEY_FILE
    with FileLock(directory / f"{_KEY_FILE}.lock"):
        if not file.exists():
            key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
            part = file.with_suffix(".part")
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as written:
                written.write(
                    key.private_bytes(
                        serialization.Encoding.PEM,
                        serialization.PrivateFormat.TraditionalOpenSSL,
                        serialization.NoEncryption(),
                    )
                )
            part.replace(file)
    return file.read_bytes()


def _public_key(directory: Path) -> bytes | None:
    file = directory / _KEY_FILE
    try:
        return _public_part(file.read_bytes())
    except FileNotFoundError:
        return None


@lru_cache(maxsize=8)
def _public_part(private: bytes) -> bytes:
    key = serialization.load_pem_private_key(private, None)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
