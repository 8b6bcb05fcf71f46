"""The first packets of PostgreSQL's protocol: enough to know who wants to log in, to ask for a token, and to refuse.

https://www.postgresql.org/docs/16/protocol-message-formats.html
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

_INT32 = struct.Struct(">i")
_SSL_REQUEST, _GSSENC_REQUEST, _CANCEL_REQUEST = 80877103, 80877104, 80877102
_PROTOCOL_MAJOR = 3
_LONGEST_STARTUP_BYTES = 10_000
"""The server's own limit (MAX_STARTUP_PACKET_LENGTH)."""
_LONGEST_PASSWORD_BYTES = 1 << 16
_CLEARTEXT_PASSWORD = b"R" + _INT32.pack(8) + _INT32.pack(3)
_NO_ENCRYPTION_HERE = b"N"
INVALID_AUTHORIZATION = "28000"
CANNOT_CONNECT_NOW = "57P03"
PROTOCOL_VIOLATION = "08P01"


class StartupError(Exception):
    """What came is no startup packet."""


@dataclass(frozen=True)
class Startup:
    """A startup packet as it came, and the user that it names; None in a request to cancel a statement."""

    packet: bytes
    user: str | None


async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Startup:
    """The startup packet. Requests for TLS or GSS encryption inside the tunnel are answered with no.

    Raises StartupError for what is none, IncompleteReadError when the client hangs up.
    """
    while True:
        head = await reader.readexactly(2 * _INT32.size)
        length, code = struct.unpack(">ii", head)
        if code in (_SSL_REQUEST, _GSSENC_REQUEST):
            writer.write(_NO_ENCRYPTION_HERE)
            await writer.drain()
            continue
        if not len(head) <= length <= _LONGEST_STARTUP_BYTES:
            raise StartupError(
                f"a startup packet of {length:,} bytes was announced, at most {_LONGEST_STARTUP_BYTES:,}"
            )
        packet = head + await reader.readexactly(length - len(head))
        if code == _CANCEL_REQUEST:
            return Startup(packet, None)
        if code >> 16 != _PROTOCOL_MAJOR:
            raise StartupError(f"protocol version {code >> 16}.{code & 0xFFFF} was asked for; wanted version 3")
        return Startup(packet, _user(packet[len(head) :]))


async def ask_password(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """What the client gives as a password when asked for one in clear (the tunnel is encrypted)."""
    writer.write(_CLEARTEXT_PASSWORD)
    await writer.drain()
    kind, length = struct.unpack(">ci", await reader.readexactly(1 + _INT32.size))
    if kind != b"p" or not _INT32.size < length <= _LONGEST_PASSWORD_BYTES:
        raise StartupError(f"a password message was expected, {kind!r} of {length:,} bytes came")
    return (await reader.readexactly(length - _INT32.size)).rstrip(b"\0").decode(errors="replace")


def refused(sqlstate: str, message: str) -> bytes:
    """The fatal error that ends the attempt; a driver raises its message."""
    fields = (b"SFATAL", b"VFATAL", b"C" + sqlstate.encode(), b"M" + message.encode())
    body = b"".join(field + b"\0" for field in fields) + b"\0"
    return b"E" + _INT32.pack(_INT32.size + len(body)) + body


def _user(parameters: bytes) -> str:
    parts = parameters.split(b"\0")
    named = dict(zip(parts[::2], parts[1::2], strict=False))
    if not named.get(b"user"):
        raise StartupError("the startup packet names no user")
    return named[b"user"].decode(errors="replace")
