"""A certificate authority in a directory: made once, its key readable by its owner only.

Each cluster has its own, as on Google Cloud: it signs the certificates of the cluster's instances and those that
clients get from ``generateClientCertificate``. The admin door has one more, for its own name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from filelock import FileLock

from orchestra_lib.errors import ParameterError

AUTHORITY_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=365)
"""A server certificate is made anew at each start of the process that uses it."""
SHORTEST_CLIENT_LIFE, LONGEST_CLIENT_LIFE = timedelta(hours=1), timedelta(hours=24)
"""https://cloud.google.com/alloydb/docs/reference/rpc/google.cloud.alloydb.v1beta#generateclientcertificaterequest"""
# Certificates begin a little in the past: the clock of a container's guest may lag behind that of its host.
_CLOCK_SKEW = timedelta(minutes=5)
_METADATA_EXCHANGE = "metadata exchange"
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class ServerCertificate:
    """Files that ``ssl`` loads: the certificate, its private key, and the authority that clients are held against."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class Authority:
    """The authority of one directory; :meth:`open` makes it if it is not there."""

    directory: Path
    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def open(cls, directory: Path, name: str) -> Authority:
        """The authority of that directory, made with ``name`` as its common name if there is none yet."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(directory / "lock", timeout=30):
            if not (directory / "ca.pem").exists():
                _make(directory, name)
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{directory / 'ca.key'} holds a {type(key).__name__}, not an elliptic curve key")
        return cls(directory, x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes()), key)

    @property
    def pem(self) -> str:
        """The authority's own certificate."""
        return self.certificate.public_bytes(_PEM).decode()

    @property
    def file(self) -> Path:
        """The file that holds the authority's own certificate, and nothing secret."""
        return self.directory / "ca.pem"

    def server_certificate(self, host: str) -> ServerCertificate:
        """A certificate for an IP address or a DNS name, with a new key, in files of the authority's directory."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            key.public_key(),
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]),
            SERVER_LIFE,
            ExtendedKeyUsageOID.SERVER_AUTH,
            x509.SubjectAlternativeName([_host_name(host)]),
        )
        files = ServerCertificate(self.directory / f"{host}.pem", self.directory / f"{host}.key", self.file)
        _write_private(files.key, _private_bytes(key))
        files.certificate.write_bytes(certificate.public_bytes(_PEM))
        return files

    def client_certificate(
        self, public_key_pem: str, life: timedelta | None, *, metadata_exchange: bool
    ) -> tuple[str, ...]:
        """A client's certificate and the authority's, as PEM texts from leaf to root.

        ``life`` is held within 1 and 24 hours, None takes 24; ``metadata_exchange`` is written into the certificate: a
        client that asked for it speaks the exchange before the database protocol. Raises ParameterError for a key that
        is no RSA or elliptic curve public key.
        """
        certificate = self._sign(
            _public_key(public_key_pem),
            _client_name(metadata_exchange),
            min(max(life or LONGEST_CLIENT_LIFE, SHORTEST_CLIENT_LIFE), LONGEST_CLIENT_LIFE),
            ExtendedKeyUsageOID.CLIENT_AUTH,
        )
        return certificate.public_bytes(_PEM).decode(), self.pem

    def _sign(
        self,
        public_key: CertificatePublicKeyTypes,
        subject: x509.Name,
        life: timedelta,
        usage: x509.ObjectIdentifier,
        *extensions: x509.ExtensionType,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(_issuer_key(self._key), critical=False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def speaks_metadata_exchange(subject: Sequence[Sequence[tuple[str, str]]]) -> bool:
    """Whether a client certificate's subject, as ``ssl`` gives it, says that its holder begins with the exchange."""
    return any(
        name == "organizationalUnitName" and value == _METADATA_EXCHANGE for part in subject for name, value in part
    )


def _make(directory: Path, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issuer_key(key), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_private(directory / "ca.key", _private_bytes(key))
    # The certificate last: an authority is there when its certificate is.
    part = directory / "ca.pem.part"
    part.write_bytes(certificate.public_bytes(_PEM))
    part.replace(directory / "ca.pem")


def _public_key(pem: str) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ParameterError(f"the public key is not a PEM public key: {error}") from error
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise ParameterError(f"the public key is a {type(key).__name__}; wanted RSA or elliptic curve")
    return key


def _client_name(metadata_exchange: bool) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, "alloydb client")]
    if metadata_exchange:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, _METADATA_EXCHANGE))
    return x509.Name(parts)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write_private(file: Path, content: bytes) -> None:
    # Never readable by others, not even for a moment: the mode is given when the file is made.
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
        written.write(content)
