"""A service for the rollout's tests: rows in an order, after a while, with a status, as its environment says."""

from __future__ import annotations

import asyncio
import json
import os

ROWS = os.environ.get("ROWS", "a b c").split()
STATUS = int(os.environ.get("STATUS", "200"))
SECONDS = float(os.environ.get("SECONDS", "0"))
READY_STATUS = int(os.environ.get("READY_STATUS", "200"))


async def app(scope, receive, send):
    """One request."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    is_probe = scope["path"] == "/ready"
    await asyncio.sleep(0 if is_probe else SECONDS)
    body = {"hits": [{"id": row} for row in ROWS], "answered_by": os.environ["K_REVISION"]}
    headers = [(b"content-type", b"application/json")]
    status = READY_STATUS if is_probe else STATUS
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
