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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from filelock import FileLock, Timeout
from uvicorn.protocols.http.h11_impl import H11Protocol

from orchestra_lib.errors import OrchestraError, TargetUnreachable
from orchestra_lib.local.control.control import ControlPlane, Organization
from orchestra_lib.local.control.faults import Fault
from orchestra_lib.local.control.front import Answer, ConnectionDropped, Request, answer
from orchestra_lib.local.control.operations import latency_of
from orchestra_lib.local.control.process import write_state
from orchestra_lib.local.control.tokens import new_token, taken_from

HOST = "127.0.0.1"
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
        try:
            request = await _read(scope, receive)
            if request is None:
                await _write(
                    send, Answer(413, {"error": {"code": 413, "message": "Request payload size exceeds the limit."}})
                )
                return
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
    except Exception:  # noqa: BLE001 - a bug of one method must not take the others along; the trace is logged
        _log.exception("%s %s failed", request.http_method, request.path)
        return Answer(500, Fault("INTERNAL", "Internal error encountered.").body(""))


async def _read(scope: Scope, receive: Receive) -> Request | None:
    """The whole request, None for one that is too large. Raises ConnectionDropped when the client leaves within it."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionDropped
        body += message.get("body", b"")
        more = bool(message.get("more_body", False))
        if len(body) > _LARGEST_BODY_BYTES:
            return None
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    # Here, before anything can write the path to a log.
    path, token = taken_from(scope["raw_path"].decode("latin-1"))
    if token is not None:
        headers.setdefault("authorization", f"Bearer {token}")
    return Request(
        http_method=scope["method"],
        path=path,
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
    # With the protocol named, asyncio turns Nagle's algorithm off: each answer took 45 ms on a kept connection.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


def token_of(directory: Path) -> str:
    """The operator's token of a state directory; made on first use."""
    path = directory / TOKEN_FILE
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(new_token())
    return path.read_text().strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Says where in the state file or, without one, prints the port."""
    parser = argparse.ArgumentParser(prog="python -m orchestra_lib.local.control.server")
    parser.add_argument("--directory", type=Path, required=True, help="where the state is kept")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", default="0", help="realistic, 0, or a factor of realistic")
    parser.add_argument("--open", action="store_true", help="for tests: no token, projects exist when named")
    parser.add_argument("--organization", help="the id of the organisation that exists")
    parser.add_argument("--state-file", type=Path, help="where to say where the server listens")
    options = parser.parse_args(arguments)
    os.umask(0o077)  # the store holds tokens
    try:
        return _serve(options)
    except OrchestraError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _serve(options: argparse.Namespace) -> int:
    directory: Path = options.directory.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(directory):
        token = token_of(directory)
        listener = listening_socket(options.port)
        port = listener.getsockname()[1]
        control = ControlPlane(
            directory,
            token=None if options.open else token,
            latency=latency_of(options.latency),
            organization=Organization(id=options.organization) if options.organization else None,
        )
        listener.listen()
        if options.state_file:
            write_state(options.state_file, f"http://{HOST}:{port}", port, directory / TOKEN_FILE)
        else:
            sys.stdout.write(f"{port}\n")
            sys.stdout.flush()
        try:
            uvicorn_server(control).run(sockets=[listener])
        finally:
            control.close()
    return 0


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two servers must not write to one directory. The lock dies with its process."""
    try:
        with FileLock(directory / "server.lock", timeout=0):
            yield
    except Timeout as error:
        raise TargetUnreachable(f"another local Google Cloud serves {directory}; stop that one first") from error


if __name__ == "__main__":
    sys.exit(main())
