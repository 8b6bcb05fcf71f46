"""Bytes in both directions between a client and its server, until one of them is done."""

from __future__ import annotations

import asyncio

CHUNK_BYTES = 1 << 18


async def both_ways(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Pass on what either side sends, no faster than the other takes it.

    What a side sent before it stopped is still delivered, and its stopping is passed on; when both have stopped, the
    connections are closed. Raises OSError when one broke off; then, and when cancelled, they are broken off too.
    """
    ways = [
        asyncio.create_task(_one_way(client[0], server[1])),
        asyncio.create_task(_one_way(server[0], client[1])),
    ]
    try:
        await asyncio.gather(*ways)
    except BaseException:
        for way in ways:
            way.cancel()
        for _, writer in (client, server):
            writer.transport.abort()  # not closed: a side that does not read would never be rid of what is left
        raise
    for _, writer in (client, server):
        writer.close()
        await writer.wait_closed()


async def _one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()  # TLS has no half-close here: the last bytes are flushed, then the client sees the end
