"""The metadata exchange: what a connector and an instance say to each other between TLS and the database protocol.

A message is its length in four bytes, big-endian, then a protobuf. The client says who it is and how it will log in;
the instance answers OK or an error, which the connector raises. The messages are
``google.cloud.alloydb.connectors.v1.MetadataExchangeRequest`` and ``...Response``.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

from google.cloud.alloydb_connectors_v1.proto.resources_pb2 import MetadataExchangeRequest, MetadataExchangeResponse
from google.protobuf.message import DecodeError

_LENGTH = struct.Struct(">I")
_LONGEST_MESSAGE_BYTES = 1 << 16
"""A token has two thousand bytes or so; whoever sends more than this speaks another protocol."""


class ExchangeError(Exception):
    """What came is no exchange request."""


@dataclass(frozen=True)
class Introduction:
    """What a client said of itself. The token is a secret."""

    user_agent: str
    wants_iam: bool
    token: str

    def __repr__(self) -> str:
        return f"Introduction({self.user_agent!r}, wants_iam={self.wants_iam}, token=***)"


async def read(reader: asyncio.StreamReader) -> Introduction:
    """The client's request. Raises ExchangeError for what is none, IncompleteReadError when the client hangs up."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > _LONGEST_MESSAGE_BYTES:
        raise ExchangeError(
            f"a metadata exchange request of {length:,} bytes was announced; at most {_LONGEST_MESSAGE_BYTES:,}"
        )
    try:
        request = MetadataExchangeRequest.FromString(await reader.readexactly(length))
    except DecodeError as error:
        raise ExchangeError(f"the metadata exchange request cannot be read: {error}") from error
    wants_iam = request.auth_type == MetadataExchangeRequest.AUTO_IAM
    return Introduction(request.user_agent, wants_iam, request.oauth2_token)


def accepted() -> bytes:
    """The answer that lets the database protocol begin."""
    return _framed(MetadataExchangeResponse(response_code=MetadataExchangeResponse.OK))


def refused(reason: str) -> bytes:
    """The answer that ends the connection; the connector raises the reason."""
    return _framed(MetadataExchangeResponse(response_code=MetadataExchangeResponse.ERROR, error=reason))


def _framed(response: MetadataExchangeResponse) -> bytes:
    message: bytes = response.SerializeToString()
    return _LENGTH.pack(len(message)) + message
