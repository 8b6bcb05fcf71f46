"""Tokens of a file and signed tokens: whose they are, and every way in which they are not good."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import google.auth.crypt
import google.auth.jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from orchestra_lib.errors import ParameterError
from orchestra_lib.service.identity import SignedTokens, TokensOfFile, bearer, digest
from orchestra_lib.service.problems import Problem

ISSUER, AUDIENCE = "https://accounts.google.com", "https://memory.example.com"


def key_and_certificate() -> tuple[str, str]:
    """A private key and the certificate that tells of it, both in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


KEY, CERTIFICATE = key_and_certificate()
STRANGER, _ = key_and_certificate()


def signed(key: str = KEY, kid: str = "one", **changes: object) -> str:
    now = int(time.time())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "1", "email": "ada@example.com", "email_verified": True,
        "iat": now, "exp": now + 600, **changes,
    }  # fmt: skip
    return google.auth.jwt.encode(google.auth.crypt.RSASigner.from_string(key, kid), claims).decode()


def tokens(fetch=lambda: {"one": CERTIFICATE}, claim: str = "email") -> SignedTokens:
    return SignedTokens(fetch, ISSUER, AUDIENCE, claim)


def user(identities, token: str) -> str:
    return asyncio.run(identities.user_of(token))


def refusal(identities, token: str) -> str:
    with pytest.raises(Problem) as refused:
        user(identities, token)
    return refused.value.kind


def test_a_signed_token_names_its_user():
    assert user(tokens(), signed()) == "ada@example.com"
    assert user(tokens(claim="sub"), signed()) == "1"


@pytest.mark.parametrize(
    "made",
    [
        lambda: signed(key=STRANGER),
        lambda: signed(aud="https://another.example.com"),
        lambda: signed(iss="https://issuer.example.com"),
        lambda: signed(email_verified=False),
        lambda: signed(email=None),
        lambda: signed(email="a\0b"),
        lambda: signed().rpartition(".")[0] + ".SIGNATURE_REMOVED_BY_GOOGLE",
        lambda: signed().rpartition(".")[0] + ".",
        lambda: "eyJhbGciOiJub25lIn0.e30.",
        lambda: "no token",
    ],
)
def test_a_signed_token_that_is_not_for_us_is_refused(made: Callable[[], str]):
    assert refusal(tokens(), made()) == "token-invalid"


def test_an_expired_token_is_told_as_such():
    past = int(time.time()) - 3_600
    assert refusal(tokens(), signed(iat=past - 600, exp=past)) == "token-expired"


def test_certificates_are_kept_and_asked_for_again_for_a_new_key():
    known, asked = {"one": CERTIFICATE}, []

    def fetch():
        asked.append(1)
        return dict(known)

    async def rotate():
        identities = tokens(fetch)
        for _ in range(3):
            await identities.user_of(signed())
        assert len(asked) == 1
        known["two"] = CERTIFICATE
        identities._fetched_at -= 60
        assert await identities.user_of(signed(kid="two")) == "ada@example.com"
        for _ in range(3):  # a key that nobody has must not make the service ask for each token
            with pytest.raises(Problem):
                await identities.user_of(signed(kid="three"))
        assert len(asked) == 2

    asyncio.run(rotate())


def test_an_issuer_that_cannot_be_reached_is_no_refusal_of_the_token():
    def fetch():
        raise ValueError("no answer")

    assert refusal(tokens(fetch), signed()) == "store-unavailable"


def test_the_callers_token_is_taken_before_the_gateways():
    assert bearer({"x-forwarded-authorization": "Bearer caller", "authorization": "Bearer gateway"}) == "caller"
    assert bearer({"authorization": "bearer caller"}) == "caller"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    path.touch(mode=0o600)
    write(path, "first", "ada")
    return path


def write(path: Path, token: str, name: str) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    path.write_text(json.dumps({"tokens": [{"sha256": digest(token), "user": name, "expires_at": until}]}))


def test_a_file_of_tokens_counts_as_soon_as_it_is_changed(file: Path):
    known = TokensOfFile(file)
    assert user(known, "first") == "ada"
    write(file, "another", "grace")
    assert user(known, "another") == "grace"
    assert refusal(known, "first") == "token-invalid"


def test_a_file_that_others_may_read_is_refused(file: Path):
    file.chmod(0o640)
    with pytest.raises(ParameterError, match="chmod 600"):
        TokensOfFile(file)


@pytest.mark.parametrize("text", ["", "{}", '{"tokens": [{"token": "plain"}]}', '{"tokens": [], "more": 1}'])
def test_a_file_that_is_not_as_it_has_to_be_is_refused_without_its_content(file: Path, text: str):
    file.write_text(text)
    with pytest.raises(ParameterError) as refused:
        TokensOfFile(file)
    assert "plain" not in str(refused.value)
