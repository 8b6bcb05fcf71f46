"""A service whose capacity is known: so many requests at once, each for so long, as its environment says.

``LIMIT``: more in flight are refused; ``SILENT``: without a word when to come again; ``WRONG_ABOVE``: with more in
flight an answer is wrong.
"""

from __future__ import annotations

import asyncio
import os

AT_ONCE, SECONDS = int(os.environ["AT_ONCE"]), float(os.environ["SECONDS"])
LIMIT, WRONG_ABOVE = int(os.environ.get("LIMIT", 100_000)), int(os.environ.get("WRONG_ABOVE", 100_000))
HEADERS = [(b"server-timing", f"total;dur={SECONDS * 1e3}".encode())]
REFUSED = [] if os.environ.get("SILENT") else [(b"retry-after", b"1")]
in_flight = 0
room = asyncio.Semaphore(AT_ONCE)


async def app(scope, receive, send):
    """One request; the body names the path."""
    global in_flight
    if in_flight >= LIMIT:
        await answer(send, 503, REFUSED, b"")
        return
    in_flight += 1
    is_wrong = in_flight > WRONG_ABOVE
    try:
        async with room:
            await asyncio.sleep(SECONDS)
    finally:
        in_flight -= 1
    status = 404 if scope["path"] == "/missing" else 200
    await answer(send, status, HEADERS, b"wrong" if is_wrong else scope["path"].encode())


async def answer(send, status, headers, body):
    """Send it."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
