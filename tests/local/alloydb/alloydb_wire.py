"""A client of an AlloyDB instance that speaks its protocols by hand, to say what no connector would."""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
from pathlib import Path
from typing import Any

from alloydb_planes import Cluster
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.cloud.alloydb_connectors_v1.proto.resources_pb2 import MetadataExchangeRequest, MetadataExchangeResponse

PORT = 5433


def tls_context(cluster: Cluster, *, client_of: Cluster | None, metadata_exchange: bool = False) -> ssl.SSLContext:
    """Trusts the cluster; holds a new client certificate of ``client_of``, or none."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    body = {"publicKey": public.decode(), "certDuration": "3600s", "useMetadataExchange": metadata_exchange}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority = cluster.planes.call("POST", f"{cluster.name}:generateClientCertificate", body)["caCert"]
    context.load_verify_locations(cadata=authority)
    if client_of:
        answer = cluster.planes.call("POST", f"{client_of.name}:generateClientCertificate", body)
        present(context, "".join(answer["pemCertificateChain"]), key)
    return context


def present(context: ssl.SSLContext, chain: str, key: Any) -> None:
    """Make the context show a certificate."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(
            chain.encode()
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context.load_cert_chain(file.name)


def opened(address: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A TLS connection to an instance."""
    return context.wrap_socket(socket.create_connection((address, PORT), timeout=20), server_hostname=address)


def introduce(connection: ssl.SSLSocket, token: str) -> MetadataExchangeResponse:
    """The answer to a metadata exchange with that token."""
    message = MetadataExchangeRequest(
        user_agent="tests", auth_type=MetadataExchangeRequest.DB_NATIVE, oauth2_token=token
    ).SerializeToString()
    connection.sendall(struct.pack(">I", len(message)) + message)
    return answer_of(connection)


def answer_of(connection: ssl.SSLSocket) -> MetadataExchangeResponse:
    """The next message of a metadata exchange."""
    (length,) = struct.unpack(">I", exactly(connection, 4))
    return MetadataExchangeResponse.FromString(exactly(connection, length))


def startup_packet(user: str) -> bytes:
    """A startup packet for the database ``postgres``."""
    body = struct.pack(">i", 196608) + b"user\0" + user.encode() + b"\0database\0postgres\0\0"
    return struct.pack(">i", len(body) + 4) + body


def message(connection: ssl.SSLSocket) -> tuple[bytes, bytes]:
    """The next message of the server: its kind and its content."""
    kind, length = struct.unpack(">ci", exactly(connection, 5))
    return kind, exactly(connection, length - 4)


def until(connection: ssl.SSLSocket, wanted: bytes) -> list[tuple[bytes, bytes]]:
    """The server's messages up to the first of a kind."""
    found = [message(connection)]
    while found[-1][0] != wanted:
        found.append(message(connection))
    return found


def sent(kind: bytes, content: bytes) -> bytes:
    """A message to the server."""
    return kind + struct.pack(">i", len(content) + 4) + content


def exactly(connection: ssl.SSLSocket, length: int) -> bytes:
    """That many bytes; EOFError when the server hangs up before."""
    found = b""
    while len(found) < length:
        chunk = connection.recv(length - len(found))
        if not chunk:
            raise EOFError(f"the server hung up after {len(found)} of {length} bytes")
        found += chunk
    return found
