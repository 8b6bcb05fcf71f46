"""Which version of HTTP an address speaks: asked, not assumed."""

from __future__ import annotations

import httpx

_TIMEOUT_SECONDS = 5.0


def speaks_http2(base_url: str) -> bool:
    """Whether HTTP/2 is spoken: as TLS agrees on it, and in cleartext by a client that begins with it.

    False also where nobody answers. https://www.rfc-editor.org/rfc/rfc9113.html#section-3
    """
    is_tls = base_url.startswith("https:")
    try:
        with httpx.Client(http1=is_tls, http2=True, timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            return client.get(base_url).http_version == "HTTP/2"
    except httpx.HTTPError:
        return False
