"""A service for the tests: a plain ASGI application that says which instance answered, and misbehaves when asked to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.parse
from pathlib import Path

STARTUP = float(os.environ.get("STARTUP_SECONDS", "0"))
READY_STATUS = int(os.environ.get("READY_STATUS", "200"))
if os.environ.get("REFUSES_TO_START"):
    sys.stderr.write("no database, no service\n")
    sys.exit(3)


def told() -> dict:
    """What this instance is."""
    names = ("K_SERVICE", "K_REVISION", "PORT", "COLOUR", "SECRET", "GREETING", "HOME")
    return {"pid": os.getpid(), "cwd": str(Path.cwd()), **{name: os.environ.get(name) for name in names}}


def identity(audience: str) -> dict:
    """Who the service account is, by Google's own library through the metadata server."""
    import google.auth
    import google.auth.transport.requests
    import google.oauth2.id_token

    request = google.auth.transport.requests.Request()
    credentials, project = google.auth.default()
    credentials.refresh(request)
    token = google.oauth2.id_token.fetch_id_token(request, audience)
    return {
        "email": credentials.service_account_email,
        "project": project,
        "access_token": credentials.token,
        "id_token": token,
    }


async def app(scope, receive, send):
    """One request."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    query = dict(urllib.parse.parse_qsl(scope["query_string"].decode()))
    path, status, body = scope["path"], 200, told()
    if path == "/ready":
        status = READY_STATUS
    elif path == "/sleep":
        await asyncio.sleep(float(query["seconds"]))
    elif path == "/headers":
        body = {name.decode(): value.decode() for name, value in scope["headers"]}
    elif path == "/echo":
        await _echo(receive, send)
        return
    elif path == "/stream":
        await _stream(send, int(query["parts"]))
        return
    elif path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif path == "/identity":
        body = await asyncio.to_thread(identity, query["audience"])
    elif path == "/path":
        body = {"path": scope["raw_path"].decode(), "query": scope["query_string"].decode()}
    await _answer(send, status, json.dumps(body).encode())


async def _answer(send, status, body):
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _echo(receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await _answer(send, 200, body)


async def _stream(send, parts):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(parts):
        await send({"type": "http.response.body", "body": f"part {number}\n".encode(), "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b""})


async def _lifespan(receive, send):
    await receive()
    await asyncio.sleep(STARTUP)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if os.environ.get("MARK"):
        with Path(os.environ["MARK"]).open("a") as mark:
            mark.write(f"{os.getpid()} was asked to stop\n")
    await send({"type": "lifespan.shutdown.complete"})
