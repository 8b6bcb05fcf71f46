"""The listener of an instance, spoken to by hand: who is refused in TLS, in the exchange, and at the login."""

from __future__ import annotations

import ssl
import struct
from datetime import timedelta

import alloydb_wire as wire
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.cloud.alloydb_connectors_v1.proto.resources_pb2 import MetadataExchangeResponse

from orchestra_lib.local.alloydb.authority import Authority

pytestmark = pytest.mark.slow

AUTHENTICATION_OK, CLEARTEXT_PASSWORD, SASL = 0, 3, 10


@pytest.fixture(scope="module")
def cluster(planes):
    return planes.cluster()


@pytest.fixture(scope="module")
def address(planes, cluster):
    instance = cluster.instance(alloydb__iam_authentication="on")
    cluster.user(planes.operator, userType="ALLOYDB_IAM_USER")
    connection = planes.call("GET", f"{instance}/connectionInfo", version="v1beta")
    # The listener is there one look at the control plane later.
    planes.listening(connection["ipAddress"])
    return connection["ipAddress"]


def authentication(connection: ssl.SSLSocket) -> int:
    kind, content = wire.message(connection)
    assert kind == b"R", content
    return struct.unpack(">i", content[:4])[0]


# --- TLS ----------------------------------------------------------------------------------------------------------


def is_refused(planes, address: str, context: ssl.SSLContext) -> bool:
    """Whether the connection ends before the exchange is answered. In TLS 1.3 a client learns it when it reads."""
    try:
        with wire.opened(address, context) as connection:
            wire.introduce(connection, planes.token)
    except (ssl.SSLError, EOFError, ConnectionError):
        return True
    return False


def test_a_client_certificate_of_the_cluster_is_taken(planes, cluster, address):
    context = wire.tls_context(cluster, client_of=cluster, metadata_exchange=True)
    assert not is_refused(planes, address, context)


def test_a_client_without_a_certificate_is_refused(planes, cluster, address):
    context = wire.tls_context(cluster, client_of=None)
    assert is_refused(planes, address, context)


def test_a_client_certificate_of_another_cluster_is_refused(planes, cluster, address):
    context = wire.tls_context(cluster, client_of=planes.cluster())
    assert is_refused(planes, address, context)


def test_a_client_certificate_of_an_authority_with_the_same_name_is_refused(tmp_path, planes, cluster, address):
    context = wire.tls_context(cluster, client_of=None)
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    imposter = Authority.open(tmp_path, cluster.name)
    chain = imposter.client_certificate(public.decode(), timedelta(hours=1), metadata_exchange=True)
    wire.present(context, "".join(chain), key)
    assert is_refused(planes, address, context)


def test_tls_1_2_is_refused(planes, cluster, address):
    context = wire.tls_context(cluster, client_of=cluster)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert is_refused(planes, address, context)


def test_the_instance_shows_a_certificate_of_its_own_address(cluster, address):
    context = wire.tls_context(cluster, client_of=cluster)
    with wire.opened(address, context) as connection:
        assert connection.version() == "TLSv1.3"
        names = connection.getpeercert()["subjectAltName"]
    assert names == (("IP Address", address),)


# --- the metadata exchange ----------------------------------------------------------------------------------------


@pytest.fixture
def with_exchange(cluster, address):
    with wire.opened(address, wire.tls_context(cluster, client_of=cluster, metadata_exchange=True)) as connection:
        yield connection


def test_the_exchange_lets_a_right_token_in(planes, with_exchange):
    assert wire.introduce(with_exchange, planes.token).response_code == MetadataExchangeResponse.OK
    with_exchange.sendall(wire.startup_packet("postgres"))
    assert authentication(with_exchange) == SASL


@pytest.mark.parametrize("token", ["", "wrong"])
def test_the_exchange_refuses_a_wrong_token_and_hangs_up(with_exchange, token):
    answer = wire.introduce(with_exchange, token)
    assert answer.response_code == MetadataExchangeResponse.ERROR
    assert "UNAUTHENTICATED" in answer.error
    assert with_exchange.recv(1) == b""


def test_what_is_no_exchange_is_refused(with_exchange):
    with_exchange.sendall(wire.startup_packet("postgres") + b"\xff" * 200)
    answer = wire.answer_of(with_exchange)
    assert answer.response_code == MetadataExchangeResponse.ERROR
    assert "cannot be read" in answer.error


def test_an_exchange_of_a_gigabyte_is_refused_before_it_is_read(with_exchange):
    with_exchange.sendall(struct.pack(">I", 1 << 30))
    assert "1,073,741,824 bytes was announced" in wire.answer_of(with_exchange).error


# --- the login ----------------------------------------------------------------------------------------------------


@pytest.fixture
def without_exchange(cluster, address):
    with wire.opened(address, wire.tls_context(cluster, client_of=cluster)) as connection:
        yield connection


def test_a_certificate_without_the_exchange_leads_to_the_database_at_once(without_exchange):
    without_exchange.sendall(wire.startup_packet("postgres"))
    assert authentication(without_exchange) == SASL


def test_requests_for_encryption_inside_the_tunnel_are_declined(without_exchange):
    for code in (80877103, 80877104):
        without_exchange.sendall(struct.pack(">ii", 8, code))
        assert without_exchange.recv(1) == b"N"
    without_exchange.sendall(wire.startup_packet("postgres"))
    assert authentication(without_exchange) == SASL


def test_an_iam_user_is_asked_for_its_token(planes, without_exchange):
    without_exchange.sendall(wire.startup_packet(planes.operator))
    assert authentication(without_exchange) == CLEARTEXT_PASSWORD
    without_exchange.sendall(wire.sent(b"p", planes.token.encode() + b"\0"))
    assert authentication(without_exchange) == AUTHENTICATION_OK


def test_a_wrong_token_is_refused_as_a_login_is(planes, without_exchange):
    without_exchange.sendall(wire.startup_packet(planes.operator))
    assert authentication(without_exchange) == CLEARTEXT_PASSWORD
    without_exchange.sendall(wire.sent(b"p", b"wrong\0"))
    kind, content = wire.message(without_exchange)
    assert kind == b"E"
    assert b"C28000\0" in content
    assert b"UNAUTHENTICATED" in content
    assert without_exchange.recv(1) == b""


def test_a_statement_is_cancelled_through_the_listener(planes, cluster, address):
    context = wire.tls_context(cluster, client_of=cluster)
    with wire.opened(address, context) as connection:
        connection.sendall(wire.startup_packet(planes.operator))
        authentication(connection)
        connection.sendall(wire.sent(b"p", planes.token.encode() + b"\0"))
        greeting = dict(wire.until(connection, b"Z"))
        started_then_slept = b"DO $$ BEGIN RAISE NOTICE 'started'; PERFORM pg_sleep(60); END $$\0"
        connection.sendall(wire.sent(b"Q", started_then_slept))
        wire.until(connection, b"N")
        with wire.opened(address, context) as second:
            second.sendall(struct.pack(">ii", 16, 80877102) + greeting[b"K"])
            assert second.recv(1) == b""
        assert b"C57014\0" in dict(wire.until(connection, b"Z"))[b"E"]
