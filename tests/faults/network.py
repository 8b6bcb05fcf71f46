"""A network between a client and a PostgreSQL server that can be cut, silenced, slowed down and healed.

It listens on a TCP port of its own and passes everything on to the server's Unix socket, each direction under
conditions that may change at any time. What it cannot imitate: our own kernel acknowledges every packet that a client
sends, so TCP's keepalives and retransmissions see a healthy peer; only silence above TCP can be noticed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, TypeVar

_CHUNK_BYTES = 64 * 1024
_QUEUED_CHUNKS = 64
_POLL_SECONDS = 0.01
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST instead of FIN
Result = TypeVar("Result")
_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Chunk = tuple[float, bytes]  # when it came, and the bytes; none at the end


class Flow(Enum):
    """What becomes of bytes: passed on; kept until they are passed on again; or thrown away as if they had arrived."""

    DELIVER = "deliver"
    HOLD = "hold"
    SWALLOW = "swallow"


@dataclass(frozen=True)
class Conditions:
    """How one direction is. ``bytes_per_second`` None: as fast as it goes."""

    flow: Flow = Flow.DELIVER
    latency_seconds: float = 0.0
    bytes_per_second: float | None = None


class Network:
    """The way to one server. Lives for a ``with`` block; its methods may be called from any thread."""

    def __init__(self, server_socket: str) -> None:
        self._server_socket = server_socket
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._links: set[_Link] = set()
        self.to_server = Conditions()
        self.to_client = Conditions()
        self.refusing = False
        self.port = 0

    def __enter__(self) -> Network:
        self._thread.start()
        self._listener = self._in_loop(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._in_loop(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def conninfo(self, direct: str) -> str:
        """The connection string that goes this way instead of ``direct``."""
        rest = " ".join(part for part in direct.split() if not part.startswith(("host=", "port=")))
        return f"host=127.0.0.1 port={self.port} sslmode=disable gssencmode=disable {rest}"

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._links)

    def change(self, **changes: Any) -> None:
        """Change the conditions of both directions."""
        self.to_server, self.to_client = replace(self.to_server, **changes), replace(self.to_client, **changes)

    def cut(self) -> None:
        """End every connection with a reset."""
        self._in_loop(self._cut(lambda _: True))

    def heal(self) -> None:
        """Deliver again, at full speed, and accept again. A connection that has lost bytes is of no use: it ends."""
        self.to_server = self.to_client = Conditions()
        self.refusing = False
        self._in_loop(self._cut(lambda link: link.lost_bytes))

    def _in_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.refusing:
                raise ConnectionRefusedError
            server = await asyncio.open_unix_connection(self._server_socket)
        except OSError:
            return _reset(writer)
        link = _Link(self, (reader, writer), server)
        self._links.add(link)
        await link.run()
        self._links.discard(link)
        return None

    async def _cut(self, which: Callable[[_Link], bool]) -> None:
        for link in [link for link in self._links if which(link)]:
            link.reset()

    async def _end(self) -> None:
        self._listener.close()
        await self._cut(lambda _: True)
        while self._links:
            await asyncio.sleep(_POLL_SECONDS)


class _Link:
    """One client's connection."""

    def __init__(self, network: Network, client: _Ends, server: _Ends) -> None:
        self._network, self._client, self._server = network, client, server
        self._tasks: list[asyncio.Task[None]] = []
        self.lost_bytes = False

    async def run(self) -> None:
        """Pass bytes on until either side ends, then end both."""
        (from_client, to_client), (from_server, to_server) = self._client, self._server
        network = self._network
        ways = (
            (from_client, to_server, lambda: network.to_server),
            (from_server, to_client, lambda: network.to_client),
        )
        for reader, writer, conditions in ways:
            queue: asyncio.Queue[_Chunk] = asyncio.Queue(_QUEUED_CHUNKS)
            self._tasks.append(asyncio.create_task(self._read(reader, queue)))
            self._tasks.append(asyncio.create_task(self._write(queue, writer, conditions)))
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in (to_client, to_server):
            writer.close()

    def reset(self) -> None:
        """End both sides at once."""
        for _, writer in (self._client, self._server):
            _reset(writer)
        for task in self._tasks:
            task.cancel()

    async def _read(self, reader: asyncio.StreamReader, queue: asyncio.Queue[_Chunk]) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                await queue.put((time.monotonic(), chunk))
        await queue.put((time.monotonic(), b""))
        await asyncio.Event().wait()  # the end of a stream is passed on like its bytes: by the writer

    async def _write(
        self, queue: asyncio.Queue[_Chunk], writer: asyncio.StreamWriter, conditions: Callable[[], Conditions]
    ) -> None:
        while True:
            came, chunk = await queue.get()
            while conditions().flow is Flow.HOLD:
                await asyncio.sleep(_POLL_SECONDS)
            await asyncio.sleep(max(0.0, came + conditions().latency_seconds - time.monotonic()))
            if conditions().flow is Flow.SWALLOW:
                self.lost_bytes = True
                continue
            if not chunk:
                return
            if rate := conditions().bytes_per_second:
                await asyncio.sleep(len(chunk) / rate)
            try:
                writer.write(chunk)
                await writer.drain()
            except OSError:
                return


def _reset(writer: asyncio.StreamWriter) -> None:
    end = writer.get_extra_info("socket")
    if end is not None and end.family == socket.AF_INET:
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
