"""The certificate authority: what it signs, for how long, and who may read its key."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from orchestra_lib.errors import ParameterError
from orchestra_lib.local.alloydb.authority import Authority


@pytest.fixture
def authority(tmp_path):
    return Authority.open(tmp_path / "authority", "projects/p/locations/l/clusters/c")


def pem(private_key) -> str:
    return (
        private_key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def life_of(chain: tuple[str, ...]) -> float:
    """Hours from now until a certificate ends."""
    ends = x509.load_pem_x509_certificate(chain[0].encode()).not_valid_after_utc
    return round((ends - datetime.now(UTC)) / timedelta(hours=1), 2)


def test_it_is_made_once_whoever_asks_first(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = {authority.pem for authority in pool.map(lambda _: Authority.open(tmp_path, "c"), range(8))}
    assert len(found) == 1


def test_keys_are_readable_by_their_owner_alone(authority):
    authority.server_certificate("127.0.9.10")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in authority.directory.glob("*.key")}
    assert modes == {"ca.key": 0o600, "127.0.9.10.key": 0o600}


@pytest.mark.parametrize(
    ("host", "name"), [("127.0.9.10", x509.IPAddress(ip_address("127.0.9.10"))), ("door", x509.DNSName("door"))]
)
def test_a_server_certificate_is_for_its_host_and_for_nothing_else(authority, host, name):
    files = authority.server_certificate(host)
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    certificate.verify_directly_issued_by(authority.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [name]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())])
def test_a_client_certificate_holds_the_clients_key_and_leads_to_the_authority(authority, key):
    leaf, root = authority.client_certificate(pem(key), None, metadata_exchange=True)
    certificate = x509.load_pem_x509_certificate(leaf.encode())
    assert certificate.public_key() == key.public_key()
    assert root == authority.pem
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(root.encode()))
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(("asked", "hours"), [(None, 24), (2, 2), (0.1, 1), (48, 24), (-5, 1)])
def test_a_client_certificate_lives_between_1_and_24_hours(authority, asked, hours):
    life = None if asked is None else timedelta(hours=asked)
    key = pem(ec.generate_private_key(ec.SECP256R1()))
    assert life_of(authority.client_certificate(key, life, metadata_exchange=False)) == hours


@pytest.mark.parametrize(
    ("key", "reason"),
    [("no key", "not a PEM public key"), (pem(ed25519.Ed25519PrivateKey.generate()), "Ed25519PublicKey; wanted RSA")],
)
def test_what_is_no_rsa_or_elliptic_curve_key_is_refused(authority, key, reason):
    with pytest.raises(ParameterError, match=reason):
        authority.client_certificate(key, None, metadata_exchange=False)
