"""The opening packets and the pipe, against every way of cutting and spoiling them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest
from google.cloud.alloydb_connectors_v1.proto.resources_pb2 import MetadataExchangeRequest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_lib.local.alloydb import exchange, pipe, startup
from orchestra_lib.local.alloydb.exchange import ExchangeError
from orchestra_lib.local.alloydb.startup import StartupError

texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=50)


def fed(*chunks: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    for chunk in chunks:
        reader.feed_data(chunk)
    reader.feed_eof()
    return reader


class Unheard:
    """A writer whose other end does not matter."""

    def write(self, _: bytes) -> None: ...

    async def drain(self) -> None: ...


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


# --- the metadata exchange ----------------------------------------------------------------------------------------


@given(texts, st.booleans(), texts, st.integers(0, 200))
def test_an_introduction_is_read_as_it_was_said(user_agent, wants_iam, token, cut):
    kind = MetadataExchangeRequest.AUTO_IAM if wants_iam else MetadataExchangeRequest.DB_NATIVE
    message = MetadataExchangeRequest(user_agent=user_agent, auth_type=kind, oauth2_token=token).SerializeToString()
    sent = struct.pack(">I", len(message)) + message

    async def read():
        return await exchange.read(fed(sent[:cut], sent[cut:]))

    found = run(read())
    assert (found.user_agent, found.wants_iam, found.token) == (user_agent, wants_iam, token)
    assert token not in repr(found) or token in repr(exchange.Introduction(user_agent, wants_iam, ""))


@given(st.binary(max_size=300))
def test_what_is_no_introduction_ends_in_one_of_two_errors(sent):
    async def read():
        await exchange.read(fed(sent))

    try:
        run(read())
    except (ExchangeError, asyncio.IncompleteReadError):
        return
    (length,) = struct.unpack(">I", sent[:4])
    MetadataExchangeRequest.FromString(sent[4 : 4 + length])  # it was one after all


# --- the startup packet -------------------------------------------------------------------------------------------


def packet(parameters: dict[str, str], code: int = 196608) -> bytes:
    body = struct.pack(">i", code)
    for name, value in parameters.items():
        body += name.encode() + b"\0" + value.encode() + b"\0"
    return struct.pack(">i", len(body) + 5) + body + b"\0"


async def read_startup(sent: bytes) -> startup.Startup:
    return await startup.read(fed(sent), Unheard())


@given(texts, st.dictionaries(texts.filter(lambda name: name != "user"), texts, max_size=4))
def test_a_startup_packet_names_its_user_and_is_passed_on_unaltered(user, others):
    sent = packet({**others, "user": user})
    found = run(read_startup(sent))
    assert (found.user, found.packet) == (user, sent)


@given(st.binary(max_size=300))
def test_what_is_no_startup_packet_ends_in_one_of_two_errors(sent):
    try:
        found = run(read_startup(sent))
    except (StartupError, asyncio.IncompleteReadError):
        return
    assert found.packet in sent


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (packet({"database": "x"}), "names no user"),
        (packet({"user": "x"}, code=131072), "protocol version 2.0"),
        (struct.pack(">ii", 1 << 30, 196608), "1,073,741,824 bytes was announced"),
        (struct.pack(">ii", 4, 196608), "4 bytes was announced"),
    ],
)
def test_a_wrong_startup_packet_is_named(sent, reason):
    with pytest.raises(StartupError, match=reason):
        run(read_startup(sent))


# --- the pipe -----------------------------------------------------------------------------------------------------


async def piped() -> tuple[socket.socket, socket.socket, asyncio.Task[None]]:
    """The far ends of a pipe between two socket pairs, and the task that it runs in."""
    client, near_client = socket.socketpair()
    server, near_server = socket.socketpair()
    ends = [
        await asyncio.open_unix_connection(sock=near, limit=pipe.CHUNK_BYTES) for near in (near_client, near_server)
    ]
    for far in (client, server):
        far.setblocking(False)
    return client, server, asyncio.create_task(pipe.both_ways(*ends))


async def send_all(end: socket.socket, chunks: list[bytes]) -> None:
    loop = asyncio.get_running_loop()
    for chunk in chunks:
        await loop.sock_sendall(end, chunk)
    end.shutdown(socket.SHUT_WR)


async def receive_all(end: socket.socket) -> bytes:
    loop, found = asyncio.get_running_loop(), bytearray()
    while chunk := await loop.sock_recv(end, 65536):
        found += chunk
    return bytes(found)


chunk_lists = st.lists(st.binary(max_size=100_000), max_size=8)


@settings(max_examples=40)
@given(chunk_lists, chunk_lists)
def test_both_directions_carry_everything_and_end_when_both_have_ended(asked, answered):
    async def both() -> tuple[bytes, bytes]:
        client, server, task = await piped()
        with client, server:
            _, _, there, back = await asyncio.gather(
                send_all(client, asked), send_all(server, answered), receive_all(server), receive_all(client)
            )
            await asyncio.wait_for(task, 5)
        return there, back

    assert run(both()) == (b"".join(asked), b"".join(answered))


def test_a_half_closed_client_still_gets_its_answer():
    async def ask() -> bytes:
        client, server, task = await piped()
        with client, server:
            await send_all(client, [b"question"])
            assert await receive_all(server) == b"question"
            await send_all(server, [b"answer"])
            found = await receive_all(client)
            await asyncio.wait_for(task, 5)
        return found

    assert run(ask()) == b"answer"


def test_a_client_that_does_not_read_stops_the_server_from_sending_and_can_be_got_rid_of():
    async def pushed() -> int:
        client, server, task = await piped()
        loop, total = asyncio.get_running_loop(), 0
        with client, server, suppress(TimeoutError):
            while total < 100 * pipe.CHUNK_BYTES:
                await asyncio.wait_for(loop.sock_sendall(server, b"x" * 65536), 0.2)
                total += 65536
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        return total

    assert run(pushed()) < 20 * pipe.CHUNK_BYTES
