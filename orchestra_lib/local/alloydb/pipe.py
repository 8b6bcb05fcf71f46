"""Bytes in both directions between a client and its server, until one of them is done."""

from __future__ import annotations

import asyncio
from contextlib import suppress

CHUNK_BYTES = 1 << 18
_HANG_UPS = (ConnectionError, TimeoutError)


async def both_ways(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Pass on what either side sends, no faster than the other takes it.

    What a side sent before it stopped is still delivered, and its stopping is passed on; when both have stopped,
    or one broke off, the connections are closed.
    """
    ways = [
        asyncio.create_task(_one_way(client[0], server[1])),
        asyncio.create_task(_one_way(server[0], client[1])),
    ]
    try:
        await asyncio.gather(*ways)
    except _HANG_UPS:
        pass  # a client that vanishes is the normal end of many sessions; the server notices by its closed socket
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await close(server[1])
        await close(client[1])


async def close(writer: asyncio.StreamWriter) -> None:
    """Close one side, which may be closed already."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()  # TLS has no half-close here: the last bytes are flushed, then the client sees the end
