"""The way to a server for programs of this machine: a Unix socket that says where an instance's own socket is.

A request is the instance's full name in one line, the answer one line of JSON. Only the user who runs the data plane
may ask, and may then log in as each of the instance's IAM users: the server takes that user's word for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestra_lib.errors import TargetUnreachable
from orchestra_lib.local.alloydb import places, presence

_FILE = "plane.sock"
_LONGEST_NAME_BYTES = 4096
_ANSWER_SECONDS = 900
"""A server that has to be copied or restored first takes its time."""
Serve = Callable[[str], Awaitable[dict[str, Any]]]


class LocalDoor:
    """The listening door. ``serve`` answers for an instance, or raises TargetUnreachable."""

    def __init__(self, directory: Path, serve: Serve) -> None:
        self._file, self._serve = places.home(directory) / _FILE, serve
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen, in the place of a data plane that was killed."""
        self._file.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            with _address(self._file) as address:
                self._server = await asyncio.start_unix_server(self._answer, address)
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Stop listening."""
        if self._server:
            self._server.close()
        self._file.unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            name = (await reader.readline()).decode(errors="replace").strip()
            writer.write(json.dumps(await self._told(name)).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError):
            pass  # whoever asked has gone, or does not speak this
        finally:
            writer.close()

    async def _told(self, name: str) -> dict[str, Any]:
        try:
            return await self._serve(name)
        except TargetUnreachable as error:
            return {"error": str(error)}


def ask(directory: Path, instance: str) -> dict[str, Any]:
    """Where the server of an instance listens, once it serves: ``{"instance", "socket_directory", "port", "role",
    "pid"}``. Raises TargetUnreachable with the reason."""
    if presence.status(directory) is None:
        raise TargetUnreachable("the local AlloyDB is not up; start it with: python -m orchestra_lib local up")
    try:
        address = _address(places.home(directory) / _FILE)
        with address as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(path)
            connection.sendall(f"{instance}\n".encode()[:_LONGEST_NAME_BYTES])
            answer = connection.makefile().readline()
    except OSError as error:
        raise TargetUnreachable(f"the local AlloyDB does not answer: {error}; see its log in {directory}") from error
    found: dict[str, Any] = json.loads(answer) if answer else {"error": "the local AlloyDB ended meanwhile; ask again"}
    if "error" in found:
        raise TargetUnreachable(found["error"])
    return found


@contextmanager
def _address(file: Path) -> Iterator[str]:
    """The address of a socket whose path may be too long for one: through its directory, opened."""
    directory = os.open(file.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{directory}/{file.name}"
    finally:
        os.close(directory)
