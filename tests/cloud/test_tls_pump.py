"""One thread between a TLS connection and a plain socket: whole, in both directions, and nobody else is touched."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from google.cloud.alloydbconnector.psycopg import _proxy

from orchestra_lib.cloud.tls_pump import plain_end
from orchestra_lib.local.alloydb.authority import Authority

Open = Callable[[], ssl.SSLSocket]
_SECONDS = 10
_END = b"."


@pytest.fixture(scope="module")
def contexts(tmp_path_factory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = Authority.open(tmp_path_factory.mktemp("authority"), "a test")
    files = authority.server_certificate("127.0.0.1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    return server, ssl.create_default_context(cadata=authority.pem)


@pytest.fixture
def opened(contexts) -> Iterator[Open]:
    """Opens TLS connections to a server that says everything back, up to a full stop."""
    server, client = contexts
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=_echo, args=(server, listener.accept()[0]), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield lambda: client.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname="127.0.0.1")
    listener.close()


def _echo(context: ssl.SSLContext, accepted: socket.socket) -> None:
    with suppress(OSError), context.wrap_socket(accepted, server_side=True) as connection:
        while (said := connection.recv(1 << 16)) and said != _END:
            connection.sendall(said)


def _read(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size and (part := connection.recv(1 << 16)):
        parts += part
    return bytes(parts)


def test_megabytes_come_back_as_they_were_while_both_directions_are_full(opened):
    sent = os.urandom(20 << 20)
    with plain_end(opened()) as connection:
        connection.settimeout(_SECONDS)
        writer = threading.Thread(target=connection.sendall, args=(sent,))
        writer.start()
        assert _read(connection, len(sent)) == sent
        writer.join()


def test_what_was_still_on_its_way_arrives_before_the_end(opened):
    with plain_end(opened()) as connection:
        connection.settimeout(_SECONDS)
        connection.sendall(b"last words")
        assert _read(connection, 10) == b"last words"
        connection.sendall(_END)
        assert connection.recv(10) == b"", "the server has closed"


def test_closing_it_closes_the_tls_connection(opened):
    tls = opened()
    plain_end(tls).close()
    for thread in threading.enumerate():
        if thread.name == "TLS pump":
            thread.join(_SECONDS)
            assert not thread.is_alive()
    assert tls.fileno() == -1


def test_sessions_that_close_touch_nobody_elses_connection(opened):
    for _ in range(40):
        ours, connectors = socket.socketpair()
        threading.Thread(target=_proxy, args=(connectors, plain_end(opened())), daemon=True).start()
        ours.settimeout(_SECONDS)
        ours.sendall(b"query")
        assert _read(ours, 5) == b"query"
        ours.close()
        # Their descriptors may be those that the session has just given back.
        for one, other in [socket.socketpair() for _ in range(6)]:
            with one, other:
                one.settimeout(_SECONDS)
                other.settimeout(_SECONDS)
                for writer, reader in ((one, other), (other, one)):
                    writer.sendall(b"1")
                    assert reader.recv(100) == b"1"
