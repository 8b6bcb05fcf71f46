"""The socket: a plain ASGI application behind uvicorn, on the loopback interface only.

``python -m orchestra_lib.local.control.server --directory DIR [--port N] [--latency L] [--open]`` serves until it
gets SIGTERM. The token lies in ``DIR/token``, readable by its owner alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from orchestra_lib.errors import ParameterError, TargetUnreachable
from orchestra_lib.local.control.control import ControlPlane
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.front import Answer, ConnectionDropped, Request, answer
from orchestra_lib.local.control.operations import Latency
from orchestra_lib.local.control.tokens import new_token

HOST = "127.0.0.1"
REALISTIC = "realistic"
TOKEN_FILE = "token"  # noqa: S105 - the name of a file
_LARGEST_BODY_BYTES = 32 << 20
_TRANSPORT = "transport"
_log = logging.getLogger(__name__)

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Application:
    """The ASGI application of one control plane."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = await _read(scope, receive)
        if request is None:
            await _write(
                send, Answer(413, {"error": {"code": 413, "message": "Request payload size exceeds the limit."}})
            )
            return
        try:
            result = await asyncio.to_thread(_answered, self._control, request)
        except ConnectionDropped:
            scope["state"][_TRANSPORT].abort()
            await asyncio.sleep(0)  # lets the server see that the client is gone, so that it does not answer 500
            return
        await _write(send, result)


def _answered(control: ControlPlane, request: Request) -> Answer:
    """The answer; 500 for an error of ours, which goes to the log with its trace."""
    try:
        return answer(control, request)
    except ConnectionDropped:
        raise
    except Exception:
        _log.exception("%s %s failed", request.http_method, request.path)
        return Answer(500, Fault("INTERNAL", "Internal error encountered.").body(""))


async def _read(scope: Scope, receive: Receive) -> Request | None:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = bool(message.get("more_body", False))
        if len(body) > _LARGEST_BODY_BYTES:
            return None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return Request(
        http_method=scope["method"],
        path=scope["raw_path"].decode("latin-1"),
        query=scope["query_string"].decode("latin-1"),
        headers=headers,
        body=bytes(body),
    )


async def _write(send: Send, result: Answer) -> None:
    body = json.dumps(result.body).encode()
    headers = [
        (b"content-type", b"application/json; charset=UTF-8"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": result.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Protocol(H11Protocol):
    """Hands the connection to the application, which may have to drop it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, _TRANSPORT: transport}


def listening_socket(port: int) -> socket.socket:
    """A bound socket on the loopback interface; port 0 takes a free one. Raises TargetUnreachable if it is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise TargetUnreachable(
            f"the local Google Cloud cannot listen on {HOST}:{port}: {error.strerror}; "
            "free the port or choose another with --port (0 takes a free one)"
        ) from error
    return listener


def uvicorn_server(control: ControlPlane) -> uvicorn.Server:
    """The HTTP server of a control plane, to be run with a socket of :func:`listening_socket`."""
    config = uvicorn.Config(
        Application(control),
        http=_Protocol,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def latency(text: str) -> Latency:
    """``realistic``, ``0`` or a scale. Raises ParameterError."""
    try:
        scale = 1.0 if text == REALISTIC else float(text)
    except ValueError:
        scale = -1.0
    if not 0 <= scale < float("inf"):
        raise ParameterError(f"latency has to be '{REALISTIC}', 0 or a factor of it such as 0.01, got '{text}'")
    return Latency(scale)


def token_of(directory: Path) -> str:
    """The operator's token of a state directory; made on first use."""
    path = directory / TOKEN_FILE
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(new_token())
    return path.read_text().strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Prints the port when it listens."""
    parser = argparse.ArgumentParser(prog="python -m orchestra_lib.local.control.server")
    parser.add_argument("--directory", type=Path, required=True, help="where the state is kept")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", default="0", help="realistic, 0, or a factor of realistic")
    parser.add_argument("--open", action="store_true", help="for tests: no token, projects exist when named")
    options = parser.parse_args(arguments)
    options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = None if options.open else token_of(options.directory)
    listener = listening_socket(options.port)
    control = ControlPlane(options.directory, token=token, latency=latency(options.latency))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    try:
        uvicorn_server(control).run(sockets=[listener])
    finally:
        control.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
